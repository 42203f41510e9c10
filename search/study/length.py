"""Whether a study has been searched for long enough."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

from search.study.history import StudyLength
from search.study.summary import is_trained, tally


@dataclass(slots=True)
class Stagnation:
    """Counts the trained trials since the last progress, in the order they ended.

    Progress is a value above the reference by more than one standard error of the reference,
    `sqrt(p (1 - p) / n_validation)`; its value is then the new reference. One standard error,
    not that of a difference between two independent samples, which is 1.4 times as much: both
    values are shares of the same images, so that most of what is luck in them is the same luck.
    And that of `n_validation` images, although a value is a mean of several epochs: they saw the
    same images, which makes the mean steadier, not the sample larger. The reference stays where it
    is while smaller gains are made, so that gains which add up to more than noise are progress.

    Args:
        n_validation: images that each value is the accuracy on.
        reference: the value that was progress last; None before there was one.
        n_without: trained trials since then.
    """

    n_validation: int
    reference: float | None = None
    n_without: int = 0

    @classmethod
    def of(cls, trials: Iterable[FrozenTrial], n_validation: int) -> Stagnation:
        """That of these trials; what was not trained is left out."""
        stagnation = cls(n_validation)
        for trial in sorted(filter(is_trained, trials), key=_ended):
            stagnation.add(trial.values[0] if trial.state == TrialState.COMPLETE else None)
        return stagnation

    def add(self, value: float | None) -> None:
        """Counts a trained trial; None for one that was stopped."""
        if value is not None and self._is_progress(value):
            self.reference, self.n_without = value, 0
        else:
            self.n_without += 1

    def _is_progress(self, value: float) -> bool:
        reference = self.reference
        if reference is None:
            return True
        return value > reference + math.sqrt(reference * (1 - reference) / self.n_validation)


def _ended(trial: FrozenTrial) -> tuple[float, int]:
    assert trial.datetime_complete is not None
    return trial.datetime_complete.timestamp(), trial.number


def is_stagnant(length: StudyLength, trials: Iterable[FrozenTrial], n_validation: int) -> bool:
    """Whether so many trained trials, one after the other, brought nothing better, as it waits for.

    Args:
        n_validation: images that each value is the accuracy on.
    """
    if length.patience is None:
        return False
    return Stagnation.of(trials, n_validation).n_without >= length.patience


def is_reached(length: StudyLength, trials: Sequence[FrozenTrial], n_validation: int) -> bool:
    """Whether a study with these trials has been searched for as long as that.

    Args:
        n_validation: as `is_stagnant` takes it.
    """
    is_full = tally(trials).n_trained >= length.n_trials
    return is_full or is_stagnant(length, trials, n_validation)
