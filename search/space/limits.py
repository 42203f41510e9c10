"""What each hyperparameter may be, in any space."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from search.exceptions import SpaceError
from search.space.design import BLOCKS, DESIGN_NAMES, MAX_POOLS
from search_models.layers import Activation

MAX_WIDTHS = 12


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a hyperparameter may be: its type, its limits (both allowed), and what it is.

    `silent` is its value in a table that does not name it, which one stored by an earlier version
    may not.
    """

    type: type[str] | type[int] | type[float]
    about: str
    low: float = -math.inf
    high: float = math.inf
    names: tuple[str, ...] = ()
    silent: str | float | None = None


_BELOW_ONE = math.nextafter(1.0, 0.0)
KINDS: dict[str, _Kind] = {
    "topology": _Kind(str, "layers, with the searched widths and dropout rates left out"),
    **{
        f"width_{i}": _Kind(int, f"channels of open convolution {i}", 1, 4096)
        for i in range(1, MAX_WIDTHS + 1)
    },
    "block": _Kind(str, "of a network without a topology", names=BLOCKS),
    "pools": _Kind(int, "how often its map is halved", 0, MAX_POOLS),
    **{
        f"blocks_{i}": _Kind(int, f"blocks at size {i} of the map", 0, 12)
        for i in range(1, MAX_POOLS + 2)
    },
    "growth": _Kind(float, "width of the last convolution over that of the first", 0.1, 100),
    "padding": _Kind(int, "of its 3×3 convolutions", 0, 1),
    "budget_share": _Kind(
        float, "the widths are scaled to this share of the budget; 0: as drawn", 0, 1, silent=0.0
    ),
    "learning_rate": _Kind(float, "the peak of the schedule", 1e-8, 100),
    "momentum": _Kind(float, "of SGD; beta1 of Adam and AdamW", 0, _BELOW_ONE),
    "weight_decay": _Kind(float, "L2 penalty; decoupled for AdamW", 0, 10),
    "dropout": _Kind(float, "rate wherever the topology has an open drop", 0, 0.9),
    "rotation_degrees": _Kind(float, "augmentation: rotation by ± this", 0, 180),
    "translation": _Kind(float, "augmentation: shift by ± this share of the side", 0, 0.5),
    "scale": _Kind(float, "augmentation: change of size by ± this share", 0, 0.9),
    "shear_degrees": _Kind(float, "augmentation: shear by ± this", 0, 60),
    "elastic": _Kind(
        float,
        "augmentation: elastic distortion, standard deviation as a share of the side",
        0,
        0.25,
        silent=0.0,
    ),
    "flip": _Kind(float, "augmentation: probability of an image to be mirrored", 0, 1, silent=0.0),
    "optimizer": _Kind(str, "", names=("sgd", "nesterov", "adam", "adamw")),
    "schedule": _Kind(
        str, "of the learning rate", names=("one-cycle", "step", "cosine", "constant")
    ),
    "warmup_share": _Kind(float, "one-cycle: share of the steps with a rising rate", 0.01, 0.9),
    "step_share": _Kind(float, "step: share of the epochs between two drops", 0.01, 1),
    "step_gamma": _Kind(float, "step: factor of each drop", 1e-4, _BELOW_ONE),
    "batch_size": _Kind(int, "images a step", 1, 65536),
    "label_smoothing": _Kind(
        float, "share of each label spread over all classes", 0, _BELOW_ONE, silent=0.0
    ),
    "ema_epochs": _Kind(
        float, "epochs over which the weights are averaged; 0: not at all", 0, 1000, silent=0.0
    ),
    "final_augmentation": _Kind(
        float, "share of the augmentation's ranges that is left at the end", 0, 1, silent=1.0
    ),
    "activation": _Kind(
        str, "of each convolution that names none", names=get_args(Activation), silent="relu"
    ),
}

# Which of them say what a network is, and which how it is trained.
OF_NETWORKS = (
    *("topology", "dropout", "activation", *DESIGN_NAMES),
    *(name for name in KINDS if name.startswith("width_")),
)
OF_TRAINING = tuple(name for name in KINDS if name not in OF_NETWORKS)


def as_choices(value: Any) -> list[Any]:
    """What a table that names no range lets choose from; one value where it fixes one."""
    if isinstance(value, dict) and "choices" in value:
        value = value["choices"]
    return value if isinstance(value, list) else [value]


def is_range(value: Any) -> bool:
    """Whether an entry of a table is a range, rather than a value or a choice."""
    return isinstance(value, dict) and "choices" not in value


def make_distribution(space: str, key: str, value: Any) -> BaseDistribution | None:
    """The distribution of what `value` searches; None where it fixes a value."""
    kind = KINDS[key]

    def fail(why: str) -> SpaceError:
        return SpaceError(f"{space}: {key}: {why}")

    if is_range(value):
        return _range(kind, value, fail)
    if isinstance(value, dict):
        if set(value) != {"choices", "first"} or not isinstance(value["choices"], list):
            raise fail(f"a choice has choices, a list, and first, one of them, but got {value!r}.")
        if value["first"] not in value["choices"]:
            raise fail(f"first must be one of the choices, but got {value!r}.")
        _check_value(kind, value["first"], fail)  # 16.0 is one of [16], too, and true one of [1]
        value = value["choices"]
    if isinstance(value, list):
        if not value:
            raise fail("a choice must have at least one value, but got [].")
        for choice in value:
            _check_value(kind, choice, fail)
        if len(set(value)) < len(value):
            raise fail(f"a choice must name each value once, but got {value!r}.")
        return CategoricalDistribution(value)
    _check_value(kind, value, fail)
    return None


def _check_value(kind: _Kind, value: Any, fail: Callable[[str], SpaceError]) -> None:
    allowed = (int, float) if kind.type is float else kind.type
    if not isinstance(value, allowed) or isinstance(value, bool):
        names = {str: "text", int: "a whole number", float: "a number"}
        raise fail(f"must be {names[kind.type]}, but got {value!r}.")
    if kind.names and value not in kind.names:
        raise fail(f"must be one of {', '.join(kind.names)}, but got {value!r}.")
    if not isinstance(value, str) and not kind.low <= value <= kind.high:
        high = "below 1" if kind.high == _BELOW_ONE else f"{kind.high:g}"
        raise fail(f"must be from {kind.low:g} to {high}, but got {value!r}.")


def _range(
    kind: _Kind, value: dict[str, Any], fail: Callable[[str], SpaceError]
) -> BaseDistribution:
    if kind.type is str:
        raise fail(f"must be a text or a list of texts, but got {value!r}.")
    if not {"low", "high"} <= set(value) <= {"low", "high", "log", "first"}:
        raise fail(f"a range has low, high and, where wanted, log and first, but got {value!r}.")
    low, high, log = value["low"], value["high"], value.get("log", False)
    for bound in (low, high):
        _check_value(kind, bound, fail)
    if not isinstance(log, bool):
        raise fail(f"log must be true or false, but got {log!r}.")
    if not low < high:
        raise fail(f"low < high must hold, but got low = {low!r}, high = {high!r}.")
    if log and low <= 0:
        raise fail(f"low > 0 must hold for a log range, but got low = {low!r}.")
    first = value.get("first", low)
    _check_value(kind, first, fail)
    if not low <= first <= high:
        raise fail(f"low <= first <= high must hold, but got first = {first!r}.")
    if kind.type is int:
        return IntDistribution(low, high, log=log)
    return FloatDistribution(low, high, log=log)
