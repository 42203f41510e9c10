"""How many trials a study gets where nobody says."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.tuner.length import usual_trials
from search.tuner.options import SearchRequest
from search.tuner.plan import SearchPlan, plan_search
from search.tuner.request import check_request
from search.tuner.session import begin_search


@pytest.mark.parametrize(
    ("n_training", "epochs", "n_trials"),
    [
        (50_000, 15, 20),  # MNIST
        (50_000, 1, 45),
        (1_079, 15, 65),  # the embedded digits
        (10, 1, 100),
        (10_000_000, 100, 20),
    ],
)
def test_the_less_there_is_to_train_the_more_trials(
    n_training: int, epochs: int, n_trials: int
) -> None:
    assert usual_trials(n_training, epochs) == n_trials


def test_what_was_asked_for_goes_before_what_is_usual_and_more_is_never_taken_back(
    tmp_path: Path,
) -> None:
    def plan(n_trials: int | None) -> SearchPlan:
        storage = f"sqlite:///{tmp_path / 'studies.db'}"
        request = SearchRequest(3000, 15, n_trials, dataset="digits", storage=storage)
        return plan_search(check_request(request))

    def n_trials_after(n_trials: int) -> int:
        with begin_search(plan(n_trials)):
            return plan(None).n_trials

    assert plan(7).n_trials == 7
    assert plan(None).n_trials == 65
    assert n_trials_after(7) == 65
    assert n_trials_after(200) == 200
