"""A whole copy of a SQLite database, also while a search writes to it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from search.exceptions import DatabaseError, StorageError
from search.files import whole_file
from search.storage.checks import check_no_log, check_schema, check_sqlite_file
from search.storage.connections import connect_without_log, takes_no_log
from search.storage.urls import parse_url, without_secrets


def backup(url: str, path: Path) -> None:
    """Copies the SQLite database at `url` to `path`.

    Raises:
        StorageError: if it is another database, or `path` cannot be written or is there already.
        DatabaseError: if the database cannot be read, or the copy is not whole.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() != "sqlite":
        program = "pg_dump" if parsed.get_backend_name() == "postgresql" else "its own program"
        raise StorageError(
            f"A database that is copied must be a SQLite file, but {without_secrets(parsed)} is on "
            f"a server; copy it with {program}, which the server's installation brings."
        )
    check_sqlite_file(parsed, create=False, write=False)
    check_schema(parsed, create=False, write=False, may_be_half_made=True)
    if path.exists() or path.is_symlink():
        raise StorageError(f"A copy must be a new file, but {path} is there; name another.")
    check_no_log(path)
    source = Path(str(parsed.database)).resolve()
    try:
        with whole_file(path) as temporary:
            _copy(source, temporary)
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise _damaged(source, str(error)) from error
        raise _cannot_copy(path, error) from error
    except (sqlite3.Error, OSError) as error:
        raise _cannot_copy(path, error) from error


def _copy(source: Path, target: Path) -> None:
    try:
        with (
            closing(_connect(source)) as live,
            closing(sqlite3.connect(target)) as copy,
        ):
            copy.execute("PRAGMA synchronous=OFF")  # what is written is flushed at the end
            live.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # the copy is one file
            (answer,) = copy.execute("PRAGMA integrity_check").fetchone()
            if answer != "ok":
                raise _damaged(source, answer)
    finally:
        target.with_name(f"{target.name}-journal").unlink(missing_ok=True)


def _connect(source: Path) -> sqlite3.Connection:
    if takes_no_log(source):
        return connect_without_log(source)
    return sqlite3.connect(f"{source.as_uri()}?mode=rw", uri=True)


def _damaged(source: Path, why: str) -> DatabaseError:
    return DatabaseError(
        f"A database that is copied must be whole, but {source} is damaged: {why}. "
        "'sqlite3 FILE .recover' may save what is in it."
    )


def _cannot_copy(path: Path, error: Exception) -> StorageError:
    if not path.parent.is_dir():
        return StorageError(
            f"A copy must be in a folder that is there, but {path.parent} is not; make it, or name "
            "another file."
        )
    return StorageError(
        f"A copy must be a file that can be written, but {path} cannot be ({error}); make room, or "
        "name another."
    )
