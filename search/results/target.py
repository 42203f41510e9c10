"""The smallest network that reaches a target: searches under lower and lower caps.

Each step is an ordinary search with a study of its own. Its best trials race over fresh seeds;
where one reaches the target at the confidence asked, the next step's cap is a share of that
network's size, and it starts from the trials of this one. The first cap under which none does ends
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from search.results.confirm import ConfirmationRun

TARGET_TRIALS, TARGET_SEEDS = 3, 5
_NEXT_SHARE = 0.85  # of the network's parameters


class Verdict(Enum):
    """What the race says of a target."""

    REACHED = "reached"
    MISSED = "out of reach"
    OPEN = "not certain"


@dataclass(frozen=True, slots=True)
class Step:
    """One cap of a search for a target.

    Args:
        trial: the smallest of those that reached the target, or else the race's first.
        mean: its accuracy over fresh seeds.
        least: what its true mean is not below, at the confidence asked; None where the runs do
            not tell.
    """

    study: str
    cap: int
    trial: int
    parameter_count: int
    mean: float
    least: float | None
    verdict: Verdict

    @property
    def next_cap(self) -> int:
        """The next step's budget."""
        return int(_NEXT_SHARE * self.parameter_count)


def judge(run: ConfirmationRun, *, cap: int, target: float, confidence: float) -> Step | None:
    """What a finished race says of a target; None where no run came to an end.

    Several candidates try for the target at once, so each must pass at a share of the error
    (Bonferroni's correction), or the luckiest of three would pass three times as often.

    Args:
        target: an accuracy as a share from 0 to 1.
        confidence: with which one of the means is at least the target, where the verdict is that
            it is reached; for one cap.
    """
    race, sizes = run.race, run.parameter_counts
    confidence = 1 - (1 - confidence) / len(race.candidates)
    # One that is worse than the race's first may reach the target all the same, and be smaller.
    standings = [row for row in race.standings() if row.candidate not in race.disqualified]
    if not standings:
        return None
    verdicts = {
        standing.candidate: _verdict(race.bounds(standing.candidate, confidence), target=target)
        for standing in standings
    }
    reached = [row for row in standings if verdicts[row.candidate] is Verdict.REACHED]
    chosen = min(reached, key=lambda row: sizes[row.candidate], default=standings[0])
    bounds = race.bounds(chosen.candidate, confidence)
    return Step(
        study=run.study.study_name,
        cap=cap,
        trial=chosen.candidate,
        parameter_count=sizes[chosen.candidate],
        mean=chosen.mean,
        least=None if bounds is None else bounds[0],
        verdict=verdicts[chosen.candidate],
    )


def _verdict(bounds: tuple[float, float] | None, *, target: float) -> Verdict:
    if bounds is None or bounds[0] < target <= bounds[1]:
        return Verdict.OPEN
    return Verdict.REACHED if bounds[0] >= target else Verdict.MISSED


def smallest(steps: Sequence[Step]) -> Step | None:
    """The step with the smallest network that reached the target; None where none did."""
    reached = [step for step in steps if step.verdict is Verdict.REACHED]
    return min(reached, key=lambda step: step.parameter_count, default=None)
