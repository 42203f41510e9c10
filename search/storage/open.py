"""A storage URL opened as an Optuna storage: a SQLite file, or a database server.

SQLite is opened so that a dashboard can read while a search writes: write-ahead log (WAL), a
busy timeout in place of "database is locked", and no wait for the disk at each commit
(`synchronous=NORMAL`: in WAL mode a power cut may take the last commits, never the file).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import RDBStorage
from sqlalchemy import event
from sqlalchemy.engine import URL
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    IntegrityError,
    NoSuchModuleError,
    SQLAlchemyError,
)

from search.exceptions import DatabaseError, StorageError
from search.files import whole_file
from search.storage.retrying import RetryingStorage, Waiting, reason_of, without_secrets
from search.wording import install_words

_BUSY_TIMEOUT_SECONDS = 60
_CHECKPOINT_MILLISECONDS = 500
_CONNECT_TIMEOUT_SECONDS = 10
# A server whose host vanished without a word is noticed after about a minute.
_KEEPALIVE = {
    "keepalives_idle": 30,  # seconds
    "keepalives_interval": 10,  # seconds
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,  # milliseconds
}
_N_LOOKS, _LOOK_SECONDS = 20, 0.25  # at a database that another process makes
_LOCK_CLASS = 0x5EA4C4  # of all locks in a server's database, those of this package
_SMALLEST_PAGE = 512  # bytes of a SQLite file that is not empty


def shown_url(url: str) -> str:
    """The URL as it may be printed: without its password.

    Raises:
        StorageError: if it is not a URL.
    """
    return without_secrets(_parse(url))


def has_studies(url: str) -> bool:
    """Whether there is a database at `url` that holds studies. Writes nothing.

    Raises:
        StorageError: if a database is there and cannot be opened.
    """
    parsed = _parse(url)
    if parsed.get_backend_name() == "sqlite":
        if not Path(parsed.database or "").is_file():
            return False
        _check_sqlite_file(parsed, create=False, write=False)
    return "studies" in _table_names(parsed)


def _table_names(parsed: URL) -> list[str]:
    engine = sqlalchemy.create_engine(parsed, connect_args=_connect_args(parsed))
    try:
        return sqlalchemy.inspect(engine).get_table_names()
    except SQLAlchemyError as error:
        raise _cannot_open(parsed, error) from error
    finally:
        engine.dispose()


def sqlite_path(url: str) -> Path | None:
    """The file of a SQLite storage; None for another database."""
    parsed = _parse(url)
    return Path(parsed.database or "") if parsed.get_backend_name() == "sqlite" else None


def database_label(url: str) -> str:
    """A name for a folder, which tells a database from others: its own name and a few digits.

    For a server they follow from host, port and database, whoever logs in by whatever driver, and
    for SQLite from the file's resolved path.
    """
    parsed = _parse(url)
    path = sqlite_path(url)
    if path is not None:
        path = path.resolve()
        name, place = path.name, str(path)
    else:
        # A socket's folder, or several hosts, stand in the query.
        host, port = (parsed.query.get(key, "") for key in ("host", "port"))
        name = parsed.database or ""
        values = (parsed.get_backend_name(), parsed.host or host, parsed.port or port, name)
        place = json.dumps(values)
    digits = hashlib.sha256(place.encode()).hexdigest()[:12]
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', name)[:100].strip('.')}-{digits}"


@contextmanager
def opened_storage(
    url: str, *, create: bool = False, write: bool = False, waiting: Waiting | None = None
) -> Iterator[RetryingStorage]:
    """The storage at `url`, closed when the context ends.

    Args:
        create: whether to create the database, or Optuna's tables in it, where they are missing.
        write: whether something is going to be written; `create` implies it.
        waiting: for a server that goes away while the context lasts; by default, there is none.

    Raises:
        StorageError: if it cannot be opened; nothing is written then.
    """
    parsed = _parse(url)
    write = write or create
    is_sqlite = parsed.get_backend_name() == "sqlite"
    if is_sqlite:
        _check_sqlite_file(parsed, create=create, write=write)
    storage = _open(parsed, waiting or Waiting(), create=create)
    if is_sqlite and write:
        event.listen(storage.engine, "connect", _set_pragmas)
    elif storage.has_locks:
        event.listen(storage.engine, "connect", _use_utc)
    storage.engine.dispose()  # what is connected already has not heard of it
    try:
        yield storage
    finally:
        storage.remove_session()
        if is_sqlite and write:
            _checkpoint(storage)
        storage.engine.dispose()


def backup(url: str, path: Path) -> None:
    """Writes a whole copy of a SQLite database to `path`, also while a search writes to it.

    Raises:
        StorageError: if it is another database, or `path` cannot be written or is there already.
        DatabaseError: if the database cannot be read, or the copy is not whole.
    """
    parsed = _parse(url)
    if parsed.get_backend_name() != "sqlite":
        program = "pg_dump" if parsed.get_backend_name() == "postgresql" else "its own program"
        raise StorageError(
            f"A database that is copied must be a SQLite file, but {without_secrets(parsed)} is on "
            f"a server; copy it with {program}, which the server's installation brings."
        )
    _check_sqlite_file(parsed, create=False, write=False)
    _check_schema(parsed, create=False, may_be_half_made=True)
    if path.exists() or path.is_symlink():
        raise StorageError(f"A copy must be a new file, but {path} is there; name another.")
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
            closing(sqlite3.connect(f"{source.as_uri()}?mode=rw", uri=True)) as live,
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


def _open(parsed: URL, waiting: Waiting, *, create: bool) -> RetryingStorage:
    """The storage, once whoever else makes its tables at the same time is done."""
    for is_last in [False] * _N_LOOKS + [True]:
        try:
            _check_schema(parsed, create=create, may_be_half_made=is_last)
            return RetryingStorage(
                parsed,
                waiting,
                connect_args=_connect_args(parsed),
                pool_pre_ping=parsed.get_backend_name() != "sqlite",
            )
        except _HalfMadeError:
            pass
        except AssertionError:  # Optuna, of a table that has no row yet
            if is_last:
                raise
        except (SQLAlchemyError, RuntimeError) as error:
            is_race = isinstance(error, IntegrityError) or "already exists" in str(error)
            if is_last or not is_race:
                raise _cannot_open(parsed, error) from error
        time.sleep(_LOOK_SECONDS)
    raise AssertionError  # the last look ends one way or the other


class _HalfMadeError(Exception):
    """A database that has some of Optuna's tables: another process makes the others just now."""


