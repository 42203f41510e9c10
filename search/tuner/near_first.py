"""The first trials of a study: drawn about the values with which its space begins.

A sampler knows nothing before its first trials, and draws them evenly: of a space as wide as images
differ most are weak, and what is learnt of them is what to avoid. The values with which a space
begins are better than nearly all of it (docs/choices/default-space.md), so the trials with which a
model begins are drawn about them: a prior, as PriorBand has one (Mallik et al. 2023), by whose
measure every other trial is still drawn evenly.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from search.space.space import Space

N_FIRST = 10  # finished trials, from which on the sampler itself draws: as many as TPE waits for
_SPREAD = 0.12  # standard deviation of a range's values about the first, in shares of the range
_ELSEWHERE = 0.25  # how often a choice, or a number to be counted, is drawn evenly
_EVENLY = 0.5  # how often a whole trial is: the first values may be wrong for these images


class NearFirstSampler(BaseSampler):
    """Draws the first trials about the values with which `space` begins, the others by `sampler`.

    Args:
        seed: of those first draws.
    """

    def __init__(self, sampler: BaseSampler, space: Space, *, seed: int) -> None:
        self._sampler = sampler
        self._space = space
        self._first = space.first()
        self._random = random.Random(seed)

    def __str__(self) -> str:
        return f"{type(self).__name__}({self._sampler})"

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        if self._begins(study):
            return {n: d for n, d in self._space.distributions.items() if not d.single()}
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if self._begins(study):
            first: Mapping[str, Any] = {} if self._random.random() < _EVENLY else self._first
            return {
                name: self._draw(distribution, first.get(name))
                for name, distribution in search_space.items()
            }
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._sampler.before_trial(study, trial)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        self._sampler.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        self._sampler.reseed_rng()
        self._random.seed()

    def _begins(self, study: Study) -> bool:
        finished = (TrialState.COMPLETE, TrialState.PRUNED)
        return len(study.get_trials(deepcopy=False, states=finished)) < N_FIRST

    def _draw(self, distribution: BaseDistribution, first: Any) -> Any:
        """A value about `first`, or one drawn evenly where that is None."""
        if isinstance(distribution, CategoricalDistribution):
            is_even = first is None or self._is_elsewhere()
            return self._random.choice(distribution.choices) if is_even else first
        assert isinstance(distribution, FloatDistribution | IntDistribution)
        low, high = float(distribution.low), float(distribution.high)
        if isinstance(distribution, FloatDistribution):
            return self._draw_number(low, high, first, is_log=distribution.log)
        if not distribution.log:  # so that the ends come as often as the others
            low, high = low - 0.499, high + 0.499
        begin = None if self._is_elsewhere() else first
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

    def _is_elsewhere(self) -> bool:
        return self._random.random() < _ELSEWHERE
