"""Which of a few candidates is best, told from as few noisy runs of each as it takes. Pure.

Candidates are run seed by seed. One whose chance of being the best is gone gets no more seeds, so
that the runs go to those that are still in question (Maron and Moore, "Hoeffding Races", 1993).

Both the interval of the winner and the verdict on a loser allow for the race itself. A winner is
the highest of k, so its mean is rather too high than too low: the lower bound of its interval is
Bonferroni's for the largest of k means, the upper one that of a single mean; a loser's the other
way round. A loser is compared with the leader after each round of seeds, and who leads the data
say: so the chance that it must fall below is shared among the rounds, on both sides of no
difference. `scripts/experiments/race_coverage.py` simulates how often that holds.

What a run scatters by is taken to be the same for all candidates and is estimated from all of them
together (the pooled variance), since a few runs of one say little. A test by ranks, as Optuna's
Wilcoxon pruner has it, cannot tell two candidates apart at this number of runs: with five pairs
its smallest two-sided p-value is 1/16.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scipy.special import ndtri, stdtr, stdtrit

DROPPED_BY_CHANCE = 0.05  # how often a candidate may lose its place that is as good as the leader
CONFIDENCE = 0.95  # of the intervals
# How often the side of an interval may miss to which having won, or lost, has moved the mean. The
# other side misses less often than it would otherwise, so that both may add up to over 5 %.
_MOVED_SIDE = 0.04
_ROUNDING = 1e-12  # a scatter below it is none


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % confidence interval of a mean, by Student's t; None for fewer than two values."""
    n = len(values)
    if n < 2:
        return None
    quantile = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2))
    half = quantile * statistics.stdev(values) / math.sqrt(n)
    mean = statistics.fmean(values)
    return mean - half, mean + half


def share_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """`mean_interval` of values from 0 to 1, outside of which no mean of theirs can lie."""
    interval = mean_interval(values)
    return None if interval is None else (max(0.0, interval[0]), min(1.0, interval[1]))


@dataclass(frozen=True, slots=True)
class Standing:
    """How one candidate does.

    Args:
        values: one a seed, in order of the seeds.
        low, high: the 95 % confidence interval of the mean, for one that has won or lost a race;
            None where nothing tells the scatter.
        is_out: whether its chance of being the best is gone.
    """

    candidate: int
    values: tuple[float, ...]
    low: float | None
    high: float | None
    is_out: bool

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)


