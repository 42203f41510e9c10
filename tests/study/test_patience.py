"""When a study has stopped improving, by values whose noise is known."""

from __future__ import annotations

from datetime import datetime, timedelta

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from search.study.history import StudyLength
from search.study.length import Stagnation, is_reached, is_stagnant
from tests.support.made_studies import record

_START = datetime(2025, 1, 1)


def _trials(*values: float | None, is_trained: bool = True) -> list[FrozenTrial]:
    """Trials that ended one after the other: complete with a value, or pruned."""
    trials = []
    for number, value in enumerate(values):
        trial = optuna.trial.create_trial(
            state=TrialState.PRUNED if value is None else TrialState.COMPLETE,
            value=value,
            user_attrs=record(value or 0.0) if is_trained else {},
        )
        trial.number = number
        trial.datetime_complete = _START + timedelta(seconds=number)
        trials.append(trial)
    return trials


@pytest.mark.parametrize(
    ("values", "n_without"),
    [
        ((), 0),
        ((0.9,), 0),
        ((0.9, 0.89, 0.8), 2),
        ((None, None), 2),
        ((None, 0.9), 0),
        ((0.9, None, 0.9, None), 3),
        ((0.9, 0.8, 0.92), 0),
        ((0.9, 0.905, 0.908), 2),  # the standard error at 0.9 is 0.01
        ((0.9, 0.905, 0.911), 0),  # gains that add up
        ((0.9, 0.911, 0.915), 1),
        ((1.0, 1.0), 1),
        ((0.0, 0.001), 0),
    ],
)
def test_only_what_is_better_by_more_than_noise_is_progress(
    values: tuple[float | None, ...], n_without: int
) -> None:
    assert Stagnation.of(_trials(*values), 900).n_without == n_without


def test_trials_that_end_later_are_counted_on() -> None:
    stagnation = Stagnation.of(_trials(0.9, 0.8), 900)
    counts = []
    for value in (None, 0.905, 0.92, 0.92):
        stagnation.add(value)
        counts.append(stagnation.n_without)

    assert counts == [2, 3, 0, 1]


def test_more_validation_images_have_less_noise() -> None:
    trials = _trials(0.9, 0.905)

    assert Stagnation.of(trials, 900).n_without == 1
    assert Stagnation.of(trials, 9_000).n_without == 0


def test_trials_count_in_the_order_in_which_they_ended() -> None:
    best, weak, weaker = _trials(0.9, 0.8, 0.7)
    best.datetime_complete = _START + timedelta(minutes=1)

    assert Stagnation.of([best, weak, weaker], 900).n_without == 0


def test_what_was_not_trained_does_not_count() -> None:
    untrained = _trials(None, None, None, is_trained=False)

    assert Stagnation.of(untrained, 900).n_without == 0


@pytest.mark.parametrize(
    ("length", "has_stagnated", "is_over"),
    [
        (StudyLength(9, patience=2), True, True),
        (StudyLength(9, patience=3), False, False),
        (StudyLength(3, patience=3), False, True),
        (StudyLength(9), False, False),
        (StudyLength(3), False, True),
    ],
)
def test_a_study_ends_with_its_trials_or_its_patience(
    length: StudyLength, has_stagnated: bool, is_over: bool
) -> None:
    trials = _trials(0.9, 0.8, 0.8)

    assert is_stagnant(length, trials, 900) == has_stagnated
    assert is_reached(length, trials, 900) == is_over
