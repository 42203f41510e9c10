"""Which part of a data set validates which run, and what each run counts for. Pure.

A recipe's runs go through the parts, each with a seed of its own; the part that chose the recipe in
its search comes last. Run for run, all recipes have the same parts and seeds, so that they are
compared in pairs.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from search.study.settings import StudySettings
from search.training.metrics import Metric, sample_size

if TYPE_CHECKING:  # it imports torch, which reading a study does not need
    from search.data.dataset import DatasetInfo


class Run(NamedTuple):
    """One training run of a recipe: the part that validates, and the seed."""

    part: int
    seed: int


@dataclass(frozen=True, slots=True)
class Folds:
    """The parts of a data set.

    Args:
        n_parts: how many there are.
        n_images: how many images each has, as far as their number decides how much a metric
            scatters, as `sample_size` says.
    """

    n_parts: int
    n_images: int

    @classmethod
    def of(cls, info: DatasetInfo, metric: Metric) -> Folds:
        return cls(info.n_parts, sample_size(metric, info.class_counts))

    @classmethod
    def known(cls, settings: StudySettings) -> Folds | None:
        """Those of a built-in data set, whose classes are even; None where the images decide."""
        split = settings.known_split
        if split is None or settings.split is not None:
            return None
        return cls(split.n_parts, split.n_validation)

    def runs(self, n: int, *, first_seed: int) -> list[Run]:
        """The first `n` runs of each recipe."""
        return [Run((i + 1) % self.n_parts, first_seed + i) for i in range(n)]


def weights(parts: Sequence[int]) -> list[float]:
    """What each run counts for in a mean, by the part that validated it; they add up to 1.

    Each part counts the same, however many runs it validated: its images say no more than once what
    they have to say, and those that chose a recipe do not outweigh the others.
    """
    n_runs = Counter(parts)
    return [1 / (len(n_runs) * n_runs[part]) for part in parts]


def means_of_parts(values: Sequence[float], parts: Sequence[int]) -> list[float]:
    """The mean of each part's runs, by one value a run and its part."""
    of_part: dict[int, list[float]] = {}
    for part, value in zip(parts, values, strict=True):
        of_part.setdefault(part, []).append(value)
    return [statistics.fmean(each) for each in of_part.values()]


def mean_over_parts(values: Sequence[float], parts: Sequence[int]) -> float:
    """The mean of the parts' means; of one run a part, the mean of the runs."""
    return statistics.fmean(means_of_parts(values, parts))
