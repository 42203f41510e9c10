"""Optuna's distributions: drawn from, listed, and the nearest value in one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol, cast

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)


class TrialLike(Protocol):
    """What `suggest` needs of a trial: Optuna's Trial, FrozenTrial and FixedTrial have it."""

    @property
    def params(self) -> dict[str, Any]: ...
    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = ..., log: bool = ...
    ) -> float: ...
    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = ..., log: bool = ...
    ) -> int: ...
    def suggest_categorical(self, name: str, choices: Any) -> Any: ...


def is_inside(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a value that was made by hand has the type and range of its distribution."""
    match distribution:
        case IntDistribution(low=low, high=high, step=step):
            return type(value) is int and low <= value <= high and (value - low) % step == 0
        case FloatDistribution(low=low, high=high):
            return type(value) in (int, float) and low <= value <= high
        case CategoricalDistribution(choices=choices):
            return any(value == choice and type(value) is type(choice) for choice in choices)
    return False


def is_alike(distribution: BaseDistribution, other: BaseDistribution) -> bool:
    """Whether two distributions are of one kind; ranges may differ in their ends."""
    match distribution, other:
        case IntDistribution(log=log), IntDistribution(log=log_of_other):
            return log == log_of_other
        case FloatDistribution(log=log), FloatDistribution(log=log_of_other):
            return log == log_of_other
    return distribution == other


def n_values(distribution: BaseDistribution) -> float:
    match distribution:
        case IntDistribution(low=low, high=high):
            return high - low + 1
        case CategoricalDistribution(choices=choices):
            return len(choices)
    return math.inf


def all_values(distribution: BaseDistribution) -> Sequence[Any]:
    match distribution:
        case IntDistribution(low=low, high=high):
            return range(low, high + 1)
        case CategoricalDistribution(choices=choices):
            return choices
    raise TypeError(distribution)


def nearest(distribution: BaseDistribution, value: Any) -> Any:
    """The value of a distribution that is nearest to another one; None where none is near."""
    match distribution:
        case CategoricalDistribution(choices=choices) if isinstance(value, str):
            return value if value in choices else None
        case CategoricalDistribution(choices=choices) if isinstance(value, int | float):
            return min(cast(tuple[float, ...], choices), key=lambda choice: abs(choice - value))
        case FloatDistribution(low=low, high=high) if isinstance(value, int | float):
            return min(max(float(value), low), high)
        case IntDistribution(low=low, high=high) if isinstance(value, int | float):
            return min(max(round(value), low), high)
    return None  # the other space has no value, or a range that none of its recipes depends on


def first_value(distribution: BaseDistribution) -> Any:
    """The low end of a range; the first choice."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return distribution.low


def single_value(distribution: BaseDistribution) -> Any:
    """The value of a distribution that has no other."""
    return optuna.distributions._get_single_value(distribution)


def highest(distribution: BaseDistribution, limit: int) -> Any:
    """The highest number of a distribution that is no larger than a limit; None where none is."""
    match distribution:
        case CategoricalDistribution(choices=choices):
            numbers = [each for each in choices if isinstance(each, int) and each <= limit]
            return max(numbers, default=None)
        case IntDistribution(low=low, high=high) if low <= limit:
            return min(high, limit)
    return None


def suggest_value(trial: TrialLike, name: str, distribution: BaseDistribution) -> Any:
    match distribution:
        case FloatDistribution(low=low, high=high, log=log, step=step):
            return trial.suggest_float(name, low, high, step=step, log=log)
        case IntDistribution(low=low, high=high, log=log, step=int(step)):
            return trial.suggest_int(name, low, high, step=step, log=log)
        case CategoricalDistribution(choices=choices):
            return trial.suggest_categorical(name, choices)
    raise TypeError(distribution)
