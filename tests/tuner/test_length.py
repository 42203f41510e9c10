"""How many trials a study gets where nobody says."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.results.folds import Folds
from search.tuner.final_race import RacedTrial, race_limits, race_seconds
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


@pytest.mark.parametrize("n_workers", [1, 2, 8])
def test_a_race_takes_its_share_of_the_time_or_its_runs_or_its_least(n_workers: int) -> None:
    limits = race_limits(SearchRequest(8000, 15), 40, Folds(6, 10_000))

    def seconds(run: float, trained: float, n: int = 7) -> float:
        trials = [RacedTrial(0.99, run)] * n
        return race_seconds(limits, trials, trained, n_workers=n_workers)

    assert seconds(1.0, 60.0) == pytest.approx(7 * 12 / n_workers, abs=1.0)  # all runs
    assert seconds(10.0, 300.0) == pytest.approx(240 / n_workers, abs=20.0)  # four minutes
    assert seconds(10.0, 1800.0) == pytest.approx(600 / n_workers, abs=20.0)  # a third
    # The best and the first, twice each, in rounds of so many workers.
    assert seconds(500.0, 900.0) == 500.0 * -(-4 // n_workers)
    assert (
        race_seconds(race_limits(SearchRequest(8000, 15), 19, Folds(6, 1)), [], 9.0, n_workers=2)
        == 0
    )


def test_a_search_without_a_race_has_none_to_wait_for() -> None:
    for request in (
        SearchRequest(8000, 15, confirm=False),
        SearchRequest(8000, 15, objective="accuracy,size"),
    ):
        assert race_limits(request, 40, Folds(6, 10_000)).n_candidates == 0
