"""Which of a few candidates is best, told from as few noisy runs of each as it takes. Pure.

Candidates are run in rounds, run by run with the same part of the data and the same seed
(`search.results.folds`). One whose chance of being the best is gone gets no more runs, so
that they go to those that are still in question (Maron and Moore, "Hoeffding Races", 1993).

**Two scatters.** Two candidates are compared by the differences of the runs that both have, in
which the difficulty of a part does not show: they scatter as the residuals of an additive model
do, a candidate's accuracy plus a run's difficulty, of all candidates together. How good one is on
new images is another question, in which a part's images count. There the variance of a run is the
pooled variance of each candidate's runs, but never less than p (1 - p) / n, by which the share of n
images that a network gets right scatters for the choice of the images alone. That is known; and
the difficulty of a part, of which many candidates show no more than one, is within it. Runs of one
part share its images, which count once. That runs share training images is no scatter of its own:
the interval is for these training images, over seeds and new images to be told apart (Bayle,
Bayle, Janson and Mackey, "Cross-validation Confidence Intervals for Test Error", 2020);
`scripts/experiments/fold_coverage.py` checks it on real ones.

**The race itself.** Both the interval of the winner and the verdict on a loser allow for it. A
winner is the highest of k, so its mean is rather too high than too low: the lower bound of its
interval is Bonferroni's for the largest of k means, the upper one that of a single mean; a loser's
the other way round. A loser is compared with the leader after each round, and who leads the data
say: so the chance that it must fall below is shared among the rounds, on both sides of no
difference. `scripts/experiments/race_coverage.py` simulates how often that holds.

A scatter is taken to be the same for all candidates, since a few runs of one say little. A test by
ranks, as Optuna's Wilcoxon pruner has it, cannot tell two candidates apart at this number of runs:
with five pairs its smallest two-sided p-value is 1/16.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import ndtri, stdtr, stdtrit

from search.results.folds import Run, mean_over_parts, weights

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


def moved_confidence(n_run: int) -> float:
    """That of the bound on the side to which having won, or lost, has moved a mean, one-sided.

    Args:
        n_run: how many candidates were run.
    """
    return max((1 + CONFIDENCE) / 2, 1 - _MOVED_SIDE / max(1, n_run))


@dataclass(frozen=True, slots=True)
class Standing:
    """How one candidate does.

    Args:
        values: one a run, in the order of their seeds.
        runs: which these are.
        low, high: the 95 % confidence interval of the mean, for one that has won or lost a race;
            None where nothing tells the scatter.
        is_out: whether its chance of being the best is gone.
    """

    candidate: int
    values: tuple[float, ...]
    runs: tuple[Run, ...]
    low: float | None
    high: float | None
    is_out: bool

    @property
    def mean(self) -> float:
        return mean_over_parts(self.values, [run.part for run in self.runs])

    @property
    def n_parts(self) -> int:
        """How many parts of the data validated it."""
        return len({run.part for run in self.runs})


@dataclass(frozen=True, slots=True)
class _Fit:
    """What an additive model makes of the runs: a candidate's accuracy plus a run's difficulty.

    Args:
        ranked: the candidates that were run, the best first.
        std: of what the model leaves over, in one run; None where it leaves nothing over.
        freedom: the degrees of freedom of that.
    """

    ranked: Sequence[int]
    std: float | None
    freedom: int


@dataclass
class SeedRace:
    """Values of each candidate by run; a value is a share from 0 to 1.

    Args:
        candidates: the most promising first.
        runs: those that each candidate may have, in order; of others, what is known counts.
        n_images: how many images validate a run, as `Folds` has it; None where that is not known,
            and then the mean is that of these images alone.

    Attributes:
        disqualified: candidates one of whose runs came to nothing.
    """

    candidates: Sequence[int]
    runs: Sequence[Run]
    n_images: int | None = None
    _values: dict[int, dict[Run, float]] = field(init=False)
    disqualified: set[int] = field(init=False, default_factory=set)
    _fitted: _Fit | None = field(init=False, default=None)
    _judged: dict[int, bool] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._values = {candidate: {} for candidate in self.candidates}

    def add(self, candidate: int, run: Run, value: float) -> None:
        self._values[candidate][run] = value
        self._fitted = None
        self._judged.clear()

    def disqualify(self, candidate: int) -> None:
        """Puts a candidate out, one of whose runs came to nothing."""
        self.disqualified.add(candidate)
        self._judged.clear()

    def next(self, taken: Collection[tuple[int, Run]] = ()) -> tuple[int, Run] | None:
        """The candidate and its run to come next, not one of `taken`; None where there is none.

        That is the one with the fewest runs among those still in the race.
        """
        open_runs = {
            candidate: [
                run
                for run in self.runs
                if run not in self._values[candidate] and (candidate, run) not in taken
            ]
            for candidate in self.candidates
            if not self.is_out(candidate)
        }
        candidate = max(open_runs, key=lambda candidate: len(open_runs[candidate]), default=None)
        if candidate is None or not open_runs[candidate]:
            return None
        return candidate, open_runs[candidate][0]

    def n_runs(self, candidate: int) -> int:
        """How many values of it are known."""
        return len(self._values[candidate])

    def is_out(self, candidate: int) -> bool:
        """Whether its chance of being better than the leader is gone.

        The chance is that of Student's t for the mean difference of the runs that both have.
        """
        if candidate not in self._judged:
            self._judged[candidate] = self._is_hopeless(candidate)
        return self._judged[candidate]

    def _is_hopeless(self, candidate: int) -> bool:
        if candidate in self.disqualified:
            return True
        leader = self._leader()
        if leader is None or candidate == leader:
            return False
        ours, theirs = self._values[candidate], self._values[leader]
        shared = weights_by_run(run for run in ours if run in theirs)
        fit = self._fit()
        if not shared or fit.std is None or fit.std < _ROUNDING:
            return False
        lead = sum(weight * (theirs[run] - ours[run]) for run, weight in shared.items())
        error = fit.std * math.sqrt(2 * sum(weight**2 for weight in shared.values()))
        n_looks = max(1, len(self.runs))
        return float(stdtr(fit.freedom, -lead / error)) < DROPPED_BY_CHANCE / 2 / n_looks

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
        mean, without what all candidates share; it is less where they differ. What the images of a
        part are for one candidate, its runs on that part share, and do not tell: it is taken for
        as much as the choice of images can bring. None where nothing tells the scatter.
        """
        leader, fit = self._leader(), self._fit()
        if leader is None:
            return None
        n_run = sum(map(bool, self._values.values()))
        std = self._scatter()[0] if n_run == 1 else fit.std
        if std is None:
            return None
        expected = float(ndtri((n_run - 0.375) / (n_run + 0.25)))
        values = self._values[leader]
        counted = weights_by_run(values)
        n_parts = len({run.part for run in values})
        mean = sum(weight * values[run] for run, weight in counted.items())
        squares = sum(weight**2 for weight in counted.values())
        shared = self._variance_of_images(mean, n_parts) * (1 / n_parts - squares)
        variance = (std / _share_of_scatter(fit.freedom)) ** 2 * squares + max(0.0, shared)
        return expected * math.sqrt(variance)

    def standings(self) -> list[Standing]:
        """Candidates that were run at least once: those in the race first, the best of them first.

        How good they are is told by the runs that they have in common.
        """
        leader = self._leader()
        plain = (1 + CONFIDENCE) / 2
        moved = moved_confidence(sum(map(bool, self._values.values())))
        standings = []
        for candidate in self._fit().ranked:
            runs = tuple(sorted(self._values[candidate], key=lambda run: (run.seed, run.part)))
            values = tuple(self._values[candidate][run] for run in runs)
            below, above = (moved, plain) if candidate == leader else (plain, moved)
            low, high = self._bound(candidate, 1 - below), self._bound(candidate, above)
            if low is not None and high is not None:
                low, high = max(0.0, low), min(1.0, high)
            standings.append(Standing(candidate, values, runs, low, high, self.is_out(candidate)))
        return sorted(standings, key=lambda standing: standing.is_out)

    def _bound(self, candidate: int, probability: float) -> float | None:
        """What the mean of a candidate is below with that probability; None where nothing tells."""
        std, n_free = self._scatter()
        values = self._values[candidate]
        if std is None or not values:
            return None
        counted = weights_by_run(values)
        n_parts = len({run.part for run in values})
        mean = sum(weight * values[run] for run, weight in counted.items())
        squares = sum(weight**2 for weight in counted.values())
        of_images = self._variance_of_images(mean, n_parts)
        excess = max(0.0, std**2 - of_images) * squares
        variance = of_images / n_parts + excess
        estimated = 1.0 if variance == 0 else excess / variance
        # Satterthwaite's for a variance of which a part is known (1946), but no more than twice as
        # many as the runs have: that seeds bring no excess, a few runs may show by chance.
        freedom = n_free / max(0.5, estimated**2)
        return mean + float(stdtrit(freedom, probability)) * math.sqrt(variance)

    def _variance_of_images(self, mean: float, n_parts: int) -> float:
        """By which a run's accuracy scatters for the choice of the images that validate it.

        A few images that are all answered right do not make it none: the share has two successes
        and two failures more (Agresti and Coull, 1998).
        """
        if self.n_images is None:
            return 0.0
        n = n_parts * self.n_images
        share = (n * mean + 2) / (n + 4)
        return share * (1 - share) / self.n_images

    def _leader(self) -> int | None:
        ranked = (each for each in self._fit().ranked if each not in self.disqualified)
        return next(ranked, None)

    def _fit(self) -> _Fit:
        """By least squares; the runs' difficulties are taken out first."""
        if self._fitted is None:
            ran = [candidate for candidate in self.candidates if self._values[candidate]]
            index = {
                run: i for i, run in enumerate({r for each in ran for r in self._values[each]})
            }
            found = np.zeros((2, len(ran), len(index)))  # values, and whether they are there
            for row, candidate in enumerate(ran):
                for run, value in self._values[candidate].items():
                    found[:, row, index[run]] = value, 1
            values, is_there = found
            n_there = is_there.sum(axis=0)
            apart = values - is_there * (values.sum(axis=0) / n_there)
            matrix = np.diag(is_there.sum(axis=1)) - (is_there / n_there) @ is_there.T
            sums = apart.sum(axis=1)
            effects, _, rank, _ = np.linalg.lstsq(matrix, sums, rcond=_ROUNDING)
            freedom = int(is_there.sum()) - len(index) - int(rank)
            squares = max(0.0, float((apart**2).sum() - sums @ effects))
            std = math.sqrt(squares / freedom) if freedom > 0 else None
            order = sorted(range(len(ran)), key=lambda row: -effects[row])
            self._fitted = _Fit([ran[row] for row in order], std, freedom)
        return self._fitted

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


def _share_of_scatter(freedom: int) -> float:
    """What a sample's standard deviation is of the true one on average: c₄ of control charts."""
    if freedom < 1:
        return 1.0
    log_ratio = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
    return math.sqrt(2 / freedom) * math.exp(log_ratio)


def weights_by_run(runs: Iterable[Run]) -> dict[Run, float]:
    """What each run counts for in a mean of them, as `weights` says."""
    known = list(runs)
    return dict(zip(known, weights([run.part for run in known]), strict=True))


def stored_race(confirmation: Mapping[str, Any]) -> SeedRace:
    """The race whose outcome a study keeps, as `Confirmation.to_attribute` has it.

    Versions before there were parts kept the values alone.
    """
    candidates = {row["trial"]: row for row in confirmation["candidates"]}
    race = SeedRace(list(candidates), (), confirmation.get("n_images"))
    for number, row in candidates.items():
        n = len(row["values"])
        pairs = zip(row.get("parts", [0] * n), row.get("seeds", range(n)), strict=True)
        for (part, seed), value in zip(pairs, row["values"], strict=True):
            race.add(number, Run(part, seed), value)
        if row["is_out"]:
            race.disqualify(number)
    return race