class ServerLock:
    """A lock of a database server, which one process alone can hold.

    It is PostgreSQL's, which frees it when the connection ends, however it ends: when this process
    dies, but also when the server restarts or takes a machine that slept for lost. Other servers
    have none here, and the answer is always yes.
    """

    def __init__(self, url: str, number: int) -> None:
        self._parsed = _parse(url)
        self._number = number
        self._engine: sqlalchemy.Engine | None = None
        self._connection: sqlalchemy.Connection | None = None
        if self._parsed.get_backend_name() == "postgresql":
            self._engine = sqlalchemy.create_engine(
                self._parsed,
                connect_args=_connect_args(self._parsed),
                isolation_level="AUTOCOMMIT",
            )

    def is_ours(self) -> bool:
        """Whether this process holds the lock, after having tried to take it.

        Raises:
            StorageError: if the database cannot be reached.
        """
        if self._engine is None:
            return True
        # Whoever holds it already gets it again.
        statement = sqlalchemy.text("SELECT pg_try_advisory_lock(:application, :number)")
        values = {"application": _LOCK_CLASS, "number": self._number}
        for is_last in (False, True):
            try:
                if self._connection is None:
                    self._connection = self._engine.connect()
                return bool(self._connection.scalar(statement, values))
            except SQLAlchemyError as error:
                self._disconnect()
                if is_last:
                    raise _cannot_open(self._parsed, error) from error
        raise AssertionError  # the last try ends one way or the other

    def release(self) -> None:
        """Frees the lock, where this process holds it."""
        self._disconnect()
        if self._engine is not None:
            self._engine.dispose()

    def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(SQLAlchemyError):  # one that broke has nothing to give back
                self._connection.invalidate()
                self._connection.close()
        self._connection = None


def _parse(url: str) -> URL:
    try:
        parsed = sqlalchemy.make_url(url)
        parsed.get_dialect()
    except NoSuchModuleError as error:  # an ArgumentError, too
        raise StorageError(
            f"A storage must be a database that SQLAlchemy knows, but got {parsed.drivername!r}; "
            "use sqlite:///FILE or postgresql+psycopg://user@host/database."
        ) from error
    except (ArgumentError, ValueError) as error:  # the latter for a port that is no number
        raise StorageError(
            "A storage must be a URL, as sqlite:///studies.db or "
            "postgresql+psycopg://user@host/database, but got another text."
        ) from error
    try:
        parsed.get_dialect().import_dbapi()
    except ImportError as error:
        raise StorageError(
            f"{parsed.drivername} needs a driver that is not installed ({error}); install it. For "
            f"PostgreSQL that is: {install_words('postgresql')}."
        ) from error
    return parsed


def _connect_args(parsed: URL) -> dict[str, Any]:
    if parsed.get_backend_name() == "sqlite":
        return {"timeout": _BUSY_TIMEOUT_SECONDS}
    if parsed.get_driver_name() in ("psycopg", "psycopg2"):
        return {"connect_timeout": _CONNECT_TIMEOUT_SECONDS, **_KEEPALIVE}
    return {}


