"""Runs what waits in the queue: starts it, follows it, puts away what has ended.

A search is a process of its own, which goes on when its supervisor dies. The next one finds which
of its jobs still run, and queues the others again, before all that waits.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

from search.exceptions import DatabaseError, InputError, UnknownJobError
from search.service.claims import Claims, server_identity
from search.service.database import QueueDatabase
from search.service.folder import ServiceFolder
from search.service.jobs import Job, JobState
from search.service.process import JobProcess
from search.service.progress import JobEnd
from search.service.queue import JobQueue
from search.service.submission import possible_studies, run_words
from search.storage.studies import study_names
from search.study.locks import searching_process
from search.study.open import open_study

_PAUSE_SECONDS = 0.5  # between two looks
_NOTE_SECONDS = 1.0  # between two notes of how far a job is
_HEARTBEAT_SECONDS = 10.0
_START_AGAIN_SECONDS = 5.0  # after a start that failed for a while: by the machine, the database
_BUSY_SECONDS = 3.0  # for which a study is taken for searched, once it was found to be
_PAGE = 50  # of those that wait, looked at together for one whose study is free


class Supervisor:
    """Runs the jobs of a database, as many at a time as it has slots.

    Args:
        url: of the database, as the searches are to be told of it.
        notice: is told what happens, in words.
    """

    def __init__(
        self,
        database: QueueDatabase,
        folder: ServiceFolder,
        *,
        url: str,
        n_slots: int,
        notice: Callable[[str], None],
    ) -> None:
        self._database = database
        self._queue = JobQueue(database)
        self._claims = Claims(database, server_identity(database, folder))
        self._folder = folder
        self._url = url
        self._n_slots = n_slots
        self._notice = notice
        self._running: dict[int, JobProcess] = {}
        self._noted_at: dict[int, float] = {}  # by the monotonic clock
        self._owned: set[int] = set()  # jobs whose process is noted
        self._busy: dict[str, tuple[float, str | None]] = {}  # studies, looked at when, by whom
        self._heard_at = -_HEARTBEAT_SECONDS
        self._start_at = 0.0  # before which nothing is started; by the monotonic clock
        self._is_short = False  # whether the machine could not start what was tried last
        self._news = threading.Event()

    def look(self) -> None:
        """Has it look at once at what is new. May be called by any thread."""
        self._news.set()

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Runs jobs until it is to stop; what runs then goes on.

        Raises:
            DatabaseError: if the file of the database is gone.
        """
        is_away = False
        has_adopted = False
        while not should_stop():
            try:
                if not has_adopted:
                    self._adopt()
                    has_adopted = True
                self._step()
                is_away = False
            except (DatabaseError, InputError, OSError) as error:
                self._database.storage.check()  # a file that is gone does not come back
                if not is_away:
                    self._notice(f"{error} The server tries again.")
                is_away = True
                has_adopted = False  # a job may have been taken, and not started
            self._news.wait(_PAUSE_SECONDS)
            self._news.clear()
        with suppress(DatabaseError):  # whoever looks finds it silent, if not gone
            for process in list(self._running.values()):
                if not process.is_running:  # what has ended is not kept from others
                    self._end(process, is_blamed=False)
            self._claims.leave()

    def _adopt(self) -> None:
        """Takes over what an earlier server left."""
        own = self._claims.own()
        self._find_strays({job.number for job in own})
        for job in own:
            if job.number in self._running:
                continue
            process = JobProcess.adopt(self._folder, job)
            if process.is_running:
                self._running[job.number] = process
                self._notice(f"Adopted {job.name}, which runs.")
            else:
                self._end(process, is_blamed=False)

    def _find_strays(self, own: Collection[int]) -> None:
        """Finds searches that run here though their jobs were put away, to end them."""
        for number in self._folder.locked_jobs():
            if number not in own and number not in self._running:
                with suppress(UnknownJobError):
                    job = self._queue.job(number)
                    self._running[number] = JobProcess.adopt(self._folder, job)

    def _step(self) -> None:
        now = time.monotonic()
        if now - self._heard_at >= _HEARTBEAT_SECONDS:
            self._claims.heartbeat()
            self._heard_at = now
            if self._database.engine.name != "sqlite":  # which has no other server
                for job in self._claims.reclaim_lost():
                    self._notice(f"{job.title} waits again: {job.reason}")
        if self._running:
            self._follow()
        while (
            len(self._running) < self._n_slots
            and time.monotonic() >= self._start_at
            and self._start_next()
        ):
            pass

    # --- What runs ---

    def _follow(self) -> None:
        own = {job.number: job for job in self._claims.own()}
        for number, process in list(self._running.items()):
            # Asked first: what it wrote before it ended is read after.
            is_running = process.is_running
            self._note(process, is_last=not is_running)
            if not is_running:
                self._end(process)
            elif number not in own or own[number].wanted is not None:
                process.stop()

    def _note(self, process: JobProcess, *, is_last: bool) -> None:
        """Notes how far a job is, where that is new."""
        number, now = process.job.number, time.monotonic()
        if number not in self._owned:
            owner = process.owner
            if owner is not None:
                self._claims.note_owner(number, owner)
                self._owned.add(number)
        if not is_last and now - self._noted_at.get(number, 0.0) < _NOTE_SECONDS:
            return
        if process.events.read() or is_last:
            self._claims.note_progress(number, process.events.progress, process.events.study)
            self._noted_at[number] = now

    def _end(self, process: JobProcess, *, is_blamed: bool = True) -> None:
        number = process.job.number
        job = put_away(self._claims, process, is_blamed=is_blamed)
        self._running.pop(number, None)
        self._owned.discard(number)
        self._noted_at.pop(number, None)
        self._busy.clear()
        if job.state is JobState.WAITING and process.end().is_temporary:
            self._start_at = time.monotonic() + _START_AGAIN_SECONDS
        why = "" if job.reason is None else f": {job.reason}"
        how = "waits again" if job.state is JobState.WAITING else f"is {job.state}"
        self._notice(f"{job.title} {how}{why}")

    # --- What waits ---

    def _start_next(self) -> bool:
        """Starts a job that waits; false where there is none that may run now."""
        blocked: set[int] = set()
        last: Job | None = None
        while page := self._queue.page((JobState.WAITING,), limit=_PAGE, after=last):
            last = page[-1]
            if self._pass_over(page, blocked):
                break
        else:
            return False
        taken = self._claims.take_next(blocked)
        if taken is None:
            return False
        self._start(taken)
        return True

    def _pass_over(self, waiting: Sequence[Job], blocked: set[int]) -> bool:
        """Adds the numbers of those that may not run now; returns whether one may."""
        n_before = len(blocked)
        for job in waiting:
            try:
                reason = self._blocked_by(job)
            except InputError as error:  # of this job alone, which another version submitted
                blocked.add(job.number)
                self._claims.refuse(job.number, str(error))
                self._notice(f"{job.title} is failed: {error}")
                continue
            if reason is not None:
                blocked.add(job.number)
                if reason != job.reason:
                    self._claims.note_waiting(job.number, reason)
        return len(blocked) - n_before < len(waiting)

    def _start(self, job: Job) -> None:
        try:
            process = JobProcess.start(self._folder, job, run_words(job.options), self._url)
        except (OSError, InputError, ValueError) as error:
            if isinstance(error, ValueError) or getattr(error, "errno", None) == errno.E2BIG:
                self._claims.end(job.number, JobEnd(1, str(error)), has_trained=False)
                self._notice(f"{job.title} could not be started: {error}")
                return
            # It is the machine's: a full disk, too many files or processes.
            self._start_at = time.monotonic() + _START_AGAIN_SECONDS
            self._claims.put_back(job.number, f"it could not be started yet: {error}")
            if not self._is_short:
                self._notice(f"{job.title} could not be started: {error}. The server tries again.")
            self._is_short = True
            return
        self._is_short = False
        self._running[job.number] = process
        self._notice(f"Started {job.name}.")

    def _blocked_by(self, job: Job) -> str | None:
        """Why a job must wait though there is room: one search at a time runs on a study."""
        names = possible_studies(job.options, self._url)
        for process in self._running.values():
            other = process.job
            theirs = {process.events.study} if process.events.study else self._names(other)
            if names & theirs:
                return f"job {other.number} searches the same study"
        if self._database.engine.name != "sqlite":  # there any number share a study
            return None
        return next(filter(None, map(self._searched_by, sorted(names))), None)

    def _names(self, job: Job) -> set[str]:
        """The names of studies of which a job that runs may take one."""
        with suppress(InputError):
            return possible_studies(job.options, self._url)
        return set() if job.study is None else {job.study}

    def _searched_by(self, name: str) -> str | None:
        """Who else searches a study, in words; None where nobody does."""
        at, found = self._busy.get(name, (-_BUSY_SECONDS, None))
        if time.monotonic() - at < _BUSY_SECONDS:
            return found
        found = self._find_searcher(name)
        self._busy[name] = (time.monotonic(), found)
        return found

    def _find_searcher(self, name: str) -> str | None:
        storage = self._database.storage
        if name not in study_names(storage):
            return None
        try:
            owner = searching_process(open_study(storage, name))
        except (InputError, KeyError):  # deleted meanwhile, or not a search's
            return None
        return None if owner is None else f"process {owner.pid} searches {name}"


def put_away(claims: Claims, process: JobProcess, *, is_blamed: bool) -> Job:
    """Puts away a job whose process has ended; returns it as it is then."""
    number, end, events = process.job.number, process.end(), process.events
    claims.note_progress(number, events.progress, events.study)
    return claims.end(number, end, has_trained=events.has_trained, is_blamed=is_blamed)
