"""When a study has stopped improving."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

from search.study.summary import is_trained


@dataclass(frozen=True, slots=True)
class Patience:
    """How many trained trials without progress end a study.

    Progress is a value above the reference by more than one standard error of the reference,
    `sqrt(p (1 - p) / n_validation)`; its value is then the new reference. One standard error,
    not that of a difference between two independent samples, which is 1.4 times as much: both
    values are shares of the same images, so that most of what is luck in them is the same luck.
    And that of `n_validation` images, although a value is a mean of several epochs: they saw the
    same images, which makes the mean steadier, not the sample larger. The reference stays where it
    is while smaller gains are made, so that gains which add up to more than noise are progress.

    Args:
        n_trials: so many trained trials, complete or pruned, one after the other.
        n_validation: images that each value is the accuracy on.
    """

    n_trials: int
    n_validation: int

    def n_without_progress(self, trials: Iterable[FrozenTrial]) -> int:
        """How many trained trials have ended since the last progress, in the order they ended."""
        trained = [trial for trial in trials if is_trained(trial)]
        reference: float | None = None
        n_without = 0
        for trial in sorted(trained, key=_ended):
            value = trial.values[0] if trial.state == TrialState.COMPLETE else None
            if value is not None and self._is_progress(value, reference):
                reference, n_without = value, 0
            else:
                n_without += 1
        return n_without

    def is_over(self, trials: Iterable[FrozenTrial]) -> bool:
        """Whether a study with these trials is to end."""
        return self.n_without_progress(trials) >= self.n_trials

    def _is_progress(self, value: float, reference: float | None) -> bool:
        if reference is None:
            return True
        return value > reference + math.sqrt(reference * (1 - reference) / self.n_validation)


def _ended(trial: FrozenTrial) -> tuple[float, int]:
    assert trial.datetime_complete is not None
    return trial.datetime_complete.timestamp(), trial.number
