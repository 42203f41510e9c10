"""The topologies that a space's table names, each parsed once."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from search.space.limits import as_choices
from search_models.spec import Topology

parse_topology = functools.lru_cache(maxsize=256)(Topology)


def topologies_of(table: Mapping[str, Any]) -> list[str]:
    """The notations that a table fixes or lets choose from."""
    return [text for text in as_choices(table.get("topology")) if isinstance(text, str)]
