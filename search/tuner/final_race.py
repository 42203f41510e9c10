"""The race over fresh seeds at the end of a search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from optuna.study import Study
from optuna.trial import FrozenTrial

from search.results.confirm import ConfirmationRun, expected_seconds
from search.results.folds import Folds
from search.results.race import SeedRace
from search.results.race_length import DRIFT, RacedTrial, lasting_values, play_through
from search.results.target import TARGET_SEEDS, TARGET_TRIALS
from search.study.findings import Findings
from search.study.record import TrialRecord
from search.study.summary import (
    best_trial,
    by_accuracy,
    confirmed_number,
    first_trial,
    is_trained,
    tally,
)
from search.study.trials import trials_of
from search.tuner.options import SearchRequest

CONFIRMED_FROM = 8  # trained trials
_MOST_TRIALS = 6  # of the best, besides the one with which the study began
_ROUNDS = 2  # through all parts of the data, where there is time
_RUNS_OF_ONE_PART = 6
_LEAST_RUNS = 2  # of each: one tells nothing, so rather fewer trials
_SHARE = 1 / 3  # of the seconds that the search's trials trained
# Where a search is short its data are few, and one run of a trial tells least.
_SECONDS = 240.0  # of training, that a race may take however short the search was


@dataclass(frozen=True)
class FinalRace:
    """The race at the end of a search.

    Args:
        run: None where there is none to run.
        is_elsewhere: whether another search of the study runs it.
    """

    run: ConfirmationRun | None
    is_elsewhere: bool = False


def confirms(request: SearchRequest) -> bool:
    """Whether a race is to follow: with two objectives there is no one best."""
    return request.confirm and request.objective == "accuracy"


@dataclass(frozen=True, slots=True)
class RaceLimits:
    """How long the race of a search may be; by default, there is none.

    Args:
        n_candidates: at most.
        n_runs: of each, at most.
        share: of the seconds that its trials trained, what it may train,
        seconds: or so many, where that is more; what the least runs take at the least.
        folds: the parts of its data.
    """

    n_candidates: int = 0
    n_runs: int = 0
    share: float = 0.0
    seconds: float = 0.0
    folds: Folds = field(default_factory=lambda: Folds(1, 1))


def race_limits(request: SearchRequest, n_trials: int, folds: Folds) -> RaceLimits:
    """How long the race of a search may be, of so many trials."""
    if not confirms(request):
        return RaceLimits()
    if request.target is not None:
        return RaceLimits(TARGET_TRIALS, TARGET_SEEDS, seconds=math.inf, folds=folds)
    if n_trials < CONFIRMED_FROM:
        return RaceLimits()
    return RaceLimits(_MOST_TRIALS + 1, _runs_of_each(folds.n_parts), _SHARE, _SECONDS, folds)


def race_seconds(
    limits: RaceLimits, trials: Sequence[RacedTrial], trained_seconds: float, *, n_workers: int
) -> float:
    """How long a race of trials takes, once the search has trained so long: played through.

    Args:
        trials: the best first.
    """
    limit = max(limits.seconds, limits.share * trained_seconds)
    trials = trials[: limits.n_candidates]
    costs = accumulate(_LEAST_RUNS * DRIFT * trial.seconds for trial in trials)
    trials = trials[: max(2, sum(cost <= limit for cost in costs))]
    limit = max(limit, sum(_LEAST_RUNS * DRIFT * trial.seconds for trial in trials))
    runs = limits.folds.runs(limits.n_runs, first_seed=1)
    values = lasting_values([trial.value for trial in trials])
    return play_through(
        SeedRace(range(len(trials)), runs, limits.folds.n_images),
        {
            index: trial._replace(value=value)
            for index, (trial, value) in enumerate(zip(trials, values, strict=True))
        },
        n_images=limits.folds.n_images,
        limit_seconds=limit,
        n_workers=n_workers,
    )


def _runs_of_each(n_parts: int) -> int:
    return _RUNS_OF_ONE_PART if n_parts == 1 else _ROUNDS * n_parts


def race_at_the_end(study: Study, request: SearchRequest, folds: Folds) -> ConfirmationRun | None:
    """The race that a study still lacks, as `Search.hold_race` says; None where it lacks none.

    A winner of a race of before there were parts stays; `search confirm` races again.

    Args:
        folds: the parts of its data.
    """
    trials = trials_of(study)
    if not confirms(request) or best_trial(trials) is None:
        return None
    if request.target is not None:
        return ConfirmationRun(study, top=TARGET_TRIALS, folds=folds, n_seeds=TARGET_SEEDS)
    confirmation = Findings.read(study).confirmation
    is_confirmed = confirmed_number(study, trials) is not None
    if is_confirmed and confirmation is not None and "n_parts" not in confirmation:
        return None
    if tally(trials).n_trained < CONFIRMED_FROM:
        return None
    limit = max(_SECONDS, _SHARE * sum(map(_seconds, filter(is_trained, trials))))
    best = by_accuracy(trials)
    # What a search begins with is good by more than the one run that the others owe their place.
    begun_with = first_trial(trials)
    first = [trial for trial in best[1:] if trial.number == begun_with]
    candidates = [best[0], *first, *best[1:_MOST_TRIALS]]
    n_racing = max(1 + len(first), _n_affordable(candidates, limit))
    besides = [trial.number for trial in first if trial not in best[:n_racing]][: n_racing - 1]
    run = ConfirmationRun(
        study,
        top=n_racing - len(besides),
        besides=besides,
        folds=folds,
        n_seeds=_runs_of_each(folds.n_parts),
        limit_seconds=limit,
    )
    run.allow(_LEAST_RUNS)  # where earlier races have spent the time, or one run takes it all
    is_due = run.next() is not None or (run.n_kept > 0 and not is_confirmed)
    return run if is_due else None


def _n_affordable(candidates: Sequence[FrozenTrial], limit: float) -> int:
    """How many of these trials, the best first, can be run often enough."""
    costs = accumulate(_LEAST_RUNS * expected_seconds(trial) for trial in candidates)
    return sum(cost <= limit for cost in costs)


def _seconds(trial: FrozenTrial) -> float:
    return TrialRecord.read(trial).seconds or 0.0
