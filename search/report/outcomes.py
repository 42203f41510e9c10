"""What a race over fresh seeds and a retraining told of a study, read from what they stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optuna.study import Study
from optuna.trial import FrozenTrial

from search.results.confirmed import confirmation_of
from search.results.race import Standing, share_interval, stored_race
from search.study.findings import Findings
from search.study.summary import confirmed_number


@dataclass(frozen=True, slots=True)
class RaceResult:
    """What a study's race over fresh seeds told; accuracies are shares from 0 to 1.

    Args:
        standings: the winner first, each with its 95 % interval.
        search_values: what each candidate reached in the search, by its number.
        search_best: the search's own best trial.
        luck: by how much its value was above its mean over fresh seeds; None where that is not
            known.
        is_current: whether the search has found no better trial since.
        luck_of_winning: what may be too much of the winner's mean; None where nothing tells.
    """

    standings: tuple[Standing, ...]
    search_values: dict[int, float]
    search_best: int
    luck: float | None
    is_current: bool
    luck_of_winning: float | None

    @property
    def winner(self) -> Standing:
        return self.standings[0]

    @property
    def n_seeds(self) -> int:
        """The most fresh seeds that a candidate was given."""
        return max(len(standing.values) for standing in self.standings)


@dataclass(frozen=True, slots=True)
class TestResult:
    """What retraining found on the test images, for the trial that a study stands for.

    Args:
        values: the mean accuracy of the last three epochs, one a seed, as a share from 0 to 1.
        interval: of their mean, at 95 %; None for one seed.
    """

    mean: float
    interval: tuple[float, float] | None
    values: tuple[float, ...]


def race_result(study: Study, trials: Sequence[FrozenTrial]) -> RaceResult | None:
    """The outcome of a study's race over fresh seeds; None where there was none."""
    stored = confirmation_of(study)
    if stored is None:
        return None
    candidates = {row["trial"]: row for row in stored["candidates"]}
    race = stored_race(stored)
    return RaceResult(
        standings=tuple(sorted(race.standings(), key=lambda row: row.candidate != stored["trial"])),
        search_values={number: row["search_value"] for number, row in candidates.items()},
        search_best=stored["search_best_trial"],
        luck=stored["luck"],
        is_current=confirmed_number(study, trials) is not None,
        luck_of_winning=stored["luck_of_winning"],
    )


def test_result(study: Study, number: int | None) -> TestResult | None:
    """The last retraining of a trial; None where there was none."""
    stored = None if number is None else Findings.read(study).retraining(number)
    if stored is None:
        return None
    values = tuple(float(run["last_three_mean"]) for run in stored["runs"])
    return TestResult(stored["test_accuracy"]["mean"], share_interval(values), values)
