"""What a search tells its listener."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from optuna.trial import FrozenTrial, TrialState

from search.study.record import TrialRecord
from search.study.summary import accuracy_of
from search.training.epochs import EpochResult


class Outcome(Enum):
    """Why a search ended."""

    REACHED = "the number of trials is reached"
    TIMED_OUT = "the time is over"
    INTERRUPTED = "interrupted"
    NO_BETTER = "no better trial in the last ones"
    EXHAUSTED = "the space has no untried configuration left"


@dataclass(frozen=True, slots=True)
class TrialStarted:
    """A worker has been given a trial."""

    number: int
    worker: int
    parameter_count: int
    n_redraws: int


@dataclass(frozen=True, slots=True)
class TrialEpoch:
    """A trial has finished an epoch."""

    number: int
    worker: int
    result: EpochResult


@dataclass(frozen=True, slots=True)
class TrialEnded:
    """A trial is over.

    Args:
        state: COMPLETE, PRUNED or FAIL; None where a person ended or deleted it.
        value: of a complete trial.
        n_epochs: how many it trained.
        is_duplicate: whether it was refused because its configuration is trained already.
        host: that which ran it, where it is another one.
    """

    number: int
    state: TrialState | None
    parameter_count: int | None = None
    value: float | None = None
    n_epochs: int = 0
    reason: str | None = None
    is_requeued: bool = False
    is_duplicate: bool = False
    host: str | None = None

    @classmethod
    def elsewhere(cls, trial: FrozenTrial) -> TrialEnded:
        """The end of a trial that another search of the study ran."""
        record = TrialRecord.read(trial)
        return cls(
            trial.number,
            trial.state,
            record.parameter_count,
            value=accuracy_of(trial) if trial.state == TrialState.COMPLETE else None,
            n_epochs=len(record.epochs),
            reason=record.reason,
            host="another host" if record.owner is None else record.owner.host,
        )

    @classmethod
    def lost(cls, trial: FrozenTrial) -> TrialEnded:
        """The end of a trial whose host fell silent, and whose configuration is queued again."""
        record = TrialRecord.read(trial)
        return cls(
            trial.number,
            None,
            record.parameter_count,
            n_epochs=len(record.epochs),
            reason="taken over, as its host fell silent",
            is_requeued=True,
            host="another host" if record.owner is None else record.owner.host,
        )

    @property
    def is_last_word(self) -> bool:
        """Whether it says of its configuration that it trains, or that it does not."""
        is_settled = self.state is not None and not self.is_duplicate and not self.is_requeued
        return is_settled and self.host is None


SearchEvent = TrialStarted | TrialEpoch | TrialEnded
