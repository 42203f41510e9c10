"""What is at a storage URL, looked at before Optuna opens it: a file, and whose tables.

Optuna would create its tables in whatever it finds.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

import optuna
import sqlalchemy
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from search.exceptions import StorageError
from search.storage.connections import engine_options
from search.storage.errors import cannot_open, no_sqlite_file
from search.storage.urls import parse_url, without_secrets

_SMALLEST_PAGE = 512  # bytes of a SQLite file that is not empty


class HalfMadeError(Exception):
    """A database that has some of Optuna's tables: another process makes the others just now."""


def has_studies(url: str) -> bool:
    """Whether there is a database at `url` that holds studies. Writes nothing.

    Raises:
        StorageError: if a database is there and cannot be opened.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        if not Path(parsed.database or "").is_file():
            return False
        check_sqlite_file(parsed, create=False, write=False)
    engine = sqlalchemy.create_engine(parsed, **engine_options(parsed))
    try:
        return "studies" in sqlalchemy.inspect(engine).get_table_names()
    except SQLAlchemyError as error:
        raise cannot_open(parsed, error) from error
    finally:
        engine.dispose()


def check_sqlite_file(url: URL, *, create: bool, write: bool) -> None:
    """Raises StorageError where a file cannot be used as it is to be: made, written or read."""
    database = url.database or ""
    if database in ("", ":memory:") or database.startswith("file:"):
        raise StorageError(
            f"A SQLite storage must be a file, so that nothing is lost, but got {database!r}; use "
            "sqlite:///studies.db."
        )
    path = Path(database)
    if not path.exists():
        if not create:
            raise StorageError(
                f"There is no database {path}; 'search run', 'search submit' or 'search serve' "
                "creates it, and --storage (or SEARCH_STORAGE) names another."
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
        check_no_log(path)
        return
    if write and not os.access(path, os.W_OK):
        raise StorageError(
            f"The database must be writable, but {path} is read-only; change its rights, or name "
            "another file with --storage sqlite:///FILE."
        )
    file = path.resolve()
    if write and path.is_file() and not os.access(file.parent, os.W_OK):
        raise StorageError(
            "The folder of a database that is written must be writable, as SQLite keeps its log "
            f"there, but {file.parent} is not; change its rights, or name another file "
            "with --storage sqlite:///FILE."
        )
    logs = (file.with_name(f"{file.name}-{end}") for end in ("wal", "shm"))
    closed = next((log for log in logs if log.exists() and not os.access(log, os.W_OK)), None)
    if write and closed is not None:
        raise StorageError(
            f"SQLite's log beside a database that is written must be writable, but {closed} is "
            "not: another user made it, perhaps; have him change its rights."
        )
    # Not by reading it: to close a file drops all locks that this process has on it, SQLite's, too.
    if not path.is_file() or not os.access(path, os.R_OK):
        why = "its rights forbid it" if path.is_file() else "it is none"
        raise StorageError(
            f"The database must be a readable file, but {path} is not ({why}); name another file "
            "with --storage sqlite:///FILE."
        )
    if 0 < path.stat().st_size < _SMALLEST_PAGE:  # SQLite takes a file of one byte for empty
        raise no_sqlite_file(database)


def check_no_log(path: Path) -> None:
    """Raises StorageError where SQLite would take another database's log for that of a new file.

    It would write it into the new one, or delete it. It may hold what was stored last in a database
    that was moved away without it.
    """
    log = log_left(path)
    if log is not None and not path.exists():  # else another process has made the file just now
        raise StorageError(
            f"A new database must have no other's log beside it, but {log} is there: move it to "
            "where its database was moved, delete it if that was deleted, or name another file."
        )


def log_left(path: Path) -> Path | None:
    """A file that SQLite would take for the log of the database at `path`; None without one."""
    file = os.path.realpath(path)  # which takes links that lead in a circle, too
    logs = (Path(f"{file}-{end}") for end in ("wal", "journal"))
    return next(filter(os.path.lexists, logs), None)


def check_schema(url: URL, *, create: bool, write: bool, may_be_half_made: bool) -> bool:
    """Whether a database has Optuna's tables, of this version; with `create` it may have none yet.

    Raises:
        HalfMadeError: if some are missing, unless it `may_be_half_made`.
        StorageError: if there are others, or the database cannot be opened, or is to be written
            and its server lets this user only read.
    """
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists():
        return False
    engine = sqlalchemy.create_engine(url, **engine_options(url))
    try:
        with engine.connect() as connection:
            tables = sqlalchemy.inspect(connection).get_table_names()
            found = None
            if "version_info" in tables and "alembic_version" in tables:
                found = connection.scalar(
                    sqlalchemy.text("SELECT version_num FROM alembic_version")
                )
            if write and connection.dialect.name == "postgresql":
                _check_rights(connection, url, is_made="studies" in tables)
    except SQLAlchemyError as error:
        raise cannot_open(url, error) from error
    finally:
        engine.dispose()
    if found is not None:
        _check_version(url, found)
    elif "studies" in tables and not may_be_half_made:
        raise HalfMadeError
    elif (tables and url.get_backend_name() == "sqlite") or not create:
        raise StorageError(
            f"The database must hold Optuna's tables, but {without_secrets(url)} does "
            "not; name another with --storage."
        )
    return found is not None


def _check_rights(connection: Connection, url: URL, *, is_made: bool) -> None:
    """Raises StorageError where PostgreSQL would refuse what this user writes."""
    rights = (
        "has_table_privilege('studies', 'INSERT') AND has_table_privilege('trials', 'UPDATE')"
        if is_made
        else "COALESCE(has_schema_privilege(current_schema(), 'CREATE'), false)"
    )
    asked = sqlalchemy.text(f"SELECT current_setting('transaction_read_only') = 'on', {rights}")
    is_read_only, has_rights = connection.execute(asked).one()
    if not is_read_only and has_rights:
        return
    why = "its transactions are read-only" if is_read_only else "this user may only read there"
    raise StorageError(
        f"The database must take what is written, but {without_secrets(url)} does not ({why}); "
        "have its owner grant the rights, or name another with --storage."
    )


@functools.cache
def _migrations() -> ScriptDirectory:
    """Those of this Optuna, without a storage, which would make its tables to tell."""
    return ScriptDirectory(Path(optuna.storages.__path__[0]) / "_rdb" / "alembic")


@functools.cache
def _own_schema() -> str | None:
    """The schema that this Optuna makes."""
    return _migrations().get_current_head()


def _check_version(url: URL, found: str) -> None:
    wanted = _own_schema()
    if found == wanted:
        return
    rule = (
        f"The database must have the tables of Optuna {optuna.__version__} (schema {wanted}), but "
        f"those of {without_secrets(url)} are of schema {found}"
    )
    if found not in {migration.revision for migration in _migrations().walk_revisions()}:
        raise StorageError(
            f"{rule}, which a newer version made; install that with 'pip install -U optuna', or "
            "name another with --storage."
        )
    raise StorageError(
        f"{rule}; make a copy of it, then upgrade it with 'optuna storage upgrade --storage "
        f"{without_secrets(url)}', or name another with --storage."
    )
