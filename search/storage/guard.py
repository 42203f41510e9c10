"""Whether the file behind the connections to a SQLite database is still the one at its path.

SQLite goes on writing to a file that was deleted, or in whose place another was moved, and what it
writes is gone when its last connection closes.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from itertools import count
from pathlib import Path

from search.exceptions import DatabaseError
from search.files import whole_file

_LOGS = ("-wal", "-shm")  # of SQLite, beside a database that is in use


class FileGuard:
    """Holds a database file open, tells when it is no longer at its path, and saves what it has.

    Args:
        path: of a database that is there.
        timeout: how long a lock is waited for, in seconds.

    Raises:
        DatabaseError: if it is replaced at this very moment.
    """

    def __init__(self, path: Path, *, timeout: float) -> None:
        self._path = path.resolve()
        self._identity = _identity(self._path)
        self._logs: dict[Path, tuple[int, int] | None] = {}
        self._lost: str | None = None
        # Its own: whatever else is opened later may be another file.
        self._connection = sqlite3.connect(
            f"{self._path.as_uri()}?mode=rw", uri=True, check_same_thread=False, timeout=timeout
        )
        try:  # which opens the logs, too: once the file is gone they are not found
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.Error:  # whoever writes first hears of it
            pass
        self.check()

    @property
    def is_lost(self) -> bool:
        """Whether the file was found to be gone."""
        return self._lost is not None

    def check(self) -> None:
        """Raises DatabaseError where the file is gone or another, once what it has is saved."""
        if self._lost is None:
            if self._identity is not None and _identity(self._path) == self._identity:
                logs = [self._path.with_name(self._path.name + each) for each in _LOGS]
                self._logs = {log: _identity(log) for log in logs}
                return
            self._lost = self._save()
        raise DatabaseError(self._lost)

    def close(self) -> None:
        self._connection.close()

    def _save(self) -> str:
        """Copies what the lost file has; returns what there is to say."""
        what = "is another file now" if self._path.exists() else "was deleted"
        text = f"The database must stay while it is used, but {self._path} {what}. "
        saved = self._free_path()
        try:
            with whole_file(saved) as temporary, closing(sqlite3.connect(temporary)) as copy:
                self._connection.backup(copy)
                copy.execute("PRAGMA journal_mode=DELETE")  # the copy is one file
        except (sqlite3.Error, OSError) as error:
            return f"{text}What it held could not be saved ({error})."
        finally:
            # Whoever opens the new file would take the old one's log for its own.
            for log, identity in self._logs.items():
                with suppress(OSError):
                    if identity is not None and _identity(log) == identity:
                        log.unlink()
        return (
            f"{text}All that it held is saved in {saved}: move that to the place of the database, "
            "and the same command goes on."
        )

    def _free_path(self) -> Path:
        folder = self._path.parent if self._path.parent.is_dir() else Path.cwd()
        names = (f"{self._path.stem}-saved{'' if n == 1 else f'-{n}'}" for n in count(1))
        paths = (folder / f"{name}{self._path.suffix}" for name in names)
        return next(path for path in paths if not path.exists())


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from all others, whatever its name; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
