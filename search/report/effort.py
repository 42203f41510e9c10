"""What the trials of a study cost, and what stopping them early saved."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

from search.study.record import TrialRecord
from search.study.summary import is_diverged, is_trained, training_seconds


@dataclass(frozen=True, slots=True)
class Effort:
    """What was trained, and what early stopping left out.

    What a stopped trial would have taken is counted at the pace of its own epochs. A trial whose
    loss was not finite saves nothing: it could not have gone on.
    """

    epochs_trained: int
    epochs_saved: int
    seconds_trained: float
    seconds_saved: float
    n_stopped: int
    n_diverged: int

    @property
    def saved_share(self) -> float:
        """Of the seconds that training every trial to its end would have taken."""
        whole = self.seconds_trained + self.seconds_saved
        return self.seconds_saved / whole if whole else 0.0


def effort(trials: Iterable[FrozenTrial], epochs: int) -> Effort:
    """What the trials of a study cost, of `epochs` epochs each, and what stopping saved."""
    epochs_trained = epochs_saved = n_stopped = n_diverged = 0
    seconds_trained = seconds_saved = 0.0
    for trial in filter(is_trained, trials):
        n, seconds = len(TrialRecord.read(trial).epochs), training_seconds(trial)
        epochs_trained += n
        seconds_trained += seconds
        if trial.state != TrialState.PRUNED:
            continue
        if is_diverged(trial):
            n_diverged += 1
            continue
        n_stopped += 1
        epochs_saved += epochs - n
        seconds_saved += (epochs - n) * seconds / n
    return Effort(
        epochs_trained=epochs_trained,
        epochs_saved=epochs_saved,
        seconds_trained=seconds_trained,
        seconds_saved=seconds_saved,
        n_stopped=n_stopped,
        n_diverged=n_diverged,
    )
