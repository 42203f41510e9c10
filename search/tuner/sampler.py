"""Samplers that never propose a network over the cap, nor a configuration that was tried.

Optuna has no hard constraints: its samplers learn to avoid what was infeasible, and each lesson
costs a trial. A parameter count is arithmetic, so here a candidate that does not fit is drawn
again before it becomes a trial. So is one that the study has tried: samplers come back to what is
good, and in a space of choices that is often the very same configuration.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from search.exceptions import InputError, TrainingError
from search.space.distributions import is_inside
from search.space.space import Space
from search.study.news import TrialNews
from search.study.record import queued_values
from search.tuner.dedup import SeenConfigurations
from search.tuner.near_first import N_FIRST, FirstDraws
from search.tuner.window import History, HistoryWindow
from search_models.layers import SpecError
from search_models.own import OwnNetworkError

_N_SHRUNK_DRAWS = 10  # to scale one down takes fifty times as long as to draw it
_N_RANDOM_DRAWS = 200  # that find nothing new: a range of floats gives something new in one or two


_NO_TRIAL = optuna.create_trial(state=TrialState.WAITING)  # random draws ask nothing of theirs


@dataclass(frozen=True, slots=True)
class Draw:
    """How the candidate of one trial came about.

    Args:
        n_redraws: how many candidates before it were over the cap.
        is_shrunk: whether none fitted, and the last one was scaled down.
        is_new: false where no candidate was found that the study has not tried.
    """

    n_redraws: int = 0
    is_shrunk: bool = False
    is_new: bool = True


class CappedSampler(BaseSampler):
    """Draws whole candidates from `sampler` until one is under the cap and was not tried.

    Optuna's samplers draw one hyperparameter after another while there are few trials, and
    jointly later. A candidate can only be judged whole, so here all of them are drawn at once,
    as one joint sample, from the first trial on.

    Args:
        max_redraws: after so many candidates that were over the cap or tried, one over the cap is
            scaled down to fit, and where that was tried, too, candidates are drawn at random.
        seed: of those random draws.
        forgets: whether `sampler` is shown no more than what `HistoryWindow` keeps. Not for one
            that goes on from what it has stored with its trials.
        first_draws: what draws in its place while a study has few finished trials; None for
            `sampler` alone.
    """

    def __init__(
        self,
        sampler: BaseSampler,
        space: Space,
        *,
        max_redraws: int,
        seed: int = 0,
        forgets: bool = False,
        first_draws: FirstDraws | None = None,
    ) -> None:
        self._sampler = sampler
        self._space = space
        self._max_redraws = max_redraws
        self._first_draws = first_draws
        self._draw = Draw()
        self._drawn: dict[str, Any] = {}
        self._news = TrialNews()
        self._seen = SeenConfigurations(space)
        self._history = HistoryWindow() if forgets else History()
        self._random = random.Random(seed)
        self._random_sampler = optuna.samplers.RandomSampler(seed=seed)
        self._probe = optuna.samplers.RandomSampler(seed=seed)

    def __str__(self) -> str:
        return f"{type(self).__name__}({self._sampler})"

    def take_draw(self) -> Draw:
        """How the newest candidate came about, told once; `Draw()` where none was drawn since."""
        draw, self._draw = self._draw, Draw()
        return draw

    @property
    def seen(self) -> SeenConfigurations:
        """What the study had tried as of the last `refresh`."""
        return self._seen

    def has_untried(self, study: Study) -> bool:
        """Whether the space has a configuration to try, as of the last `refresh`.

        Of a space with too many to list, whether random draws find one: so that no trial is made
        which could only fail.
        """
        if not self._seen.has_untried():
            return False
        if self._seen.is_listable or self._space.is_open:
            return True
        distributions = self.infer_relative_search_space(study, _NO_TRIAL)
        n_shrunk = 0
        for _ in range(_N_RANDOM_DRAWS):
            values = self._draw_random(self._probe, study, _NO_TRIAL, distributions, {})
            if not self._fits(values):
                n_shrunk += 1
                if n_shrunk > _N_SHRUNK_DRAWS:
                    continue
                values = self._space.shrink(values)
            if self._fits(values) and values not in self._seen:
                return True
        return False

    def refresh(self, study: Study, *, besides: int | None = None) -> Sequence[FrozenTrial]:
        """Takes note of what is new of the study's trials, all but one that is being drawn.

        Returns those that wait or run.
        """
        news = self._news.take_new(study)
        self._seen.update([*news.finished, *news.open], besides=besides)
        self._history.add(news.finished)
        return news.open

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
        fixed = queued_values(trial) or {}
        self._drawn = {}
        open_trials = self.refresh(study, besides=trial.number)
        study = self._history.view(study, open_trials)
        full_params: dict[str, Any] | None = None
        for full_params, draw in self._candidates(study, trial, search_space, fixed):
            self._draw = replace(draw, is_new=full_params not in self._seen)
            if self._draw.is_new:
                break
        if full_params is None:
            raise TrainingError(
                "A network must have fewer parameters than the budget, but of "
                f"{self._max_redraws + 1 + _N_RANDOM_DRAWS} networks that were drawn none had; "
                "give their file smaller ranges, or take a larger budget, in another study."
            )
        # What only the candidate itself tells that it needs is asked for later, one by one.
        self._drawn = {name: full_params[name] for name in full_params if name not in search_space}
        return {name: full_params[name] for name in search_space}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        drawn = self._drawn.get(param_name)
        if param_name in self._drawn and is_inside(param_distribution, drawn):
            return drawn
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
        self._random_sampler.reseed_rng()
        self._random.seed()
        if self._first_draws is not None:
            self._first_draws.reseed()

    def _sample(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        finished = (TrialState.COMPLETE, TrialState.PRUNED)
        if (
            self._first_draws is not None
            and len(study.get_trials(deepcopy=False, states=finished)) < N_FIRST
        ):
            return self._first_draws.draw(search_space)
        joint_space = self._sampler.infer_relative_search_space(study, trial)
        candidate = self._sampler.sample_relative(study, trial, joint_space)
        for name, distribution in search_space.items():
            if name not in candidate:
                candidate[name] = self._sampler.sample_independent(study, trial, name, distribution)
        return candidate

    def _candidates(
        self,
        study: Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
        fixed: Mapping[str, Any],
    ) -> Iterator[tuple[dict[str, Any], Draw]]:
        """Candidates under the cap, those of the sampler first; at least one."""
        n_over = 0

        def draw(name: str, distribution: BaseDistribution) -> Any:
            return self._sampler.sample_independent(study, trial, name, distribution)

        for _ in range(self._max_redraws + 1):
            full_params = self._space.complete(
                {**self._sample(study, trial, search_space), **fixed}, draw
            )
            if self._fits(full_params):
                yield full_params, Draw(n_over)
            else:
                n_over += 1
        n_redraws = min(n_over, self._max_redraws)
        if n_over > self._max_redraws:
            # What a person asked for stays as it is; the coordinator refuses what is too large.
            shrunk = self._space.shrink(full_params, keep=fixed)
            if fixed or not self._space.is_open or self._fits(shrunk):
                yield shrunk, Draw(n_redraws, is_shrunk=shrunk != full_params)
        for other, is_shrunk in self._others(study, trial, search_space, fixed):
            if self._fits(other):
                yield other, Draw(n_redraws, is_shrunk=is_shrunk)

    def _others(
        self,
        study: Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
        fixed: Mapping[str, Any],
    ) -> Iterator[tuple[dict[str, Any], bool]]:
        """Random candidates: of a small space all that were not tried, else a number of draws.

        With each, whether it was scaled down to fit.
        """
        untried = self._seen.untried()
        if untried is not None:
            self._random.shuffle(untried)
            for values in untried:
                yield {**values, **fixed}, False
            return
        for _ in range(_N_RANDOM_DRAWS):
            full_params = self._draw_random(self._random_sampler, study, trial, search_space, fixed)
            if self._fits(full_params):
                yield full_params, False
            else:
                yield self._space.shrink(full_params, keep=fixed), True

    def _draw_random(
        self,
        sampler: BaseSampler,
        study: Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
        fixed: Mapping[str, Any],
    ) -> dict[str, Any]:
        def draw(name: str, distribution: BaseDistribution) -> Any:
            return sampler.sample_independent(study, trial, name, distribution)

        drawn = {name: draw(name, distribution) for name, distribution in search_space.items()}
        return self._space.complete({**drawn, **fixed}, draw)

    def _fits(self, full_params: Mapping[str, Any]) -> bool:
        try:
            spec = self._space.spec(full_params)
        except OwnNetworkError:
            return True  # a trial tells why the user's file fails
        except SpecError:  # a topology for larger images, say
            return False
        return self._space.fits(spec)


@dataclass(frozen=True, slots=True)
class _SamplerKind:
    make: Callable[[int], BaseSampler]
    max_redraws: int  # by what a draw costs, and whether the next one differs at all
    knows_several_objectives: bool = True
    forgets: bool = False  # where a draw costs what the number of trials does
    begins_near_first: bool = False  # for one that would draw evenly while it knows nothing


def _random(seed: int) -> BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


SAMPLERS: dict[str, _SamplerKind] = {
    # Multivariate and with constant liar is TPE's default for one objective, not for several.
    "tpe": _SamplerKind(
        lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True),
        100,
        forgets=True,
        begins_near_first=True,
    ),
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
        knows_several_objectives=False,
    ),
}


def check_sampler(name: str, *, n_objectives: int) -> None:
    """Raises InputError if there is no sampler of that name, or not for so many objectives."""
    if name not in SAMPLERS:
        raise InputError(f"A sampler must be one of {', '.join(SAMPLERS)}, but got {name!r}.")
    if n_objectives > 1 and not SAMPLERS[name].knows_several_objectives:
        raise InputError(
            f"The sampler {name} must have one objective, but got {n_objectives}; take another."
        )


def make_sampler(
    name: str,
    space: Space,
    *,
    seed: int,
    n_trials: int,
    n_runs: int = 0,
    n_objectives: int = 1,
) -> CappedSampler:
    """The sampler of that name, which keeps to the cap.

    Args:
        n_trials: how many trials the study has so far. A sampler that starts with the same seed
            draws the same candidates, so the seed moves on with the study.
        n_runs: how many searches of the study began before, where others may run at the same time.

    Raises:
        InputError: as `check_sampler` does.
    """
    check_sampler(name, n_objectives=n_objectives)
    kind = SAMPLERS[name]
    own_seed = int(np.random.SeedSequence([seed, n_trials, n_runs]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = kind.make(own_seed)
    return CappedSampler(
        sampler,
        space,
        max_redraws=kind.max_redraws,
        seed=own_seed,
        forgets=kind.forgets and n_objectives == 1,
        first_draws=FirstDraws(space.first(), seed=own_seed) if kind.begins_near_first else None,
    )
