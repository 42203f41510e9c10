"""The race over fresh seeds at the end of a search."""

from __future__ import annotations

import math
from dataclasses import dataclass

from optuna.study import Study

from search.results.confirm import ConfirmationRun
from search.results.folds import Folds
from search.results.target import TARGET_SEEDS, TARGET_TRIALS
from search.study.findings import Findings
from search.study.record import TrialRecord
from search.study.summary import best_trial, confirmed_number, is_trained, tally
from search.study.trials import trials_of
from search.tuner.options import SearchRequest

CONFIRMED_FROM = 20  # trained trials
_CONFIRMED_TRIALS, _CONFIRMED_SEEDS = 3, 3
_CONFIRMATION_LIMIT = 0.25  # of the seconds that the search's trials trained


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


def longest_race(request: SearchRequest) -> tuple[int, float]:
    """How many runs the race of a search may have, and for what share of its trials' time."""
    if not confirms(request):
        return 0, 0.0
    if request.target is not None:
        return TARGET_TRIALS * TARGET_SEEDS, math.inf
    if request.n_trials < CONFIRMED_FROM:
        return 0, 0.0
    return _CONFIRMED_TRIALS * _CONFIRMED_SEEDS, _CONFIRMATION_LIMIT


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
    seconds = [TrialRecord.read(trial).seconds or 0.0 for trial in filter(is_trained, trials)]
    limit = _CONFIRMATION_LIMIT * sum(seconds)
    # One run of each would tell nothing: rather fewer trials, each run twice.
    n_affordable = int(limit / (2 * max([*seconds, 1e-3])))
    run = ConfirmationRun(
        study,
        top=min(_CONFIRMED_TRIALS, max(1, n_affordable)),
        folds=folds,
        n_seeds=_CONFIRMED_SEEDS,
        limit_seconds=limit,
    )
    is_due = run.next() is not None or (run.n_kept > 0 and not is_confirmed)
    return run if is_due else None
