"""What a server does with jobs: take the next one, say how it goes, put away what has ended."""

from __future__ import annotations

import json
import socket
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, select, update

from search.service.database import QueueDatabase
from search.service.folder import ServiceFolder
from search.service.jobs import BETTER, WANTED_STATES, Job, JobProgress, JobState, job_of, now
from search.service.progress import JobEnd
from search.service.queue import (
    LOST_SECONDS,
    clock,
    is_near,
    new_place,
    note_event,
    note_state,
)
from search.service.tables import jobs, servers
from search.study.record import Owner

LEFT_SECONDS = 3600.0  # after which those of one that has ended on purpose are
MAX_DEATHS = 3  # in a row, of a search that trains no trial in between


def server_identity(database: QueueDatabase, folder: ServiceFolder) -> str:
    """What tells a server from all others of its queue, also when it starts again.

    A SQLite database has one, whatever became of its folder: it may be a copy, or have been moved.
    """
    return "only" if database.engine.name == "sqlite" else folder.identity()


@dataclass(frozen=True, slots=True)
class Claims:
    """The jobs of one server.

    Args:
        identity: of the server, which it keeps when it starts again.
    """

    database: QueueDatabase
    identity: str

    def heartbeat(self) -> None:
        """Notes that this server lives."""
        self.database.write(_heartbeat, self.identity)

    def leave(self) -> None:
        """Notes that this server ends on purpose: what it runs goes on, and stays its own a while.

        The moment is noted below zero, where no server is heard of.
        """
        own = servers.c.identity == self.identity

        def leave(connection: Connection) -> None:
            connection.execute(update(servers).where(own).values(heard=-clock(connection)))

        self.database.write(leave)

    def reclaim_lost(self) -> list[Job]:
        """Has the jobs of other servers wait again that fell silent, or left long ago.

        Returns them. Should such a server have been asleep only, or its search have gone on, it
        ends what it runs once it is back.
        """
        return self.database.write(_reclaim_lost, self.identity)

    def own(self) -> list[Job]:
        """The jobs that this server runs, or ran when it died."""

        def read(connection: Connection) -> list[Job]:
            return [job_of(row) for row in connection.execute(_own(self.identity))]

        return self.database.read(read)

    def take_next(self, passing_over: Collection[int]) -> Job | None:
        """Takes the next job that waits; None where there is none. Of several servers, one has it.

        Args:
            passing_over: numbers of jobs that are not to run now.
        """
        return self.database.write(_take_next, self.identity, passing_over)

    def note_owner(self, number: int, owner: Owner) -> None:
        """Notes which process runs a job."""
        own = (jobs.c.number == number) & (jobs.c.server == self.identity)
        statement = update(jobs).where(own).values(owner=json.dumps(asdict(owner)))
        self.database.write(lambda connection: connection.execute(statement))

    def note_progress(self, number: int, progress: JobProgress, study: str | None) -> None:
        """Notes how far a job is, and where it has found a better network, that."""
        self.database.write(_note_progress, self.identity, number, progress, study)

    def note_waiting(self, number: int, reason: str | None) -> None:
        """Notes why a job waits though there is room for it."""
        waits = (jobs.c.number == number) & (jobs.c.state == JobState.WAITING)
        statement = update(jobs).where(waits).values(reason=reason)
        self.database.write(lambda connection: connection.execute(statement))

    def refuse(self, number: int, reason: str) -> None:
        """Puts away a job that waits, and cannot be started."""
        self.database.write(_refuse, number, reason)

    def put_back(self, number: int, reason: str) -> None:
        """Has a job wait again, before all others, that was taken and could not be started now."""
        self.database.write(_put_back, self.identity, number, reason)

    def end(self, number: int, end: JobEnd, *, has_trained: bool, is_blamed: bool = True) -> Job:
        """Puts away a job whose process has ended; returns it as it is then.

        A search that nobody stopped, and that did not end by itself, waits again, before all
        others, unless it has died too often.

        Args:
            has_trained: whether it trained a trial since it was started.
            is_blamed: whether its death counts: not where the server, or the machine, died as well.
        """
        return self.database.write(_end, self.identity, number, end, has_trained, is_blamed)


def _note_progress(
    connection: Connection, identity: str, number: int, progress: JobProgress, study: str | None
) -> None:
    own = (jobs.c.number == number) & (jobs.c.server == identity)
    row = connection.execute(select(jobs).where(own)).first()
    if row is None:
        return
    values: dict[str, Any] = {"progress": json.dumps(asdict(progress))}
    if study is not None:
        values["study"] = study
    connection.execute(update(jobs).where(own).values(**values))
    before, best = job_of(row).progress.best_value, progress.best_value
    if best is not None and (before is None or best > before):
        note_event(connection, number, BETTER)


