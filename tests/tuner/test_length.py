"""How long a study is searched where nobody says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from search.results.folds import Folds
from search.results.race_length import RacedTrial
from search.study.history import StudyLength, record_run
from search.tuner.final_race import race_limits, race_seconds
from search.tuner.length import length_of, usual_trials
from search.tuner.options import SearchRequest, Target
from search.tuner.plan import plan_search
from search.tuner.request import check_request
from tests.support.made_studies import MadeTrial, make_study, run_record


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


def _length(request: SearchRequest) -> StudyLength:
    return length_of(request, 1_079, before=None)


@pytest.mark.parametrize(
    ("options", "length"),
    [
        ({}, StudyLength(100, patience=26)),
        ({"timeout_seconds": 60.0}, StudyLength(100, patience=26)),
        ({"n_trials": 7}, StudyLength(7)),
        ({"patience": 5}, StudyLength(100, patience=5)),
        ({"n_trials": 7, "patience": 5}, StudyLength(7, patience=5)),
        ({"objective": "accuracy,size"}, StudyLength(65)),
        ({"target": Target(0.99)}, StudyLength(65)),
    ],
)
def test_a_search_ends_when_nothing_better_comes_unless_it_is_told_when(
    options: dict[str, Any], length: StudyLength
) -> None:
    assert _length(SearchRequest(3_000, 15, **options)) == length


def test_what_was_asked_for_is_not_taken_back_and_a_study_goes_on_by_itself_after_it(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    trials = [MadeTrial(accuracies=(0.9,)) for _ in range(5)]
    study = make_study(url, "digits-3000x1", trials, epochs=1)

    def planned(n_trials: int | None = None) -> StudyLength:
        request = SearchRequest(3_000, 1, n_trials, dataset="digits", storage=url)
        return plan_search(check_request(request)).length

    by_itself = StudyLength(100, patience=40)
    assert planned() == by_itself
    assert planned(7) == StudyLength(7)
    for asked, length in (
        (StudyLength(200), StudyLength(200)),
        (StudyLength(5), by_itself),
        (StudyLength(100, patience=40), by_itself),
    ):
        record_run(study, run_record(asked.n_trials, asked.patience))
        assert planned() == length


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
        race_seconds(race_limits(SearchRequest(8000, 15), 7, Folds(6, 1)), [], 9.0, n_workers=2)
        == 0
    )


@pytest.mark.parametrize(
    ("folds", "trained", "trials", "took"),
    [
        (
            Folds(6, 10_000),
            56.2,
            [(0.973, 2.4), (0.9719, 2.4), (0.97, 5.9), (0.9697, 5.8), (0.9686, 2.6), (0.9676, 2.7)],
            119.7,
        ),
        (Folds(4, 359), 10.0, [(0.974, 1.5), (0.9721, 1.3), (0.9694, 1.0), (0.9554, 1.2)], 22.7),
        (Folds(4, 359), 7.2, [(0.9591, 0.6), (0.9229, 0.5), (0.9109, 0.4), (0.9062, 1.1)], 13.1),
    ],
)
def test_how_long_a_race_takes_is_told_within_a_third(
    folds: Folds, trained: float, trials: list[tuple[float, float]], took: float
) -> None:
    """Races that were held, by two workers: what sets their trials apart is in part luck."""
    limits = race_limits(SearchRequest(8000, 15), 20, folds)
    told = race_seconds(limits, [RacedTrial(*trial) for trial in trials], trained, n_workers=2)
    assert told == pytest.approx(took, rel=1 / 3)


def test_a_search_without_a_race_has_none_to_wait_for() -> None:
    for request in (
        SearchRequest(8000, 15, confirm=False),
        SearchRequest(8000, 15, objective="accuracy,size"),
    ):
        assert race_limits(request, 40, Folds(6, 10_000)).n_candidates == 0
