"""A user's file of networks tried before a search begins: what it suggests, and what it builds."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from search.exceptions import SpaceError
from search.space.file_runs import Made
from search.space.file_space import FileSpace
from search_models.own import OwnNetworkError

_LEAST, _MOST = 8, 200  # draws that tell what a file does; until one is under the cap


@dataclass(frozen=True, slots=True)
class Probe:
    """What a file was seen to do.

    Args:
        always, sometimes: names that every network suggests, and those that only some do.
        scales: whether it has widths that are scaled to the cap.
        taken_over: the hyperparameters of training that the file says itself.
    """

    always: tuple[str, ...]
    sometimes: tuple[str, ...]
    scales: bool
    taken_over: tuple[str, ...]


def probe(space: FileSpace) -> Probe:
    """Draws networks of a file at random, until it is known what it does; builds one of them.

    Raises:
        SpaceError: if no network can be built, if what is built is none, if it is left to chance,
            or if none of many draws is under the cap.
    """
    chances = random.Random(0)
    known: list[Made] = []
    fitting: Made | None = None
    refused: OwnNetworkError | None = None
    for n in range(_MOST):
        if n >= _LEAST and (fitting is not None or not known):
            break
        try:
            values = space.complete({}, lambda _name, kind: _random_value(kind, chances))
            made = space.make(values)
            if not known and not space.runs.is_same_again(values, made):
                raise SpaceError(
                    f"{space.source.name} must suggest and build the same for the same values, but "
                    "it did not, twice in a row; take out what leaves it to chance."
                )
        except OwnNetworkError as error:
            refused = refused or error
            continue
        known.append(made)
        if fitting is None and space.fits(made.spec):
            _check(made)
            fitting = made
    if fitting is None and refused is not None and not known:
        raise SpaceError(_mend(refused)) from refused
    if fitting is None:
        smallest = min(made.spec.parameter_count for made in known)
        raise SpaceError(
            f"A network must have fewer parameters than the budget, but the budget is "
            f"{space.parameter_cap:,} and of {len(known)} networks that {space.source.name} built "
            f"at random the smallest has {smallest:,}; take a larger budget, smaller ranges, or "
            'search.width("name") for what is to be scaled to the budget.'
        )
    return _seen(space, known)


def _check(made: Made) -> None:
    """Raises SpaceError where a network that fits cannot be built, or cannot learn."""
    try:
        made.spec.check_trains()
    except OwnNetworkError as error:
        raise SpaceError(_mend(error)) from error


def _mend(error: OwnNetworkError) -> str:
    return f"{str(error).rstrip('.')}. Mend the file."


def _seen(space: FileSpace, known: list[Made]) -> Probe:
    taken_over = {tuple(sorted(made.trained)) for made in known}
    if len(taken_over) > 1:
        names = " and ".join(", ".join(each) or "none" for each in sorted(taken_over))
        raise SpaceError(
            f"{space.source.name}: training must return the same names each time, but it returned "
            f"{names}; return all of them always."
        )
    seen = {name for made in known for name in made.asked}
    always = frozenset.intersection(*(made.asked for made in known))
    return Probe(
        always=tuple(sorted(always)),
        sometimes=tuple(sorted(seen - always)),
        scales=space.runs.file.has_scaled or any(made.widths for made in known),
        taken_over=taken_over.pop(),
    )


def _random_value(distribution: BaseDistribution, chances: random.Random) -> Any:
    """A value drawn evenly, on the distribution's own scale."""
    if isinstance(distribution, CategoricalDistribution):
        return chances.choice(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high = float(distribution.low), float(distribution.high)
    if distribution.log:
        value = math.exp(chances.uniform(math.log(low), math.log(high)))
    else:
        value = chances.uniform(low, high)
    if distribution.step:
        value = low + round((value - low) / distribution.step) * distribution.step
    value = min(max(value, low), high)
    return round(value) if isinstance(distribution, IntDistribution) else value