def _reclaim_lost(connection: Connection, identity: str) -> list[Job]:
    heard, moment = servers.c.heard, clock(connection)
    fell_silent = (heard > 0) & ~is_near(heard, moment, LOST_SECONDS)
    has_left = (heard <= 0) & ~is_near(-heard, moment, LEFT_SECONDS)
    lost = select(servers.c.identity).where(fell_silent | has_left, servers.c.identity != identity)
    running = (jobs.c.state == JobState.RUNNING) & jobs.c.server.in_(lost)
    query = select(jobs.c.number).where(running).order_by(jobs.c.number.desc())
    found = []
    for number in connection.scalars(query.with_for_update(skip_locked=True)).all():
        reason = "its server is away"
        place = new_place(connection, first=True)
        note_state(connection, number, JobState.WAITING, server=None, place=place, reason=reason)
        row = connection.execute(select(jobs).where(jobs.c.number == number)).one()
        found.append(job_of(row))
    return found


def _heartbeat(connection: Connection, identity: str) -> None:
    heard = clock(connection)
    own = servers.c.identity == identity
    if connection.execute(update(servers).where(own).values(heard=heard)).rowcount == 0:
        host = socket.gethostname()
        connection.execute(servers.insert().values(identity=identity, host=host, heard=heard))


def _own(identity: str) -> Any:
    is_own = (jobs.c.server == identity) & (jobs.c.state == JobState.RUNNING)
    return select(jobs).where(is_own).order_by(jobs.c.number)


def _take_next(connection: Connection, identity: str, passing_over: Collection[int]) -> Job | None:
    waits = select(jobs.c.number).where(jobs.c.state == JobState.WAITING)
    if passing_over:
        waits = waits.where(jobs.c.number.not_in(list(passing_over)))
    # On PostgreSQL whoever comes at the same moment takes the one behind it.
    ordered = waits.order_by(jobs.c.place, jobs.c.number).limit(1)
    number = connection.scalar(ordered.with_for_update(skip_locked=True))
    if number is None:
        return None
    note_state(
        connection,
        number,
        JobState.RUNNING,
        server=identity,
        owner=None,
        wanted=None,
        n_starts=jobs.c.n_starts + 1,
        started=now(),
        ended=None,
        exit_code=None,
        reason=None,
    )
    return job_of(connection.execute(select(jobs).where(jobs.c.number == number)).one())


def _refuse(connection: Connection, number: int, reason: str) -> None:
    waits = (jobs.c.number == number) & (jobs.c.state == JobState.WAITING)
    if connection.scalar(select(jobs.c.number).where(waits).with_for_update()) is not None:
        note_state(connection, number, JobState.FAILED, ended=now(), exit_code=2, reason=reason)


def _put_back(connection: Connection, identity: str, number: int, reason: str) -> None:
    found = select(jobs).where(jobs.c.number == number)
    row = connection.execute(found.with_for_update()).one()
    if row.server != identity or row.state != JobState.RUNNING:
        return
    if row.wanted in WANTED_STATES:  # meanwhile
        state = WANTED_STATES[row.wanted]
        note_state(connection, number, state, wanted=None, ended=now(), reason=None)
        return
    place = new_place(connection, first=True)
    note_state(connection, number, JobState.WAITING, place=place, reason=reason)


def _end(
    connection: Connection,
    identity: str,
    number: int,
    end: JobEnd,
    has_trained: bool,
    is_blamed: bool,
) -> Job:
    found = select(jobs).where(jobs.c.number == number)
    row = connection.execute(found.with_for_update()).one()
    if row.server != identity or row.state != JobState.RUNNING:  # it is another's, or put away
        return job_of(row)
    n_deaths = (0 if has_trained else row.n_deaths) + 1
    values: dict[str, Any] = {"ended": now(), "exit_code": end.exit_code, "reason": end.reason}
    if end.exit_code == 0:
        state = JobState.DONE
    elif row.wanted in WANTED_STATES:
        state = WANTED_STATES[row.wanted]
        values["reason"] = None
    elif end.is_refusal:
        state = JobState.FAILED
    elif is_blamed and n_deaths >= MAX_DEATHS:
        state = JobState.FAILED
        values["reason"] = f"{end.reason}, {n_deaths} times without a trial trained in between"
    else:
        state = JobState.WAITING
        values |= {"place": new_place(connection, first=True), "ended": None}
        values["n_deaths"] = n_deaths if is_blamed else row.n_deaths
    note_state(connection, number, state, wanted=None, **values)
    return job_of(connection.execute(found).one())
