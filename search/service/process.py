"""One `search run` in a session of its own, which outlives the server that started it.

Whether it lives is told by a locked file, whose lock it inherits: the system frees it when the
process ends, however it ends. So a server that starts anew knows of each job of an earlier one
whether it runs, also of one that was started the moment that the earlier one died.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path

import psutil

from search.folders import python_settings
from search.service.folder import ServiceFolder, is_locked, take_lock
from search.service.jobs import Job
from search.service.progress import START, EventReader, JobEnd
from search.study.owners import owner_of
from search.study.record import Owner

# The shell writes its process identifier, which stays when it becomes the search.
_SCRIPT = 'echo $$ >"$0" && exec "$@"'
# After how long a search that was told to stop is told again, and at last killed. It takes at most
# five, but for what it does not hear: PyTorch's import, a disk that hangs.
_AGAIN_SECONDS, _KILL_SECONDS = 30.0, 90.0


class JobProcess:
    """The process of a job.

    Args:
        job: as it was taken.
        started: by this server; None where an earlier one has.

    Attributes:
        events: how far it is.
    """

    def __init__(
        self, folder: ServiceFolder, job: Job, started: subprocess.Popen[bytes] | None
    ) -> None:
        number = job.number
        self.job = job
        self._lock = folder.job_lock(number)
        self._pid = folder.pid(number)
        self._started = started
        self._stop_at: float | None = None  # when it was told to stop; by the monotonic clock
        self._n_stops = 0
        self.events = EventReader(folder.events(number))

    @classmethod
    def start(
        cls, folder: ServiceFolder, job: Job, words: Sequence[str], storage: str
    ) -> JobProcess:
        """Starts the search of a job; where it runs already, that is taken.

        Args:
            words: of the command, without the program's name.
            storage: the URL of the database; it may have a password, which others would read among
                the words of a process.

        Raises:
            OSError: if it cannot be started.
        """
        number = job.number
        folder.jobs.mkdir(mode=0o700, parents=True, exist_ok=True)  # somebody may have deleted it
        lock = take_lock(folder.job_lock(number))
        if lock is None:
            return cls(folder, job, None)
        folder.pid(number).unlink(missing_ok=True)
        if job.n_starts == 1:  # what is there is of a database that was deleted since
            folder.events(number).unlink(missing_ok=True)
            folder.log(number).unlink(missing_ok=True)
        try:
            with (
                _appended(folder.events(number)) as events,
                _appended(folder.log(number)) as log,
            ):
                line = json.dumps({"event": START, "attempt": job.n_starts})
                os.write(events.fileno(), line.encode() + b"\n")
                program = (sys.executable, "-m", "search", *words, "--json")
                told = {"SEARCH_STORAGE": storage, "SEARCH_JOB": str(number)}
                process = subprocess.Popen(
                    ["/bin/sh", "-c", _SCRIPT, str(folder.pid(number).resolve()), *program],
                    env={**os.environ, **python_settings(), **told},
                    stdin=subprocess.DEVNULL,
                    stdout=events,
                    stderr=log,
                    start_new_session=True,
                    pass_fds=[lock],
                )
        finally:
            os.close(lock)
        return cls(folder, job, process)

    @classmethod
    def adopt(cls, folder: ServiceFolder, job: Job) -> JobProcess:
        """The process of a job that an earlier server started; it may have ended."""
        return cls(folder, job, None)

    @property
    def is_running(self) -> bool:
        if self._started is not None:
            return self._started.poll() is None
        return is_locked(self._lock)

    @property
    def owner(self) -> Owner | None:
        """What marks the process; None where it has not begun, or has ended."""
        pid = self._read_pid()
        with suppress(psutil.Error):
            return None if pid is None else owner_of(psutil.Process(pid))
        return None

    def end(self) -> JobEnd:
        """How it ended, once it has."""
        status = None if self._started is None else self._started.poll()
        return self.events.end(status, attempt=self.job.n_starts)

    def stop(self) -> None:
        """Has it stop, as Ctrl-C does; to be called again and again until it has.

        Where it does not hear it is told once more and, after a minute and a half, killed.
        """
        now = time.monotonic()
        if self._stop_at is None:
            self._stop_at = now
        elapsed = now - self._stop_at
        if elapsed >= _KILL_SECONDS:
            self._signal(signal.SIGKILL)
        elif elapsed >= self._n_stops * _AGAIN_SECONDS and self._signal(signal.SIGINT):
            self._n_stops += 1

    def _signal(self, number: signal.Signals) -> bool:
        """Sends a signal; false where the process has not told its identifier yet, or has ended."""
        pid = self._read_pid()
        if pid is None or not self.is_running:
            return False
        with suppress(ProcessLookupError):
            if number == signal.SIGKILL:  # it leads a group of its own
                os.killpg(pid, number)
            else:
                os.kill(pid, number)
            return True
        return False

    def _read_pid(self) -> int | None:
        if self._started is not None:
            return self._started.pid
        with suppress(OSError, ValueError):
            return int(self._pid.read_text())
        return None


def _appended(path: Path) -> FileIO:
    """A file to append whole lines to: the last one may be the half of one that was killed."""
    file = path.open("ab+", buffering=0)
    os.fchmod(file.fileno(), 0o600)
    size = file.seek(0, os.SEEK_END)
    if size:
        file.seek(size - 1)
        if file.read(1) != b"\n":
            file.write(b"\n")
    return file
