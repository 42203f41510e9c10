"""Where a server keeps what is not for the database: logs, tokens, its address, its locks.

Beside a SQLite database, in a folder with its name: `studies.db-service` beside `studies.db`. For a
database on a server that is a folder of the user's on this machine. It is the user's alone.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs

from search.exceptions import InputError, ServiceError
from search.files import write_text
from search.storage.urls import database_label, shown_url, sqlite_path

try:
    import fcntl
except ImportError:  # pragma: no cover
    fcntl = None  # type: ignore[assignment]

_N_TRIES, _RETRY_SECONDS = 5, 0.1


def try_lock(path: Path) -> int | None:
    """Locks a file for as long as its descriptor is open, here or in a process that inherits it.

    Returns the descriptor; None where another has locked it.

    Raises:
        InputError: if this system or this file system has no such locks.
    """
    if fcntl is None:
        raise InputError(
            "A server must run on a system that locks files as POSIX does (Linux, macOS), but this "
            "one does not; run searches with 'search run'."
        )
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError as error:
        os.close(descriptor)
        raise InputError(
            f"The folder of a server must allow files that are locked, but {path} cannot be "
            f"({error}); put the database on a local disk."
        ) from error
    return descriptor


def take_lock(path: Path) -> int | None:
    """As `try_lock`, and again: who asks whether a file is locked has it for a moment."""
    for _ in range(_N_TRIES):
        descriptor = try_lock(path)
        if descriptor is not None:
            return descriptor
        time.sleep(_RETRY_SECONDS)
    return try_lock(path)


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of a file."""
    if fcntl is None:
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:  # shared: who looks as well is in nobody's way
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system that locks nothing
        return False
    finally:
        os.close(descriptor)
    return False


class ServiceFolder:
    """The folder of the server of a database, on this machine."""

    def __init__(self, url: str) -> None:
        self._url = url
        path = sqlite_path(url)
        if path is None:
            self.path = _user_state() / database_label(url)
        else:
            path = Path(os.path.realpath(path))  # a link's database is the one that it leads to
            self.path = path.with_name(f"{path.name}-service")

    @property
    def server_lock(self) -> Path:
        return self.path / "server.lock"

    def make(self) -> None:
        """Makes the folder, for this user alone.

        Raises:
            InputError: if it cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.path.chmod(0o700)
            self.jobs.mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(
                f"The folder of a server must be writable, but {self.path} is not "
                f"({error.strerror}); have it opened to this user."
            ) from error

    @property
    def jobs(self) -> Path:
        return self.path / "jobs"

    def log(self, number: int) -> Path:
        """What the search of a job printed for people."""
        return self.jobs / f"{number}.log"

    def events(self, number: int) -> Path:
        """What it printed for programs."""
        return self.jobs / f"{number}.events"

    def job_lock(self, number: int) -> Path:
        """The file that the process of a job holds locked as long as it lives."""
        return self.jobs / f"{number}.lock"

    def locked_jobs(self) -> list[int]:
        """The numbers of jobs whose process lives."""
        found = [path for path in self.jobs.glob("*.lock") if path.stem.isdecimal()]
        return sorted(int(path.stem) for path in found if is_locked(path))

    def pid(self, number: int) -> Path:
        """Where the process of a job has written its identifier."""
        return self.jobs / f"{number}.pid"

    def identity(self) -> str:
        """What tells the server of this folder from all others, also when it starts again."""
        path = self.path / "identity"
        with suppress(FileNotFoundError):
            found = path.read_text().strip()
            if found:
                return found
        made = secrets.token_hex(16)
        write_text(made, path)
        return made

    def has_identity(self) -> bool:
        """Whether a server ever ran on this machine."""
        return (self.path / "identity").is_file()

    def has_server(self) -> bool:
        """Whether a server runs on this machine."""
        return is_locked(self.server_lock)

    @contextmanager
    def announced(self, address: str) -> Iterator[None]:
        """Tells commands on this machine where the server is, as long as the context lasts."""
        path = self.path / "address"
        write_text(address, path)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)

    def address(self) -> str | None:
        """Where the server on this machine is; None where none runs, or it has yet to begin."""
        if not self.has_server():
            return None
        with suppress(OSError):
            return (self.path / "address").read_text()
        return None

    @contextmanager
    def only_server(self) -> Iterator[None]:
        """Lets no other server onto the queue, as long as the context lasts.

        On PostgreSQL each machine may have one.

        Raises:
            ServiceError: if there is one.
        """
        descriptor = take_lock(self.server_lock)
        if descriptor is None:
            who = self._server_pid()
            process = "another" if who is None else f"process {who}"
            raise ServiceError(
                f"One server at a time must serve a queue, but {process} serves that of "
                f"{shown_url(self._url)}; stop it first, or name another database with --storage."
            )
        try:
            (self.path / "address").unlink(missing_ok=True)  # of one that was killed
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
            yield
        finally:
            os.close(descriptor)

    def _server_pid(self) -> int | None:
        with suppress(OSError, ValueError):
            return int(self.server_lock.read_text())
        return None


def _user_state() -> Path:
    try:
        return platformdirs.user_state_path("budget-search")
    except (RuntimeError, KeyError) as error:
        raise InputError(
            "A server of a database on PostgreSQL must have a home directory, where it keeps logs "
            "and tokens, but this user has none; set HOME or XDG_STATE_HOME to a folder."
        ) from error
