"""Which hyperparameters of a space its networks and their training can depend on at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from search.space.hyperparameters import Augmentation
from search.space.limits import as_choices
from search.space.topologies import parse_topology, topologies_of
from search_models.spec import SpecError

_AUGMENTATIONS = tuple(field.name for field in fields(Augmentation))


def has_effect(table: Mapping[str, Any], key: str) -> bool:
    """Whether any configuration of a table can depend on a name: else to search it is a waste."""
    schedules = as_choices(table.get("schedule"))
    match key.rpartition("_"):
        case ("width", _, number):
            return any(_n_widths(text) >= int(number) for text in topologies_of(table))
        case ("step", _, _):
            return "step" in schedules
    if key == "warmup_share":
        return "one-cycle" in schedules
    if key == "final_augmentation":
        return any(_can_be_positive(table.get(name)) for name in _AUGMENTATIONS)
    if key == "dropout":
        return any(_has_open_dropout(text) for text in topologies_of(table))
    if key == "activation":
        return any(_has_open_activation(text) for text in topologies_of(table))
    return True


def _can_be_positive(value: Any) -> bool:
    if isinstance(value, dict):
        return value.get("high") != 0
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
