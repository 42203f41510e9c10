"""The first trials of a study: half of them drawn about the values with which its space begins.

A sampler knows nothing before its first trials, and draws them evenly: of a space as wide as images
differ most are weak, and what is learnt of them is what to avoid. The values with which a space
begins are better than nearly all of it (docs/choices/default-space.md), so every other of the
trials with which a model begins is drawn about them: a prior, as PriorBand has one (Mallik et al.
2023), which still lets a search find others where it is wrong.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

N_FIRST = 10  # finished trials, from which on the sampler itself draws: as many as TPE waits for
_SPREAD = 0.12  # standard deviation of a range's values about the first, in shares of the range
_EVEN_VALUE = 0.25  # how often a choice, or a number to be counted, is drawn evenly
_EVEN_TRIAL = 0.5  # how often a whole trial is: the first values may be wrong for these images


class FirstDraws:
    """Draws candidates evenly, or about the values with which a space begins.

    Args:
        first: these values; what has none is drawn evenly.
    """

    def __init__(self, first: Mapping[str, Any], *, seed: int) -> None:
        self._first = first
        self._random = random.Random(seed)

    def draw(self, distributions: Mapping[str, BaseDistribution]) -> dict[str, Any]:
        """A whole candidate."""
        first: Mapping[str, Any] = {} if self._random.random() < _EVEN_TRIAL else self._first
        return {
            name: self._draw(distribution, first.get(name))
            for name, distribution in distributions.items()
        }

    def reseed(self) -> None:
        """Begins another sequence, which no seed tells."""
        self._random.seed()

    def _draw(self, distribution: BaseDistribution, first: Any) -> Any:
        """A value about `first`, or one drawn evenly where that is None."""
        if isinstance(distribution, CategoricalDistribution):
            is_even = first is None or self._is_even()
            return self._random.choice(distribution.choices) if is_even else first
        assert isinstance(distribution, FloatDistribution | IntDistribution)
        low, high = float(distribution.low), float(distribution.high)
        if isinstance(distribution, FloatDistribution):
            return self._draw_number(low, high, first, is_log=distribution.log)
        if not distribution.log:  # so that the ends come as often as the others
            low, high = low - 0.499, high + 0.499
        begin = None if self._is_even() else first
        return round(self._draw_number(low, high, begin, is_log=distribution.log))

    def _draw_number(self, low: float, high: float, first: float | None, *, is_log: bool) -> float:
        ends = (math.log(low), math.log(high)) if is_log else (low, high)
        if first is None:
            value = self._random.uniform(*ends)
        else:
            begin, value = math.log(first) if is_log else first, math.inf
            while not ends[0] <= value <= ends[1]:
                value = self._random.gauss(begin, _SPREAD * (ends[1] - ends[0]))
        # What rounding has put outside is put back.
        return min(max(math.exp(value), low), high) if is_log else value

    def _is_even(self) -> bool:
        return self._random.random() < _EVEN_VALUE
