"""How far a search is, and how it ended, by the events that `search run --json` prints."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from search.service.jobs import JobProgress

START = "start"  # the event that a server writes before those of a search
_LONGEST_READ = 1 << 20  # bytes at a time


@dataclass(frozen=True, slots=True)
class JobEnd:
    """How the process of a job ended.

    Args:
        exit_code: None where it was killed, or nobody could know.
        reason: in words; None where there is nothing to say.
        is_temporary: whether its database was away: it may go well when it is started again.
    """

    exit_code: int | None
    reason: str | None
    is_temporary: bool = False

    @property
    def is_refusal(self) -> bool:
        """Whether the search ended by itself with an error, as it would again."""
        return self.exit_code not in (None, 0, 130) and not self.is_temporary


class EventReader:
    """Reads what a search appends to a file of events.

    Attributes:
        progress: how far the search that was started last is.
        study: the name of its study; None while that is not known.
        has_trained: whether it trained a trial since it was started.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._rest = b""
        self._attempt = 0
        self._told: JobEnd | None = None
        self.progress = JobProgress()
        self.study: str | None = None
        self.has_trained = False

    def read(self) -> bool:
        """Reads what is new; returns whether anything changed that is worth telling."""
        before = (self.progress, self.study)
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self._offset)
            while block := file.read(_LONGEST_READ):
                self._offset += len(block)
                *lines, self._rest = (self._rest + block).split(b"\n")
                for line in lines:
                    with suppress(ValueError):  # the half of a line, of one that was killed
                        event = json.loads(line)
                        if isinstance(event, dict):
                            self._take(event)
        return (self.progress, self.study) != before

    def end(self, status: int | None, *, attempt: int) -> JobEnd:
        """How the search ended, once its process has.

        Args:
            status: its exit code, or minus the signal that killed it; None where nobody knows.
            attempt: the start of the job that it was.
        """
        self.read()
        if self._attempt != attempt:  # the server died before it could start it
            return JobEnd(None, "it was not started")
        if self._told is not None:
            return self._told
        if status is None:
            return JobEnd(None, "its process ended without a word")
        if status < 0:
            return JobEnd(None, f"its process was killed by {_signal_name(-status)}")
        return JobEnd(status, None if status in (0, 130) else f"it ended with exit code {status}")

    def _take(self, event: Mapping[str, Any]) -> None:
        match event:
            case {"event": "start", "attempt": int(attempt)}:
                self._attempt, self._told, self.has_trained = attempt, None, False
                self.progress = replace(self.progress, n_trials=None, is_racing=False)
            case {"event": "search", "study": str(study), "trials": int(n), "trained": int(done)}:
                is_same = study == self.study
                before = self.progress if is_same else JobProgress()
                self.study = study
                self.progress = replace(before, n_trials=n, n_trained=done, is_racing=False)
            case {"event": "trial_end"}:
                self._take_trial(event)
            case {"event": "search_end", "value": float(value), "trial": int(trial)}:
                self.progress = replace(
                    self.progress,
                    best_value=value,
                    best_trial=trial,
                    best_parameter_count=event.get("parameter_count"),
                )
            case {"event": "confirmation_run"}:
                self.progress = replace(self.progress, is_racing=True)
            case {"event": "confirmation_end"}:
                self.progress = replace(self.progress, is_racing=False)
            case {"event": "end", "exit_code": int(code), "error": str() | None as error}:
                self._told = JobEnd(code, error, event.get("temporary") is True)

    def _take_trial(self, event: Mapping[str, Any]) -> None:
        progress, state = self.progress, event.get("state")
        is_trained = state in ("COMPLETE", "PRUNED") and bool(event.get("epochs"))
        self.has_trained |= is_trained
        progress = replace(
            progress,
            n_trained=progress.n_trained + is_trained,
            n_pruned=progress.n_pruned + (is_trained and state == "PRUNED"),
            n_failed=progress.n_failed + (state == "FAIL"),
        )
        value = event.get("value")
        if isinstance(value, int | float) and value > (progress.best_value or -1.0):
            progress = replace(
                progress,
                best_value=float(value),
                best_trial=event.get("trial"),
                best_parameter_count=event.get("parameter_count"),
            )
        self.progress = progress


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
