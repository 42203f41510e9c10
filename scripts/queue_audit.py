"""What is seen from outside of a queue that is tormented, and what must never be seen.

`scripts/queue_chaos.py` torments it. Nothing here asks a server: it reads tables, processes and
files.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy
from sqlalchemy import Row, Select, create_engine, select

from scripts.chaos import Audit, check_study, read_log, read_trials, session, wait_for
from search.service.jobs import BETTER, JobState
from search.service.progress import START
from search.service.tables import events, jobs

N_TRIALS = 3  # of a short search
_AWAY_SECONDS = 120.0  # for which a database that was killed is waited for
_FORBIDDEN = {  # what may not follow what, of a job
    JobState.RUNNING: (JobState.RUNNING,),
    JobState.DONE: tuple(JobState),
    JobState.STOPPED: (JobState.RUNNING, JobState.DONE, JobState.FAILED),
    JobState.CANCELLED: (JobState.RUNNING, JobState.DONE, JobState.FAILED, JobState.STOPPED),
    JobState.FAILED: (JobState.RUNNING, JobState.DONE, JobState.STOPPED),
}


@dataclass
class Asked:
    """What a user asked for: a job, and what was last accepted of it.

    Args:
        key: of its submission.
        is_long: whether its search never ends by itself.
        number: that was answered; None before that.
        last: also with what may have been accepted, where nobody answered.
    """

    study: str
    key: str
    is_long: bool
    number: int | None = None
    last: str = "submit"

    @property
    def may_end_as(self) -> Collection[JobState]:
        """Where it may be once all has ended."""
        if self.is_long:
            return (JobState.CANCELLED,)
        return (JobState.CANCELLED, JobState.DONE) if "cancel" in self.last else (JobState.DONE,)


@dataclass
class QueueAudit:
    """Looks at a queue from outside.

    Args:
        folder: in which its searches log, and its servers run.
        url: of the database.
        stray_seconds: within which a search that no job has must end.
        gone_seconds: within which the processes of a search that was killed must end.
    """

    folder: Path
    url: str
    stray_seconds: float = 150.0
    gone_seconds: float = 60.0
    found: Audit = field(default_factory=Audit)

    def __post_init__(self) -> None:
        self._engine = create_engine(self.url, pool_pre_ping=True)
        self._seen: dict[int, str] = {}  # processes that searched: which study
        self._strays: dict[int, float] = {}  # since when no job had them; by the monotonic clock

    def log(self, study: str) -> Path:
        """Where the workers of a search log what they train."""
        return self.folder / "log" / study

    def close(self) -> None:
        self._engine.dispose()

    # --- While it goes on ---

    def searches(self) -> dict[int, str]:
        """The processes that search, by their identifiers: which study."""
        return {pid: study for pid, (study, _) in self._searches().items()}

    def _searches(self) -> dict[int, tuple[str, str]]:
        """Also on which machine, by the folder in which its server runs."""
        own = f"--worker-log={self.folder}/log/"
        found = {}
        for process in psutil.process_iter():
            with suppress(psutil.Error, ProcessLookupError):
                if os.getsid(process.pid) != process.pid:
                    continue
                log = next((word for word in process.cmdline() if word.startswith(own)), None)
                if log is not None and process.status() != psutil.STATUS_ZOMBIE:
                    found[process.pid] = log.removeprefix(own), process.cwd()
        return found

    def look(self) -> None:
        """Notes who searches, whether twice, and whom no job has for long.

        A server that falls silent for two minutes loses its jobs to another machine, where they may
        run beside what it left: then what counts is that no trial is trained twice.
        """
        now, found = time.monotonic(), self._searches()
        living = {pid: study for pid, (study, _) in found.items()}
        self._seen |= living
        for (name, machine), n in Counter(found.values()).items():
            if n > 1:
                words = f"{name} is searched by {n} processes in {machine}"
                self.found.counted_twice.append(words)
        try:
            running = {row.study for row in self._read() if row.state == JobState.RUNNING}
        except sqlalchemy.exc.OperationalError:  # it was killed
            return
        strays = {pid: name for pid, name in living.items() if name not in running}
        self._strays = {pid: self._strays.get(pid, now) for pid in strays}
        for pid, since in self._strays.items():
            if now - since > self.stray_seconds:
                self.found.left_behind.append(f"{strays[pid]}, which no job runs")
                with suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)

    def rows(self) -> list[Row[Any]]:
        """The jobs, once the database answers."""
        deadline = time.monotonic() + _AWAY_SECONDS
        while True:
            try:
                return self._read()
            except sqlalchemy.exc.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def backends(self) -> list[int]:
        """The processes of a PostgreSQL that serve others than this one."""
        query = (
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' "
            "AND pid <> pg_backend_pid()"
        )
        with suppress(sqlalchemy.exc.OperationalError), self._engine.connect() as connection:
            return list(connection.exec_driver_sql(query).scalars())
        return []

    def _read(self, query: Select[Any] | None = None) -> list[Row[Any]]:
        with self._engine.connect() as connection:
            if not sqlalchemy.inspect(connection).has_table(events.name):  # no server has begun
                return []
            return list(connection.execute(select(jobs) if query is None else query))

    # --- Once all has ended ---

    def check(self, asked: Collection[Asked]) -> None:
        """Compares what has ended with what was asked for and with what was seen."""
        rows = self.rows()
        n_rows = Counter(row.key for row in rows)
        self.found.lost += [each.study for each in asked if not n_rows[each.key]]
        self.found.counted_twice += [key for key, n in n_rows.items() if n > 1]
        of_key = {each.key: each for each in asked}
        for row in rows:
            each = of_key[row.key]
            if row.state not in each.may_end_as or row.number != each.number:
                self.found.lost.append(f"{each} is job {row.number}, {row.state}: {row.reason}")
            self._check_events(row)
            self._check_starts(row)
            if row.state == JobState.DONE:
                trials, log = read_trials(self.url, each.study), read_log(self.log(each.study))
                check_study(self.found, trials, log, n_trials=N_TRIALS)
        self._check_processes()

    def _check_events(self, row: Row[Any]) -> None:
        query = select(events).where(events.c.job == row.number, events.c.state != BETTER)
        told = [JobState(event.state) for event in self._read(query.order_by(events.c.number))]
        for before, after in itertools.pairwise(told):
            if after in _FORBIDDEN.get(before, ()):
                self.found.counted_twice.append(f"{row.study} was {before}, then {after}")
        if told[-1:] != [row.state] or told.count(JobState.RUNNING) != row.n_starts:
            self.found.changed.append(f"{row.study} is {row.state}, but {told} were told")

    def _check_starts(self, row: Row[Any]) -> None:
        starts = [*self._starts(row.number)]
        if len(set(starts)) < len(starts):
            self.found.counted_twice.append(f"{row.study} was started twice: {starts}")

    def _starts(self, number: int) -> Iterator[int]:
        """Which starts of a job there were, on all machines."""
        for path in self.folder.glob(f"**/jobs/{number}.events"):
            for line in path.read_text().splitlines():
                with suppress(ValueError):  # the half of a line, of one that was killed
                    event = json.loads(line)
                    if event["event"] == START:
                        yield event["attempt"]

    def _check_processes(self) -> None:
        for pid, name in self._seen.items():
            if not wait_for(lambda pid=pid: not session(pid), seconds=self.gone_seconds):  # type: ignore[misc]
                self.found.left_behind.append(f"processes of {name}: {session(pid)}")
                for left in session(pid):
                    left.kill()
