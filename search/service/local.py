"""The queue of a database, reached without a server: what `search.Client` does, done here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from search.exceptions import UnknownJobError
from search.service.claims import Claims, server_identity
from search.service.database import QueueDatabase, opened_database
from search.service.folder import ServiceFolder, try_lock
from search.service.jobs import Job, JobState
from search.service.logs import read_log
from search.service.plain_searches import stop_search
from search.service.process import JobProcess
from search.service.queue import JobQueue
from search.service.submission import Submission
from search.service.supervisor import put_away
from search.service.watching import watch_search

_PAGE = 500


class LocalJobs:
    """Does what a client does, on the database itself, where no server runs.

    Args:
        url: of the database.
    """

    def __init__(self, database: QueueDatabase, url: str) -> None:
        self._database = database
        self._queue = JobQueue(database)
        self._url = url
        self._folder = ServiceFolder(url)

    def submit(self, submission: Submission, *, first: bool = False) -> Job:
        """Queues a search that was checked."""
        return self._queue.submit(submission.options, study=submission.study, first=first)[0]

    def job(self, name: int | str) -> Job:
        self._put_away()
        return self._queue.find(str(name))

    def jobs(
        self, states: Sequence[JobState] = tuple(JobState), limit: int | None = None
    ) -> list[Job]:
        self._put_away()
        found: list[Job] = []
        while limit is None or len(found) < limit:
            n = _PAGE if limit is None else min(_PAGE, limit - len(found))
            page = self._queue.page(states, limit=n, after=found[-1] if found else None)
            found += page
            if len(page) < n:
                break
        return found

    def count(self) -> dict[JobState, int]:
        return self._queue.count()

    def stop(self, name: int | str) -> Job:
        return self._end(self._queue.stop, name)

    def resume(self, name: int | str) -> Job:
        self._put_away()
        return self._queue.resume(str(name))

    def cancel(self, name: int | str) -> Job:
        return self._end(self._queue.cancel, name)

    def move(self, name: int | str, *, first: bool = True) -> Job:
        return self._queue.move(str(name), first=first)

    def log(self, name: int | str, offset: int = 0) -> bytes:
        return read_log(self._url, self.job(name), offset)

    def watch(self, name: int | str) -> Iterator[dict[str, Any] | None]:
        return watch_search(self._queue, str(name), look=self.job)

    def stop_study(self, name: str) -> dict[str, Any]:
        """Stops the search of a study that no job runs, on this machine.

        Raises:
            UnknownJobError: if there is none.
        """
        owner = stop_search(self._queue.storage, name)
        if owner is None:
            self._queue.find(name)
            raise UnknownJobError(
                f"A search that is stopped must run on this machine, but nobody searches {name!r}."
            )
        return {"job": None, "process": owner.pid, "host": owner.host}

    def has_server(self) -> bool:
        """Whether a server was heard of lately, on any machine."""
        return self._folder.has_server() or self._queue.has_server()

    def _end(self, act: Callable[[str], Job], name: int | str) -> Job:
        """Does what ends a job; where it runs here, its process is told, as nobody else would."""
        number = self.job(name).number
        process = next((each for each in self._own() if each.job.number == number), None)
        job = act(str(number))
        if process is not None:
            process.stop()
        return job

    def _own(self) -> list[JobProcess]:
        """The processes of the jobs that run on this machine, or that nobody has put away yet."""
        if self._database.engine.name != "sqlite" and not self._folder.has_identity():
            return []
        return [JobProcess.adopt(self._folder, job) for job in self._claims().own()]

    def _put_away(self) -> None:
        """Puts away the jobs whose process has ended, as a server does where one runs."""
        if all(process.is_running for process in self._own()):
            return
        self._folder.make()
        lock = try_lock(self._folder.server_lock)
        if lock is None:  # a server does
            return
        try:
            for process in self._own():
                if not process.is_running:
                    put_away(self._claims(), process, is_blamed=False)
        finally:
            os.close(lock)

    def _claims(self) -> Claims:
        return Claims(self._database, server_identity(self._database, self._folder))


@contextmanager
def opened_jobs(url: str, *, create: bool) -> Iterator[LocalJobs]:
    """The jobs of a database.

    Args:
        create: whether to create the database where there is none.

    Raises:
        StorageError: if it cannot be opened.
    """
    with opened_database(url, create=create) as database:
        yield LocalJobs(database, url)
