"""What a database answers when it fails, and the errors of ours that say so: rule, reason, fix."""

from __future__ import annotations

import re
import sqlite3

from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

from search.exceptions import (
    DatabaseError,
    DatabaseUnreachableError,
    StorageError,
    StorageUnreachableError,
)
from search.storage.urls import hide_secrets, without_secrets

# It starts, ends or recovers, or has no connection left.
_FOR_A_WHILE = re.compile(
    "the database system is|too many (clients|connections)|remaining connection slots"
)
_REFUSED = re.compile(
    "FATAL.*(authentication failed|does not exist|no pg_hba|permission denied|not permitted to)"
)


def is_unreachable(error: SQLAlchemyError, url: URL) -> bool:
    """Whether an error says that a server cannot be reached, rather than that it refuses."""
    if url.get_backend_name() == "sqlite":
        return False
    if not isinstance(error, DBAPIError):
        return False
    return error.connection_invalidated or (
        # No connection could be made at all: there is no statement that failed.
        isinstance(error, OperationalError | InterfaceError) and error.statement is None
    )


def is_away(error: SQLAlchemyError, url: URL) -> bool:
    """Whether a server cannot be reached, or says that it takes no connections for a while.

    One that answers with another refusal, of a password perhaps, will do so again. Drivers tell the
    two apart by PostgreSQL's words alone; in other languages than English all count as refusals.
    """
    text = str(error)
    return is_unreachable(error, url) and ("FATAL" not in text or bool(_FOR_A_WHILE.search(text)))


def is_refused(error: SQLAlchemyError, url: URL) -> bool:
    """Whether a server says that it takes no connection as it is asked for.

    So it will tomorrow: the database was dropped, the password changed. Told by PostgreSQL's words,
    of other languages than English none: there a server that begins anew could not be told apart.
    """
    return is_unreachable(error, url) and bool(_REFUSED.search(str(error)))


def sql_state(error: DBAPIError) -> str | None:
    """PostgreSQL's code of an error, by whichever name its driver has for it."""
    return getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)


def reason_of(error: Exception, url: URL) -> str:
    """The first line of what a database says of an error, without the URL's secrets."""
    text = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    line = text.strip().splitlines()[0].rstrip(".") if text.strip() else type(error).__name__
    return hide_secrets(line, url)


def database_unreachable(url: URL, error: SQLAlchemyError) -> DatabaseUnreachableError:
    """Of a server that stays away."""
    return DatabaseUnreachableError(
        f"The database must answer while it is used, but {without_secrets(url)} does not: "
        f"{reason_of(error, url)}. Everything that it confirmed is kept; start it, "
        "and the same command goes on."
    )


def database_failed(url: URL, error: SQLAlchemyError) -> DatabaseError:
    """Of a database that answers, and refuses what is asked of it."""
    if _is_damage(error):
        return DatabaseError(
            f"The database must be whole, but {without_secrets(url)} answered: "
            f"{reason_of(error, url)}. If 'search backup' has made a copy of it, move that to its "
            "place, and the same command goes on."
        )
    match _sqlite_code(error):
        case sqlite3.SQLITE_FULL | sqlite3.SQLITE_IOERR:
            what = "must have room and a disk that works"
            fix = "make room on its disk"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            what = "must not be locked for longer than a minute"
            fix = "end the program that locks it"
        case _:
            what = "must take what is written and give what is read"
            fix = "mend that"
    return DatabaseError(
        f"The database {what}, but {without_secrets(url)} answered: {reason_of(error, url)}. "
        f"Everything that it confirmed is kept; {fix}, and the same command goes on."
    )


def _sqlite_code(error: Exception) -> int | None:
    """Which kind of error SQLite has; None of another database."""
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", None)
    return None if code is None else code & 0xFF  # the upper bytes say more


def _is_damage(error: Exception) -> bool:
    """Whether a SQLite file has lost what it held: it was written over, cut short or emptied."""
    code = _sqlite_code(error)
    is_emptied = code == sqlite3.SQLITE_ERROR and "no such table" in str(getattr(error, "orig", ""))
    return is_emptied or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def rows_unreadable(url: URL, error: Exception) -> DatabaseError:
    """Of a database that gives rows which Optuna cannot have written."""
    return DatabaseError(
        f"The database must hold what Optuna wrote, but in {without_secrets(url)} a row was "
        f"changed since or is damaged: {reason_of(error, url)}. Restore it from a copy that "
        "'search backup' made, or name another with --storage."
    )


def cannot_open(url: URL, error: Exception) -> StorageError:
    """Of a database that cannot be opened to begin with."""
    if _sqlite_code(error) == sqlite3.SQLITE_NOTADB:
        return no_sqlite_file(url.database)
    if _is_damage(error):
        return StorageError(
            f"The database must be whole, but {without_secrets(url)} answered: "
            f"{reason_of(error, url)}. If 'search backup' has made a copy of it, move that to its "
            "place, or name another with --storage."
        )
    may_come_back = isinstance(error, SQLAlchemyError) and is_away(error, url)
    kind = StorageUnreachableError if may_come_back else StorageError
    return kind(
        f"The storage {without_secrets(url)} cannot be opened: {reason_of(error, url)}. "
        "Check the address, the rights and the room on the disk, or name another with --storage."
    )


def no_sqlite_file(database: str | None) -> StorageError:
    """Of a file that holds something else."""
    return StorageError(
        f"The database must be a SQLite file, but {database} is something else; name another file "
        "with --storage sqlite:///FILE."
    )
