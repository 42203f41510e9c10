"""Samplers that never propose a network over the cap.

Optuna has no hard constraints: its samplers learn to avoid what was infeasible, and each lesson
costs a trial. A parameter count is arithmetic, so here a candidate that does not fit is drawn
again before it becomes a trial.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from models.size import parameter_count
from models.spec import SpecError
from search.exceptions import InputError
from search.space import Space


@dataclass(frozen=True, slots=True)
class Draw:
    """How the candidate of one trial came about.

    Args:
        n_redraws: how many candidates before it were over the cap.
        is_shrunk: whether none fitted, and the last one was scaled down.
    """

    n_redraws: int = 0
    is_shrunk: bool = False


class CappedSampler(BaseSampler):
    """Draws whole candidates from `sampler` until one has fewer parameters than the cap.

    Optuna's samplers draw one hyperparameter after another while there are few trials, and
    jointly later. A candidate can only be judged whole, so here all of them are drawn at once,
    as one joint sample, from the first trial on.

    Args:
        max_redraws: after so many candidates over the cap the next one is scaled down to fit.
    """

    def __init__(
        self, sampler: BaseSampler, space: Space, parameter_cap: int, *, max_redraws: int
    ) -> None:
        self._sampler = sampler
        self._space = space
        self._parameter_cap = parameter_cap
        self._max_redraws = max_redraws
        self._draw = Draw()

    def __str__(self) -> str:
        return f"{type(self).__name__}({self._sampler})"

    def take_draw(self) -> Draw:
        """How the newest candidate came about; `Draw()` where nothing was drawn since."""
        draw, self._draw = self._draw, Draw()
        return draw

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return {
            name: distribution
            for name, distribution in self._space.distributions.items()
            if not distribution.single()
        }

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        fixed = trial.system_attrs.get("fixed_params", {})
        for n_redraws in range(self._max_redraws + 1):
            candidate = self._sample(study, trial, search_space)
            if self._fits({**candidate, **fixed}):
                self._draw = Draw(n_redraws)
                return candidate
        whole = self._with_single({**candidate, **fixed})
        # What a person asked for stays as it is; the coordinator refuses what is still too large.
        shrunk = self._space.shrink(whole, self._parameter_cap, keep=fixed)
        self._draw = Draw(self._max_redraws, is_shrunk=shrunk != whole)
        return {name: shrunk[name] for name in candidate}

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

    def _sample(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        joint_space = self._sampler.infer_relative_search_space(study, trial)
        candidate = self._sampler.sample_relative(study, trial, joint_space)
        for name, distribution in search_space.items():
            if name not in candidate:
                candidate[name] = self._sampler.sample_independent(study, trial, name, distribution)
        return candidate

    def _with_single(self, candidate: dict[str, Any]) -> dict[str, Any]:
        """With the values that Optuna does not sample because they have no alternative."""
        choices: dict[str, Any] = {
            name: optuna.distributions._get_single_value(distribution)
            for name, distribution in self._space.distributions.items()
            if distribution.single()
        }
        return {**choices, **candidate}

    def _fits(self, candidate: dict[str, Any]) -> bool:
        try:
            spec = self._space.spec(self._with_single(candidate))
        except SpecError:  # a topology for larger images, say
            return False
        return parameter_count(spec) < self._parameter_cap


@dataclass(frozen=True, slots=True)
class _SamplerKind:
    make: Callable[[int], BaseSampler]
    max_redraws: int  # by what a draw costs, and whether the next one differs at all


def _random(seed: int) -> BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


SAMPLERS: dict[str, _SamplerKind] = {
    "tpe": _SamplerKind(lambda seed: optuna.samplers.TPESampler(seed=seed), 100),
    "random": _SamplerKind(_random, 200),
    "qmc": _SamplerKind(
        lambda seed: optuna.samplers.QMCSampler(
            seed=seed,
            scramble=True,
            independent_sampler=_random(seed),
            warn_independent_sampling=False,
        ),
        100,
    ),
    # The Gaussian process looks for the best point of its model: drawn again, it hardly moves.
    "gp": _SamplerKind(
        lambda seed: optuna.samplers.GPSampler(seed=seed, independent_sampler=_random(seed)), 2
    ),
    "cmaes": _SamplerKind(
        lambda seed: optuna.samplers.CmaEsSampler(
            seed=seed, independent_sampler=_random(seed), warn_independent_sampling=False
        ),
        20,
    ),
}


def make_sampler(
    name: str, space: Space, parameter_cap: int, *, seed: int, n_trials: int
) -> CappedSampler:
    """The sampler of that name, which keeps to the cap.

    Args:
        n_trials: how many trials the study has so far. A sampler that starts with the same seed
            draws the same candidates, so the seed moves on with the study.

    Raises:
        InputError: if there is no sampler of that name.
    """
    if name not in SAMPLERS:
        raise InputError(f"A sampler must be one of {', '.join(SAMPLERS)}, but got {name!r}.")
    kind = SAMPLERS[name]
    own_seed = int(np.random.SeedSequence([seed, n_trials]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = kind.make(own_seed)
    return CappedSampler(sampler, space, parameter_cap, max_redraws=kind.max_redraws)