@dataclass
class SeedRace:
    """Values of each candidate by seed; a value is a share from 0 to 1.

    Args:
        candidates: the most promising first.
        seeds: those that each candidate may be run with, in order.

    Attributes:
        disqualified: candidates one of whose runs came to nothing.
    """

    candidates: Sequence[int]
    seeds: Sequence[int]
    _values: dict[int, dict[int, float]] = field(init=False)
    disqualified: set[int] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        self._values = {candidate: {} for candidate in self.candidates}

    def add(self, candidate: int, seed: int, value: float) -> None:
        self._values[candidate][seed] = value

    def disqualify(self, candidate: int) -> None:
        """Puts a candidate out, one of whose runs came to nothing."""
        self.disqualified.add(candidate)

    def next(self, taken: Collection[tuple[int, int]] = ()) -> tuple[int, int] | None:
        """The candidate and seed to run next, not one of `taken`; None where there is none.

        That is the one with the fewest runs among those still in the race.
        """
        open_seeds = {
            candidate: [
                seed
                for seed in self.seeds
                if seed not in self._values[candidate] and (candidate, seed) not in taken
            ]
            for candidate in self.candidates
            if not self.is_out(candidate)
        }
        candidate = max(open_seeds, key=lambda candidate: len(open_seeds[candidate]), default=None)
        if candidate is None or not open_seeds[candidate]:
            return None
        return candidate, open_seeds[candidate][0]

    def is_out(self, candidate: int) -> bool:
        """Whether its chance of being better than the leader is gone.

        The chance is that of Student's t for the difference of two means of equal variance.
        """
        if candidate in self.disqualified:
            return True
        leader = self._leader()
        if leader is None or candidate == leader or not self._values[candidate]:
            return False
        std, freedom = self._scatter()
        if std is None or std < _ROUNDING:
            return False
        n, n_leader = len(self._values[candidate]), len(self._values[leader])
        lead = self._mean(leader) - self._mean(candidate)
        chance = float(stdtr(freedom, -lead / (std * math.sqrt(1 / n + 1 / n_leader))))
        n_looks = max(1, len(self.seeds) - 1)  # one run of each tells nothing
        return chance < DROPPED_BY_CHANCE / 2 / n_looks

    def bounds(self, candidate: int, confidence: float) -> tuple[float, float] | None:
        """The least and the most that its mean can be, each one-sided; None where nothing tells.

        Args:
            confidence: that the mean is not below the first; and that it is not above the second.
        """
        low, high = self._bound(candidate, 1 - confidence), self._bound(candidate, confidence)
        return None if low is None or high is None else (low, high)

    def luck_of_winning(self) -> float | None:
        """By how much the winner's mean is too high on average, if all that were run are equal.

        That is the expectation of the largest of so many standard normal numbers (Blom,
        "Statistical Estimates and Transformed Beta-Variables", 1958) in standard errors of the
        mean; it is less where they differ. None where nothing tells the scatter.
        """
        leader = self._leader()
        std, _ = self._scatter()
        if leader is None or std is None:
            return None
        n_run = sum(map(bool, self._values.values()))
        expected = float(ndtri((n_run - 0.375) / (n_run + 0.25)))
        return expected * std / math.sqrt(len(self._values[leader]))

    def standings(self) -> list[Standing]:
        """Candidates that were run at least once: those in the race first, by their means."""
        leader = self._leader()
        plain = (1 + CONFIDENCE) / 2
        n_run = sum(map(bool, self._values.values()))
        moved = max(plain, 1 - _MOVED_SIDE / max(1, n_run))
        standings = []
        for candidate in self.candidates:
            values = tuple(value for _, value in sorted(self._values[candidate].items()))
            if not values:
                continue
            below, above = (moved, plain) if candidate == leader else (plain, moved)
            low, high = self._bound(candidate, 1 - below), self._bound(candidate, above)
            if low is not None and high is not None:
                low, high = max(0.0, low), min(1.0, high)
            standings.append(Standing(candidate, values, low, high, self.is_out(candidate)))
        return sorted(standings, key=lambda standing: (standing.is_out, -standing.mean))

    def _bound(self, candidate: int, probability: float) -> float | None:
        """What the mean of a candidate is below with that probability; None where nothing tells."""
        std, freedom = self._scatter()
        values = self._values[candidate]
        if std is None or not values:
            return None
        margin = float(stdtrit(freedom, probability)) * std / math.sqrt(len(values))
        return self._mean(candidate) + margin

    def _leader(self) -> int | None:
        run = [
            candidate
            for candidate in self.candidates
            if self._values[candidate] and candidate not in self.disqualified
        ]
        return max(run, key=self._mean, default=None)

    def _mean(self, candidate: int) -> float:
        return statistics.fmean(self._values[candidate].values())

    def _scatter(self) -> tuple[float | None, int]:
        """Pooled standard deviation of a run and its degrees of freedom; None without any."""
        samples = [list(values.values()) for values in self._values.values() if values]
        freedom = sum(len(values) - 1 for values in samples)
        if freedom == 0:
            return None, 0
        means = map(statistics.fmean, samples)
        squares = sum(
            (value - mean) ** 2
            for values, mean in zip(samples, means, strict=True)
            for value in values
        )
        return math.sqrt(squares / freedom), freedom


def stored_race(confirmation: Mapping[str, Any]) -> SeedRace:
    """The race whose outcome a study keeps, as `Confirmation.to_attribute` has it."""
    candidates = {row["trial"]: row for row in confirmation["candidates"]}
    n_seeds = max(len(row["values"]) for row in candidates.values())
    race = SeedRace(list(candidates), range(n_seeds))
    for number, row in candidates.items():
        for seed, value in enumerate(row["values"]):
            race.add(number, seed, value)
        if row["is_out"]:
            race.disqualify(number)
    return race