def _check_sqlite_file(parsed: URL, *, create: bool, write: bool) -> None:
    database = parsed.database or ""
    if database in ("", ":memory:") or database.startswith("file:"):
        raise StorageError(
            f"A SQLite storage must be a file, so that nothing is lost, but got {database!r}; use "
            "sqlite:///studies.db."
        )
    path = Path(database)
    if not path.exists():
        if not create:
            raise StorageError(
                f"There is no database {path}; 'search run' creates it, and --storage (or "
                "SEARCH_STORAGE) names another."
            )
        if not path.parent.is_dir():
            raise StorageError(
                f"The folder of a new database must exist, but {path.parent} does not; create it."
            )
        if not os.access(path.parent, os.W_OK):
            raise StorageError(
                f"The folder of a new database must be writable, but {path.parent} is not; name "
                "another file with --storage sqlite:///FILE."
            )
        return
    if write and not os.access(path, os.W_OK):
        raise StorageError(
            f"The database must be writable, but {path} is read-only; change its rights, or name "
            "another file with --storage sqlite:///FILE."
        )
    # Not by reading it: to close a file drops all locks that this process has on it, SQLite's, too.
    if not path.is_file() or not os.access(path, os.R_OK):
        why = "its rights forbid it" if path.is_file() else "it is none"
        raise StorageError(
            f"The database must be a readable file, but {path} is not ({why}); name another file "
            "with --storage sqlite:///FILE."
        )
    if 0 < path.stat().st_size < _SMALLEST_PAGE:  # SQLite takes a file of one byte for empty
        raise _no_sqlite_file(database)


def _no_sqlite_file(database: str | None) -> StorageError:
    return StorageError(
        f"The database must be a SQLite file, but {database} is something else; name another file "
        "with --storage sqlite:///FILE."
    )


def _check_schema(parsed: URL, *, create: bool, may_be_half_made: bool) -> None:
    """Looks before Optuna does, which would create its tables in whatever it finds."""
    if parsed.get_backend_name() == "sqlite" and not Path(str(parsed.database)).exists():
        return
    engine = sqlalchemy.create_engine(parsed, connect_args=_connect_args(parsed))
    try:
        with engine.connect() as connection:
            tables = sqlalchemy.inspect(connection).get_table_names()
            found = None
            if "version_info" in tables and "alembic_version" in tables:
                found = connection.scalar(
                    sqlalchemy.text("SELECT version_num FROM alembic_version")
                )
            if found is None and "studies" in tables and not may_be_half_made:
                raise _HalfMadeError
            if found is not None:
                ours = RDBStorage("sqlite://")
                wanted = ours.get_head_version()
                if found not in ours.get_all_versions():
                    raise StorageError(
                        f"The database must have the tables of Optuna {optuna.__version__} "
                        f"(schema {wanted}), but those of {without_secrets(parsed)} are of schema "
                        f"{found}, which a newer version made; install that with 'pip install -U "
                        "optuna', or name another with --storage."
                    )
                if found != wanted:
                    raise StorageError(
                        f"The database must have the tables of Optuna {optuna.__version__} "
                        f"(schema {wanted}), but those of {without_secrets(parsed)} are of schema "
                        f"{found}; make a copy of it, then upgrade it with 'optuna storage "
                        f"upgrade --storage {without_secrets(parsed)}', or name another with "
                        "--storage."
                    )
            elif (tables and parsed.get_backend_name() == "sqlite") or not create:
                raise StorageError(
                    f"The database must hold Optuna's tables, but {without_secrets(parsed)} does "
                    "not; name another with --storage."
                )
    except SQLAlchemyError as error:
        raise _cannot_open(parsed, error) from error
    finally:
        engine.dispose()


def _cannot_open(parsed: URL, error: Exception) -> StorageError:
    code = getattr(error.orig, "sqlite_errorcode", None) if isinstance(error, DBAPIError) else None
    if code == sqlite3.SQLITE_NOTADB:
        return _no_sqlite_file(parsed.database)
    return StorageError(
        f"The storage {without_secrets(parsed)} cannot be opened: {reason_of(error, parsed)}. "
        "Check the address, the rights and the room on the disk, or name another with --storage."
    )


def _set_pragmas(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _use_utc(connection: Any, _record: object) -> None:
    """Heartbeats are times of day without a zone, and an hour of summer time is not silence."""
    cursor = connection.cursor()
    cursor.execute("SET TIME ZONE 'UTC'")
    cursor.close()
    connection.commit()


def _checkpoint(storage: RDBStorage) -> None:
    """Moves the write-ahead log into the file, so that it alone is whole.

    Where a reader holds the log open, it is not waited for; the last one to close does it then.
    """
    try:
        with storage.engine.connect() as connection:
            connection.exec_driver_sql(f"PRAGMA busy_timeout={_CHECKPOINT_MILLISECONDS}")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    except SQLAlchemyError:
        pass
