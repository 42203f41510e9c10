"""PostgreSQL's advisory locks, which the server frees when their connection ends, however it ends.

SQLite studies are locked by a file beside them (`search/study/locks.py`); other servers have no
locks here.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from contextlib import suppress

import sqlalchemy
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from search.stops import database_answered, database_call
from search.storage.connections import connect_args
from search.storage.errors import sql_state
from search.storage.urls import parse_url

# Of all locks in a server's database, those of this package: held until released, and until
# the end of a transaction.
_HELD_CLASS, _TRANSACTION_CLASS = 0x5EA4C4, 0x5EA4C5
_LONGEST_LOCK_SECONDS = 60  # of doing nothing: whoever fell asleep with it loses it
_ASK_MILLISECONDS = 500  # while it waits for a lock, whether to stop
_LOCK_NOT_AVAILABLE = "55P03"  # https://www.postgresql.org/docs/current/errcodes-appendix.html


class ServerLock:
    """A lock of a database server, which one process alone can hold.

    The server frees it when this process dies, but also when the server restarts or takes a
    machine that slept for lost. Where a server has no such locks, everybody gets it.
    """

    def __init__(self, url: str, number: int) -> None:
        self._parsed = parse_url(url)
        self._number = number
        self._engine: Engine | None = None
        self._connection: Connection | None = None
        if self._parsed.get_backend_name() == "postgresql":
            self._engine = sqlalchemy.create_engine(
                self._parsed,
                connect_args=connect_args(self._parsed),
                isolation_level="AUTOCOMMIT",
            )

    def try_acquire(self) -> bool:
        """Takes the lock if nobody else holds it; returns whether this process holds it now.

        Raises:
            SQLAlchemyError: if the database cannot be reached.
        """
        if self._engine is None:
            return True
        # Whoever holds it already gets it again.
        statement = text("SELECT pg_try_advisory_lock(:application, :number)")
        values = {"application": _HELD_CLASS, "number": self._number}
        for is_last in (False, True):  # a connection that was kept may be of before a restart
            try:
                if self._connection is None:
                    self._connection = self._engine.connect()
                return bool(self._connection.scalar(statement, values))
            except SQLAlchemyError:
                self._disconnect()
                if is_last:
                    raise
        raise AssertionError  # the last try ends one way or the other

    def release(self) -> None:
        """Frees the lock, where this process holds it."""
        self._disconnect()
        if self._engine is not None:
            self._engine.dispose()

    def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(SQLAlchemyError):  # a broken one may say so once more
                self._connection.invalidate()
                self._connection.close()
        self._connection = None


def acquire_lock(engine: Engine, name: str, should_stop: Callable[[], bool]) -> Connection | None:
    """Waits for the lock of that name; returns the connection that holds it, in a transaction.

    None where it was told to stop, about which it asks twice a second. The server takes back a lock
    whose holder says nothing for a minute.
    """
    number = zlib.crc32(name.encode()) - 2**31  # PostgreSQL's integers have a sign
    connection = engine.connect()
    try:
        idle = f"SET LOCAL idle_in_transaction_session_timeout = '{_LONGEST_LOCK_SECONDS}s'"
        connection.execute(text(idle))
        connection.execute(text(f"SET LOCAL lock_timeout = {_ASK_MILLISECONDS}"))
        lock = text(f"SELECT pg_advisory_xact_lock({_TRANSACTION_CLASS}, {number})")
        while True:
            try:
                with connection.begin_nested():
                    connection.execute(lock)
                return connection
            except OperationalError as error:
                if sql_state(error) != _LOCK_NOT_AVAILABLE:
                    raise
            database_answered()
            if should_stop():
                connection.close()
                return None
    except SQLAlchemyError:
        connection.close()
        raise


def release_lock(connection: Connection) -> None:
    """Frees a lock that `acquire_lock` took."""
    with database_call():
        with suppress(SQLAlchemyError):  # a server that went away has ended the lock
            connection.rollback()
        with suppress(SQLAlchemyError):
            connection.close()
