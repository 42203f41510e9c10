"""What the entries of a space's table must be together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from search.exceptions import SpaceError
from search.space.design import DESIGN_NAMES
from search.space.limits import KINDS, MAX_WIDTHS, as_choices, is_range
from search.space.topologies import parse_topology, topologies_of
from search_models.layers import SpecError


def check_names(name: str, table: Mapping[str, Any]) -> None:
    """Sees to it that a table has all names, those of topologies or of designs, and no others.

    Args:
        name: of the space.

    Raises:
        SpaceError: if it has not.
    """
    for key in table:
        if key not in KINDS:
            raise SpaceError(
                f"{name}: unknown hyperparameter {key!r}; it must be one of {', '.join(KINDS)}."
            )
    optional = DESIGN_NAMES if "topology" in table else ("topology",)
    for key in KINDS:
        if not key.startswith("width_") and key not in (*optional, *table):
            raise SpaceError(f"{name}: {key} is missing.")


def check_budget_share(name: str, table: Mapping[str, Any]) -> None:
    """Sees to it that widths are scaled always, or never.

    Raises:
        SpaceError: if they would be in some networks alone, or never in designs.
    """
    share = table["budget_share"]
    lowest = share["low"] if is_range(share) else min(as_choices(share))
    if lowest > 0:
        return
    if "topology" not in table:
        raise SpaceError(
            f"{name}: budget_share: must be above 0 where no topology is named, as the widths are "
            f"scaled to it then, but got {share!r}."
        )
    if is_range(share) or len(as_choices(share)) > 1:
        raise SpaceError(
            f"{name}: budget_share: 0, for widths as they are drawn, must stand alone, but got "
            f"{share!r}."
        )


def check_topologies(
    name: str, table: Mapping[str, Any], smallest_count_of: Callable[[Mapping[str, Any]], int]
) -> None:
    """Sees to it that each topology of a table is one, and has all its widths there.

    Raises:
        SpaceError: if one is not.
    """
    for text in topologies_of(table):
        try:
            n_widths = parse_topology(text).n_widths
            if n_widths > MAX_WIDTHS:
                raise SpecError(f"a topology has at most {MAX_WIDTHS} open widths")
            for i in range(1, n_widths + 1):
                if f"width_{i}" not in table:
                    raise SpecError(f"width_{i} is missing: '{text}' has {n_widths}")
            smallest_count_of({"topology": text})
        except SpecError as error:
            raise SpaceError(f"{name}: topology: {error}") from error
