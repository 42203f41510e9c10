"""When a study has stopped improving, by values whose noise is known."""

from __future__ import annotations

from datetime import datetime, timedelta

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from search.tuner.patience import Patience
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
    patience = Patience(5, n_validation=900)

    assert patience.n_without_progress(_trials(*values)) == n_without


def test_more_validation_images_have_less_noise() -> None:
    trials = _trials(0.9, 0.905)

    assert Patience(5, n_validation=900).n_without_progress(trials) == 1
    assert Patience(5, n_validation=9_000).n_without_progress(trials) == 0


def test_trials_count_in_the_order_in_which_they_ended() -> None:
    best, weak, weaker = _trials(0.9, 0.8, 0.7)
    best.datetime_complete = _START + timedelta(minutes=1)

    assert Patience(5, n_validation=900).n_without_progress([best, weak, weaker]) == 0


def test_what_was_not_trained_does_not_count() -> None:
    untrained = _trials(None, None, None, is_trained=False)

    assert Patience(1, n_validation=900).n_without_progress(untrained) == 0


@pytest.mark.parametrize(("n_trials", "is_over"), [(1, True), (2, True), (3, False)])
def test_patience_is_over_after_its_number_of_trials(n_trials: int, is_over: bool) -> None:
    trials = _trials(0.9, 0.8, 0.8)

    assert Patience(n_trials, n_validation=900).is_over(trials) == is_over
