"""How a database is connected to: how long is waited, and what each connection is told first.

SQLite is written to so that a dashboard can read meanwhile: write-ahead log (WAL), a busy timeout
in place of "database is locked", and no wait for the disk at each commit (`synchronous=NORMAL`: in
WAL mode a power cut may take the last commits, never the file).
"""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

BUSY_TIMEOUT_SECONDS = 60
_CHECKPOINT_MILLISECONDS = 500
_CONNECT_TIMEOUT_SECONDS = 10
_LONGEST_IDLE_SECONDS = 15  # in the midst of a transaction, of which ours take milliseconds
# A server whose host vanished without a word is noticed after about a minute.
_KEEPALIVE = {
    "keepalives_idle": 30,  # seconds
    "keepalives_interval": 10,  # seconds
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,  # milliseconds
}


def engine_options(url: URL, *, write: bool = False) -> dict[str, Any]:
    """What SQLAlchemy is given to connect with, beside the URL.

    Args:
        write: whether something is to be written.
    """
    if url.get_backend_name() == "sqlite" and not write and takes_no_log(Path(str(url.database))):
        connect = partial(connect_without_log, Path(str(url.database)))
        # Made anew for each look: by then somebody may write, or have made room.
        return {"creator": connect, "poolclass": NullPool}
    return {"connect_args": connect_args(url)}


def takes_no_log(path: Path) -> bool:
    """Whether this process had better make no files beside a SQLite file, as even its readers do.

    A user who may not write the file would leave them behind as his own, and then nobody else could
    write. On a full disk they cannot be made.
    """
    if not path.is_file():
        return False
    path = path.resolve()
    if not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        return True
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=0)) as found:
            found.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
    except sqlite3.Error as error:
        return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
    return False


def connect_without_log(path: Path) -> sqlite3.Connection:
    """A connection that reads a SQLite file and makes no file beside it."""
    path = path.resolve()
    log = path.with_name(f"{path.name}-wal")
    has_log = log.exists() and log.stat().st_size > 0
    # Where there is a log it is read by the index of whoever writes it; else nobody writes now.
    mode = "mode=ro&readonly_shm=1" if has_log else "mode=ro&immutable=1"
    return sqlite3.connect(
        f"{path.as_uri()}?{mode}",
        uri=True,
        check_same_thread=False,
        timeout=BUSY_TIMEOUT_SECONDS,
    )


def connect_args(url: URL) -> dict[str, Any]:
    """What a driver is given to connect with, beside the URL."""
    if url.get_backend_name() == "sqlite":
        return {"timeout": BUSY_TIMEOUT_SECONDS}
    if url.get_driver_name() in ("psycopg", "psycopg2"):
        return {"connect_timeout": _CONNECT_TIMEOUT_SECONDS, **_KEEPALIVE}
    return {}


def set_up_connections(engine: Engine, *, write: bool) -> None:
    """Has all connections made from now on set up: for `write` with SQLite's log; a server's."""
    if engine.name == "sqlite" and write:
        event.listen(engine, "connect", _set_pragmas)
    elif engine.name == "postgresql":
        # What psycopg notes beside its errors, as it drops a broken connection, would stand on the
        # screen as a line of its own wherever a program has set up no logging.
        logging.getLogger("psycopg").addHandler(logging.NullHandler())
        event.listen(engine, "connect", _set_up_session)
    engine.dispose()  # what is connected already has not heard of it


def checkpoint(engine: Engine) -> None:
    """Moves a SQLite file's write-ahead log into the file, so that it alone is whole.

    Where a reader holds the log open, it is not waited for; the last one to close does it then.
    """
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"PRAGMA busy_timeout={_CHECKPOINT_MILLISECONDS}")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    except SQLAlchemyError:
        pass


def _set_pragmas(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _set_up_session(connection: Any, _record: object) -> None:
    """Of PostgreSQL.

    Heartbeats are times of day without a zone, and an hour of summer time is not silence. A process
    that is stopped between two statements of a transaction keeps rows locked, for which all others
    would wait; the server takes them back, and what was not committed is done again. Where a
    database has transactions serializable by default, Optuna's would fail beside another host's.
    """
    cursor = connection.cursor()
    cursor.execute("SET TIME ZONE 'UTC'")
    cursor.execute("SET default_transaction_isolation = 'read committed'")
    cursor.execute(f"SET idle_in_transaction_session_timeout = '{_LONGEST_IDLE_SECONDS}s'")
    cursor.close()
    connection.commit()
