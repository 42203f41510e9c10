"""What a search tells its listener, also as values that JSON knows: `docs/events.md` lists them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

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


def event_values(event: SearchEvent) -> dict[str, Any]:
    """An event as values, by the names that programs read."""
    match event:
        case TrialStarted():
            return {
                "event": "trial",
                "trial": event.number,
                "worker": event.worker,
                "parameter_count": event.parameter_count,
                "redraws": event.n_redraws,
            }
        case TrialEpoch(result=result):
            return {
                "event": "epoch",
                "trial": event.number,
                "worker": event.worker,
                "epoch": result.epoch,
                "training_loss": result.training_loss,
                "training_accuracy": result.training_accuracy,
                "validation_loss": result.loss,
                "validation_accuracy": result.accuracy,
                "learning_rate": result.learning_rate,
                "seconds": result.seconds,
            }
        case TrialEnded():
            return {
                "event": "trial_end",
                "trial": event.number,
                "state": None if event.state is None else event.state.name,
                "value": event.value,
                "parameter_count": event.parameter_count,
                "epochs": event.n_epochs,
                "reason": event.reason,
                "queued_again": event.is_requeued,
                "host": event.host,
            }


def read_event(values: Mapping[str, Any]) -> SearchEvent | None:
    """The event that `event_values` made values of; None of another kind."""
    match values["event"]:
        case "trial":
            number, worker = values["trial"], values["worker"]
            return TrialStarted(number, worker, values["parameter_count"], values["redraws"])
        case "epoch":
            numbers = {key: math.nan if values[key] is None else values[key] for key in _NUMBERS}
            result = EpochResult(
                epoch=values["epoch"],
                training_loss=numbers["training_loss"],
                training_accuracy=numbers["training_accuracy"],
                learning_rate=numbers["learning_rate"],
                loss=numbers["validation_loss"],
                accuracy=numbers["validation_accuracy"],
                seconds=numbers["seconds"],
            )
            return TrialEpoch(values["trial"], values["worker"], result)
        case "trial_end":
            state = values["state"]
            return TrialEnded(
                values["trial"],
                None if state is None else TrialState[state],
                values["parameter_count"],
                value=values["value"],
                n_epochs=values["epochs"],
                reason=values["reason"],
                is_requeued=values["queued_again"],
                host=values["host"],
            )
    return None


# Of an epoch, what is null where it is not finite.
_NUMBERS = (
    *("training_loss", "training_accuracy", "learning_rate"),
    *("validation_loss", "validation_accuracy", "seconds"),
)
