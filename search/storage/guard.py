"""Whether the file behind the connections to a SQLite database is still the one at its path.

SQLite goes on writing to a file that was deleted or cut short, or in whose place another was moved,
and what it writes is gone when its last connection closes. So it is with the log beside the file,
which holds what was written last.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from search.exceptions import DatabaseError
from search.files import whole_file
from search.storage.checks import log_left

_LOGS = ("-wal", "-shm")  # of SQLite, beside a database that is in use


@dataclass(frozen=True, slots=True)
class _Found:
    """A file as it is now.

    Args:
        identity: what tells it from all others, whatever its name.
    """

    identity: tuple[int, int]
    n_bytes: int


class FileGuard:
    """Holds a database file open, tells when it or its log is no longer what it was, and saves it.

    Args:
        path: of a database that is there.
        timeout: how long a lock is waited for, in seconds.

    Raises:
        DatabaseError: if it is replaced at this very moment.
    """

    def __init__(self, path: Path, *, timeout: float) -> None:
        self._path = path.resolve()
        self._logs: list[Path] = []
        self._known: dict[Path, _Found] = {}
        self._lost: str | None = None
        self._is_closed = False
        # Its own: whatever else is opened later may be another file.
        before = _found(self._path)
        self._connection = sqlite3.connect(
            f"{self._path.as_uri()}?mode=rw", uri=True, check_same_thread=False, timeout=timeout
        )
        self._schema: int | None = None
        try:  # which opens the logs, too: once the file is gone they are not found
            (mode,) = self._connection.execute("PRAGMA journal_mode=WAL").fetchone()
            self._schema = self._pragma("schema_version")
            if mode == "wal":  # else the last one to close deletes the logs, whoever that is
                self._logs = [self._path.with_name(self._path.name + each) for each in _LOGS]
        except sqlite3.Error:  # whoever writes first hears of it
            pass
        if before is not None:
            self._known[self._path] = before
        self.check()

    @property
    def is_lost(self) -> bool:
        """Whether the file was found to be gone."""
        return self._lost is not None

    def check(self) -> None:
        """Raises DatabaseError where the file is gone or another, once what it has is saved."""
        if self._lost is None:
            # Once it is closed, the last connection deletes the logs.
            what = None if self._is_closed else self._what_happened()
            if what is None:
                return
            self._lost = self._save(what)
        raise DatabaseError(self._lost)

    def check_whole(self) -> None:
        """Raises DatabaseError where what the file has cannot all be read any more."""
        if (damage := self._damage()) is not None:
            raise DatabaseError(
                f"The database must be whole, but {self._path} was damaged while it was used "
                f"({damage}). If 'search backup' has made a copy of it, move that to its place."
            )

    def _damage(self) -> str | None:
        """What is wrong in the file, in a few words; None where that cannot be told now."""
        try:
            self._connection.execute("PRAGMA shrink_memory")  # what it has read may be gone
            return _first_fault(self._pragma("quick_check(1)"))
        except sqlite3.OperationalError:  # a lock, or want of memory
            return None
        except sqlite3.Error as error:
            return str(error)

    def close(self) -> None:
        self._is_closed = True
        self._connection.close()

    def _what_happened(self) -> str | None:
        """What was done to the file or to its logs, in words; None where nothing was."""
        for path in (self._path, *self._logs):
            before, now = self._known.get(path), _found(path)
            if before is None and path != self._path:  # a log that is new
                if now is not None:
                    self._known[path] = now
                continue
            if now is None:
                return f"{path} was deleted"
            if before is None or now.identity != before.identity:
                return f"{path} is another file now"
            if now.n_bytes < before.n_bytes and not self._is_whole(path, now):
                return f"{path} was cut short"
            self._known[path] = now
        return None

    def _is_whole(self, path: Path, now: _Found) -> bool:
        """Whether a file that is shorter than it was has all that was written all the same.

        A log is cut when all of it has gone into the file. The file is shortened by VACUUM, which
        changes the version of the schema as no older copy has it, and where it vacuums itself.
        """
        if path == self._path and not now.n_bytes:
            return False
        try:
            self._connection.execute("PRAGMA shrink_memory")  # what it has read may be gone
            if self._pragma("quick_check(1)") != "ok":
                return False
            if path != self._path or self._pragma("auto_vacuum"):
                return True
            before, self._schema = self._schema, self._pragma("schema_version")
            return before != self._schema
        except sqlite3.OperationalError as error:
            # A lock, or want of memory, says nothing of the file.
            return error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_IOERR
        except sqlite3.Error:
            return False

    def _pragma(self, name: str) -> Any:
        (value,) = self._connection.execute(f"PRAGMA {name}").fetchone()
        return value

    def _save(self, what: str) -> str:
        """Copies what the lost file has; returns what there is to say."""
        text = f"The database must stay as it is while it is used, but {what}. "
        first_error: Exception | None = None
        try:
            for saved in self._free_paths():
                try:
                    self._copy_to(saved)
                except (sqlite3.Error, OSError) as error:
                    first_error = first_error or error
                else:
                    elsewhere = f", not beside it ({first_error})" if first_error else ""
                    return (
                        f"{text}All that it held is saved in {saved}{elsewhere}: move that to the "
                        "place of the database, and the same command goes on."
                    )
        finally:
            # Whoever opens the new file would take the old one's log for its own.
            for log in self._logs:
                known, now = self._known.get(log), _found(log)
                with suppress(OSError):
                    if known is not None and now is not None and known.identity == now.identity:
                        log.unlink()
        text += f"What it held could not be saved ({first_error}). "
        if _found(self._path) is None:
            return f"{text}If 'search backup' has made a copy of it, move that to its place."
        # As it is closed, what its log has goes into a file that was written over.
        return (
            f"{text}Look first what {self._path} has now, with 'search studies'; if that is not "
            "all, and 'search backup' has made a copy of it, move that to its place."
        )

    def _copy_to(self, saved: Path) -> None:
        """Copies what the lost file has into one that is whole.

        Raises:
            sqlite3.Error: if a part of it is lost, or the copy cannot be written.
            OSError: if the copy cannot be written.
        """
        with whole_file(saved) as temporary, closing(sqlite3.connect(temporary)) as copy:
            self._connection.backup(copy)
            (state,) = copy.execute("PRAGMA quick_check(1)").fetchone()
            if (fault := _first_fault(state)) is not None:
                raise sqlite3.DatabaseError(f"a part is lost: {fault}")
            copy.execute("PRAGMA journal_mode=DELETE")  # the copy is one file

    def _free_paths(self) -> Iterator[Path]:
        """Where what the file has may be saved: beside it, else where a command finds it.

        A folder may have gone, be closed to this user by now, or have no room.
        """
        folders = [self._path.parent]
        for find in (Path.cwd, tempfile.gettempdir):
            with suppress(OSError):  # the working folder may have gone as well
                folders.append(Path(find()))
        for folder in dict.fromkeys(each for each in folders if each.is_dir()):
            names = (f"{self._path.stem}-saved{'' if n == 1 else f'-{n}'}" for n in count(1))
            paths = (folder / f"{name}{self._path.suffix}" for name in names)
            yield next(p for p in paths if not os.path.lexists(p) and log_left(p) is None)


def _first_fault(answer: str) -> str | None:
    """What SQLite's check of a file found first, which it says below a title; None for nothing."""
    return None if answer == "ok" else answer.strip().splitlines()[-1]


def _found(path: Path) -> _Found | None:
    """A file as it is now; None where there is none.

    A link in its place is another one: whoever follows it looks for the logs where it leads.
    """
    try:
        found = path.lstat()
    except OSError:
        return None
    return _Found((found.st_dev, found.st_ino), found.st_size)
