"""Which hyperparameters of a space its networks and their training can depend on at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from search.space.design import DESIGN_NAMES
from search.space.hyperparameters import Augmentation
from search.space.limits import as_choices, is_range
from search.space.topologies import parse_topology, topologies_of
from search_models.layers import SpecError

_AUGMENTATIONS = tuple(field.name for field in fields(Augmentation))


def has_effect(table: Mapping[str, Any], key: str) -> bool:
    """Whether any configuration of a table can depend on a name: else to search it is a waste."""
    schedules = as_choices(table.get("schedule"))
    is_design = "topology" not in table
    if key in DESIGN_NAMES and not is_design:
        return False
    match key.rpartition("_"):
        case ("blocks", _, number):
            return int(number) <= _most(table["pools"]) + 1
        case ("width", _, number):
            return any(_n_widths(text) >= int(number) for text in topologies_of(table))
        case ("step", _, _):
            return "step" in schedules
    if key == "warmup_share":
        return "one-cycle" in schedules
    if key == "final_augmentation":
        return any(_can_be_positive(table.get(name)) for name in _AUGMENTATIONS)
    if is_design and key in ("dropout", "activation"):
        return True
    if key == "dropout":
        return any(_has_open_dropout(text) for text in topologies_of(table))
    if key == "activation":
        return any(_has_open_activation(text) for text in topologies_of(table))
    return True


def _most(value: Any) -> int:
    return int(value["high"] if is_range(value) else max(as_choices(value)))


def _can_be_positive(value: Any) -> bool:
    if is_range(value):
        return bool(value.get("high") != 0)
    return any(choice != 0 for choice in as_choices(value))


def _n_widths(topology: str) -> int:
    try:
        return parse_topology(topology).n_widths
    except SpecError:
        return 0  # refused later, with the reason


def _has_open_dropout(topology: str) -> bool:
    try:
        return parse_topology(topology).has_open_dropout
    except SpecError:
        return False  # refused later, with the reason


def _has_open_activation(topology: str) -> bool:
    try:
        return parse_topology(topology).has_open_activation
    except SpecError:
        return False  # refused later, with the reason
