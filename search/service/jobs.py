"""A search that was submitted, and what may become of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

from sqlalchemy import Row

from search.study.record import read_owner
from search.study.stored import is_count, is_number
from search.wording import counted, thousands

_T = TypeVar("_T")


class JobState(StrEnum):
    """Where a job is."""

    WAITING = "waiting"
    RUNNING = "running"
    STOPPED = "stopped"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = (JobState.STOPPED, JobState.DONE, JobState.FAILED, JobState.CANCELLED)
BETTER = "better"  # what becomes of a job that stays where it is: it found a better network
STOP, CANCEL = "stop", "cancel"  # what may be wanted of a job that runs
WANTED_STATES = {STOP: JobState.STOPPED, CANCEL: JobState.CANCELLED}  # that it then comes into


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How far the search of a job is.

    Args:
        n_trials: trained trials that its study is to have; None while it loads.
        n_trained: that it has.
        best_value: of a complete trial of this study, a share from 0 to 1.
        is_racing: whether its best trials race over fresh seeds.
    """

    n_trials: int | None = None
    n_trained: int = 0
    n_pruned: int = 0
    n_failed: int = 0
    best_value: float | None = None
    best_trial: int | None = None
    best_parameter_count: int | None = None
    is_racing: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """A search that was submitted.

    Args:
        options: of the search, those that were given, by the names of `SearchRequest`.
        study: the name of its study; None until the data tell it.
        wanted: what was asked of it while it runs: stop or cancel.
        submitted, started, ended: moments in UTC, as ISO 8601 has them.
        exit_code: of the command that ran last; None where it was killed, or none has ended.
        reason: why it is where it is, in words.
        n_starts: how often its search was started.
    """

    number: int
    state: JobState
    options: dict[str, Any]
    study: str | None
    wanted: str | None
    host: str | None
    submitted: str
    started: str | None
    ended: str | None
    exit_code: int | None
    reason: str | None
    n_starts: int
    progress: JobProgress = field(default_factory=JobProgress)

    @property
    def name(self) -> str:
        """What it is called in a sentence."""
        return f"job {self.number}" if self.study is None else f"job {self.number} ({self.study})"

    @property
    def title(self) -> str:
        """What it is called at the head of a sentence."""
        return f"J{self.name.removeprefix('j')}"

    @property
    def search(self) -> str:
        """What it searches: its study or, where the name is not known yet, what was asked for."""
        if self.study is not None:
            return self.study
        budget, epochs = self.options.get("budget"), self.options.get("epochs")
        if not (isinstance(budget, int) and isinstance(epochs, int)):
            return "options that cannot be read"
        data = self.options.get("dataset", "auto")
        return f"{data}, budget {thousands(budget)}, {counted(epochs, 'epoch')}"

    @property
    def shown_state(self) -> str:
        """Its state in a word, with what is wanted of it."""
        if self.state is JobState.RUNNING and self.wanted is not None:
            return "stopping"
        return str(self.state)

    def to_json(self) -> dict[str, Any]:
        """As values that JSON knows."""
        # Not by `asdict`, which copies each value: of a page, that took as long as reading it.
        return {**_values(self), "progress": _values(self.progress)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Job:
        """What `to_json` made."""
        progress = JobProgress(**values["progress"])
        return cls(**{**values, "state": JobState(values["state"]), "progress": progress})


def now() -> str:
    """This moment, as jobs have it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _values(instance: Job | JobProgress) -> dict[str, Any]:
    return {each.name: getattr(instance, each.name) for each in fields(instance)}


def job_of(row: Row[Any]) -> Job:
    """The job of a row of the table."""
    owner = _read(row.owner, lambda text: read_owner(json.loads(text)), None)
    options: Any = _read(row.options, json.loads, {})
    state, reason = _state(row.state), _text(row.reason)
    if state is None:
        state, reason = JobState.FAILED, f"its state is none that this version knows: {row.state}"
    return Job(
        number=row.number,
        state=state,
        options=options if isinstance(options, dict) else {},
        study=_text(row.study),
        wanted=row.wanted if state is JobState.RUNNING and row.wanted in WANTED_STATES else None,
        host=None if owner is None else owner.host,
        submitted=_text(row.submitted) or "",
        started=_text(row.started),
        ended=_text(row.ended),
        exit_code=row.exit_code,
        reason=reason,
        n_starts=row.n_starts,
        progress=_read(row.progress, _read_progress, JobProgress()),
    )


def _state(text: object) -> JobState | None:
    """A state as a row has it; None of one that this version does not know."""
    return JobState(str(text)) if text in set(JobState) else None


def _text(value: object) -> str | None:
    """A text; None of what SQLite lets stand in its place."""
    return value if isinstance(value, str) else None


def _read_progress(text: str) -> JobProgress:
    """How far a search is, as a row has it.

    Raises:
        TypeError, ValueError: if that is no such thing.
    """
    found = JobProgress(**json.loads(text))
    values = _values(found)
    value, is_racing = values.pop("best_value"), values.pop("is_racing")
    is_counted = all(each is None or is_count(each) for each in values.values())
    if not is_counted or not isinstance(is_racing, bool) or not (value is None or is_number(value)):
        raise ValueError(text)
    return found


def _read(text: str | None, read: Callable[[str], _T], otherwise: _T) -> _T:
    """What a text says; something else where it says nothing that this version reads.

    One row that another program has written must not cost the others.
    """
    with suppress(TypeError, ValueError, RecursionError):
        return otherwise if text is None else read(text)
    return otherwise
