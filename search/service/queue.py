"""What users do with jobs: submit, look, stop, resume, cancel, move."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, delete, func, select, update

from search.exceptions import JobError, UnknownJobError
from search.service.database import QueueDatabase
from search.service.jobs import CANCEL, ENDED, STOP, WANTED_STATES, Job, JobState, job_of, now
from search.service.tables import events, jobs, servers
from search.storage.retrying import RetryingStorage

_N_EVENTS = 10_000  # that are kept
_EVENTS_LOCK = 7_365_617_263  # of PostgreSQL, by a number
_N_DIGITS = 18  # that a number has at most: a database takes no larger ones
_SILENT_SECONDS = 30.0  # after which a server is taken for gone
LOST_SECONDS = 120.0  # after which the jobs of a silent server are another's
_ACTIVE = (JobState.RUNNING, JobState.WAITING)


@dataclass(frozen=True, slots=True)
class JobEvent:
    """What became of a job.

    Args:
        number: of the event; later ones have higher ones.
        at: when, in UTC, as ISO 8601 has it.
        kind: the state that the job came into, or `BETTER`.
    """

    number: int
    at: str
    job: int
    kind: str


class JobQueue:
    """The jobs of a database; may be used by several threads.

    All raise DatabaseError where the database fails.
    """

    def __init__(self, database: QueueDatabase) -> None:
        self._database = database

    @property
    def storage(self) -> RetryingStorage:
        """Optuna's storage of the same database."""
        return self._database.storage

    def submit(
        self,
        options: Mapping[str, Any],
        *,
        study: str | None = None,
        key: str | None = None,
        first: bool = False,
    ) -> tuple[Job, bool]:
        """Queues a search; returns its job, and whether that is new.

        Args:
            options: of the search, checked, by the names of `SearchRequest`.
            study: the name of its study, where that is known.
            key: of who submits, unlike all others: who gives it again gets the same job.
            first: whether it goes before all that waits; by default, behind.

        Raises:
            JobError: if the key was given before, with other options.
        """
        return self._database.write(_submit, options, study, key or uuid.uuid4().hex, first)

    def job(self, number: int) -> Job:
        """A job by its number.

        Raises:
            JobError: if there is none.
        """
        return self._database.read(lambda connection: job_of(_find(connection, str(number))))

    def find(self, name: str) -> Job:
        """A job by its number or the name of its study: of several, one that runs, waits, or the
        last one.

        Raises:
            JobError: if there is none.
        """
        return self._database.read(lambda connection: job_of(_find(connection, name)))

    def of_study(self, name: str) -> Job:
        """The job of a study, of several as `find` has it; a number is a name as any other.

        Raises:
            UnknownJobError: if there is none.
        """
        return self._database.read(lambda c: job_of(_of_study(c, select(jobs), name)))

    def page(
        self,
        states: Sequence[JobState] = tuple(JobState),
        *,
        limit: int = 100,
        after: Job | None = None,
    ) -> list[Job]:
        """Jobs in some states, at most so many, of which the newest comes first.

        Those that wait come in the order in which they will be run, where nothing else is asked
        for.

        Args:
            after: the last one of the page before.
        """
        return self._database.read(_page, states, limit, after)

    def count(self) -> dict[JobState, int]:
        """How many jobs there are in each state."""

        def read(connection: Connection) -> dict[JobState, int]:
            query = select(jobs.c.state, func.count()).group_by(jobs.c.state)
            found: dict[str, int] = dict(connection.execute(query).all())
            return {state: found.get(state, 0) for state in JobState}

        return self._database.read(read)

    def stop(self, name: str) -> Job:
        """Stops the search of a job, which can be resumed; one that waits is held.

        Raises:
            JobError: if it has ended, or there is none of that name.
        """
        return self._database.write(_stop, name, STOP)

    def stop_study(self, name: str) -> Job:
        """Stops the search of a study, as `of_study` finds it.

        Raises:
            JobError: if it has ended, or no job has a study of that name.
        """

        def stop(connection: Connection) -> Job:
            number = _of_study(connection, select(jobs), name).number
            return _stop(connection, str(number), STOP)

        return self._database.write(stop)

    def cancel(self, name: str) -> Job:
        """Takes a job out of the queue; one that runs is stopped first.

        Raises:
            JobError: if it is done, or there is none of that name.
        """
        return self._database.write(_stop, name, CANCEL)

    def resume(self, name: str) -> Job:
        """Queues a job again, at the end, that was stopped or cancelled, or failed.

        Raises:
            JobError: if it waits, runs or is done, or there is none of that name.
        """
        return self._database.write(_resume, name)

    def move(self, name: str, *, first: bool) -> Job:
        """Has a job that waits run next, or last.

        Raises:
            JobError: if it does not wait, or there is none of that name.
        """
        return self._database.write(_move, name, first)

    def events_after(self, number: int, *, limit: int = 100) -> list[JobEvent]:
        """What became of jobs after an event, in order."""

        def read(connection: Connection) -> list[JobEvent]:
            query = select(events).where(events.c.number > number).order_by(events.c.number)
            return [
                JobEvent(row.number, row.at, row.job, row.state)
                for row in connection.execute(query.limit(limit))
            ]

        return self._database.read(read)

    def last_event(self) -> int:
        """The number of the last event; 0 where there is none."""
        return self._database.read(lambda c: c.scalar(select(func.max(events.c.number))) or 0)

    def has_server(self) -> bool:
        """Whether a server was heard of lately, on any machine."""

        def read(connection: Connection) -> bool:
            lately = is_near(servers.c.heard, clock(connection), _SILENT_SECONDS)
            return connection.execute(select(servers).where(lately)).first() is not None

        return self._database.read(read)


def clock(connection: Connection) -> float:
    """Seconds since 1970, by the clock of the database: that of machines may differ."""
    if connection.dialect.name == "postgresql":
        return float(connection.scalar(select(func.extract("epoch", func.clock_timestamp()))) or 0)
    return float(connection.scalar(select((func.julianday("now") - 2440587.5) * 86400.0)) or 0)


def is_near(heard: ColumnElement[float], moment: float, seconds: float) -> ColumnElement[bool]:
    """Whether a server was heard of near a moment, also after it: a clock may be set back."""
    return heard.between(moment - seconds, moment + seconds)


def note_state(connection: Connection, number: int, state: JobState, **values: Any) -> None:
    """Brings a job into a state, with other columns as given, and notes that as an event."""
    connection.execute(
        update(jobs).where(jobs.c.number == number).values(state=str(state), **values)
    )
    note_event(connection, number, str(state))


def note_event(connection: Connection, number: int, kind: str) -> None:
    """Notes what became of a job; the oldest that is kept goes.

    On PostgreSQL whoever notes one waits for the commit of who did before: numbers are taken before
    it, and who has read one must have been able to read all below. Rows are locked before, so that
    no two wait for each other.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_EVENTS_LOCK)))
    made = connection.execute(events.insert().values(at=now(), job=number, state=kind))
    (event,) = made.inserted_primary_key or (0,)
    if event % 100 == 0:
        connection.execute(delete(events).where(events.c.number <= event - _N_EVENTS))


def new_place(connection: Connection, *, first: bool) -> int:
    """A place before all that waits, or behind."""
    which = func.min(jobs.c.place) if first else func.max(jobs.c.place)
    found: int = connection.scalar(select(which).where(jobs.c.state == JobState.WAITING)) or 0
    return found - 1 if first else found + 1


def _submit(
    connection: Connection, options: Mapping[str, Any], study: str | None, key: str, first: bool
) -> tuple[Job, bool]:
    text = json.dumps(options, sort_keys=True)
    before = connection.execute(select(jobs).where(jobs.c.key == key)).first()
    if before is not None:
        if before.options != text:
            raise JobError(
                "A key must be given again with the same options, but job "
                f"{before.number} was submitted with this one and others; give a new key."
            )
        return job_of(before), False
    made = connection.execute(
        jobs.insert().values(
            state=str(JobState.WAITING),
            place=new_place(connection, first=first),
            options=text,
            study=study,
            submitted=now(),
            key=key,
            n_starts=0,
            n_deaths=0,
        )
    )
    (number,) = made.inserted_primary_key or (0,)
    note_state(connection, number, JobState.WAITING)
    return job_of(_find(connection, str(number))), True


def _find(connection: Connection, name: str, *, for_update: bool = False) -> Row[Any]:
    query = select(jobs)
    if for_update:  # of PostgreSQL; SQLite has one that writes at a time
        query = query.with_for_update()
    if name.isascii() and name.isdecimal() and len(name) <= _N_DIGITS:
        row = connection.execute(query.where(jobs.c.number == int(name))).first()
        if row is not None:
            return row
    return _of_study(connection, query, name)


def _of_study(connection: Connection, query: Select[Any], name: str) -> Row[Any]:
    if "\0" not in name:  # which PostgreSQL takes in no text
        query = query.where(jobs.c.study == name)
        for state in _ACTIVE:
            row = connection.execute(query.where(jobs.c.state == state).limit(1)).first()
            if row is not None:
                return row
        row = connection.execute(query.order_by(jobs.c.number.desc()).limit(1)).first()
        if row is not None:
            return row
    raise UnknownJobError(
        "A job must be named by its number or the name of its study, but there is no "
        f"{name[:200]!r}; 'search queue' lists those that are there."
    )


def _page(
    connection: Connection, states: Sequence[JobState], limit: int, after: Job | None
) -> list[Job]:
    query = select(jobs).limit(limit)
    if set(states) != set(JobState):  # of all, the index of states would have them sorted first
        query = query.where(jobs.c.state.in_([str(state) for state in states]))
    if tuple(states) == (JobState.WAITING,):
        if after is not None:
            place = connection.scalar(select(jobs.c.place).where(jobs.c.number == after.number))
            query = query.where(
                (jobs.c.place > place) | ((jobs.c.place == place) & (jobs.c.number > after.number))
            )
        query = query.order_by(jobs.c.place, jobs.c.number)
    else:
        if after is not None:
            query = query.where(jobs.c.number < after.number)
        query = query.order_by(jobs.c.number.desc())
    return [job_of(row) for row in connection.execute(query).all()]


def _stop(connection: Connection, name: str, wanted: str) -> Job:
    row = _find(connection, name, for_update=True)
    job = job_of(row)
    if job.state is JobState.RUNNING:
        if row.wanted != CANCEL:  # who cancels does not want it back
            connection.execute(
                update(jobs).where(jobs.c.number == job.number).values(wanted=wanted)
            )
        _put_away_lost(connection, job.number)
    elif job.state is JobState.WAITING or (wanted == CANCEL and job.state in _CANCELLED_FROM):
        note_state(connection, job.number, WANTED_STATES[wanted], ended=now(), reason=None)
    else:
        rule = "To be stopped a job must wait or run"
        if wanted == CANCEL:
            rule = "To be cancelled a job must be neither done nor cancelled"
        raise JobError(f"{rule}, but {job.name} is {job.state}{_fix(job, wanted)}")
    return job_of(_find(connection, str(job.number)))


def _put_away_lost(connection: Connection, number: int) -> None:
    """Puts away a job that is to stop, and whose server is away: nobody else would.

    Should its search run all the same, its server ends that once it is back. A SQLite database has
    its one server on this machine, where the process itself is looked at.
    """
    row = connection.execute(select(jobs).where(jobs.c.number == number)).one()
    is_to_stop = row.state == JobState.RUNNING and row.wanted in WANTED_STATES
    if connection.dialect.name == "sqlite" or not is_to_stop:
        return
    is_away = ~is_near(func.abs(servers.c.heard), clock(connection), LOST_SECONDS)
    if connection.scalar(select(is_away).where(servers.c.identity == row.server)):
        state = WANTED_STATES[row.wanted]
        note_state(connection, number, state, wanted=None, ended=now(), reason=None)


_CANCELLED_FROM = (JobState.STOPPED, JobState.FAILED)


def _fix(job: Job, wanted: str) -> str:
    if wanted == STOP and job.state in (JobState.STOPPED, JobState.FAILED):
        return f"; 'search cancel {job.number}' takes it out of the queue."
    return ": there is nothing left to do."


def _resume(connection: Connection, name: str) -> Job:
    number = _find(connection, name, for_update=True).number
    _put_away_lost(connection, number)
    job = job_of(_find(connection, str(number)))
    if job.state not in ENDED or job.state is JobState.DONE:
        how = {
            JobState.WAITING: "waits already",
            JobState.RUNNING: "runs" if job.wanted is None else "is still being stopped; wait",
            JobState.DONE: "is done; submit its search with more --trials",
        }[job.state]
        raise JobError(
            f"A job that is resumed must be stopped or have failed, but {job.name} {how}."
        )
    note_state(
        connection,
        job.number,
        JobState.WAITING,
        place=new_place(connection, first=False),
        wanted=None,
        ended=None,
        exit_code=None,
        reason=None,
        n_deaths=0,
    )
    return job_of(_find(connection, str(job.number)))


def _move(connection: Connection, name: str, first: bool) -> Job:
    job = job_of(_find(connection, name, for_update=True))
    if job.state is not JobState.WAITING:
        raise JobError(
            f"A job that is moved must wait, but {job.name} is {job.shown_state}; 'search queue' "
            "lists those that wait."
        )
    place = new_place(connection, first=first)
    connection.execute(update(jobs).where(jobs.c.number == job.number).values(place=place))
    return job_of(_find(connection, str(job.number)))
