"""Transactions on the tables of the queue: each is whole or not at all, and on the disk at its end.

They have connections of their own. Optuna's storage does not wait for the disk at each commit,
which may cost a power cut's last trials; a job that somebody was told is queued must be there.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from search.service.tables import check_tables, make_tables
from search.storage.connections import (
    BUSY_TIMEOUT_SECONDS,
    engine_options,
    set_up_connections,
)
from search.storage.open import opened_storage
from search.storage.retry import Retry, Waiting
from search.storage.retrying import RetryingStorage
from search.storage.urls import parse_url

_P = ParamSpec("_P")
_T = TypeVar("_T")

_BUSY_MILLISECONDS = 1000  # for which SQLite waits by itself, and hears of no signal
_WRITES = "search_writes"  # an option of a connection
_N_TRIES = 20  # to make the tables, which another process may be making


class QueueDatabase:
    """The database of a queue; may be used by several threads.

    Args:
        storage: Optuna's, of the same database, which tells whether its file is still there.
    """

    def __init__(self, url: str, storage: RetryingStorage, waiting: Waiting | None = None) -> None:
        self.url = parse_url(url)
        self.storage = storage
        self.engine = sqlalchemy.create_engine(self.url, **engine_options(self.url, write=True))
        set_up_connections(self.engine, write=True)
        if self.engine.name == "sqlite":
            _set_up_sqlite(self.engine)
        self._waiting = waiting or Waiting()
        self._retry = Retry(self.url, self._waiting, reset=lambda: None)
        self._retry.check = storage.check

    def read(
        self,
        read: Callable[Concatenate[Connection, _P], _T],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        """What a function reads by a connection, which it is called with.

        Raises:
            DatabaseError: if the database fails, or stays away.
        """

        def call() -> _T:
            with self.engine.connect() as connection:
                return read(connection, *args, **kwargs)

        return self._retry.call(lambda: self._once_unlocked(call))

    def write(
        self,
        write: Callable[Concatenate[Connection, _P], _T],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        """What a function does by a connection in one transaction.

        Where a server goes away it is done again: the function looks for what it may have done.

        Raises:
            DatabaseError: if the database fails, or stays away.
        """

        def call() -> _T:
            with self._transaction() as connection:
                return write(connection, *args, **kwargs)

        return self._retry.call(lambda: self._once_unlocked(call))

    def _once_unlocked(self, call: Callable[[], _T]) -> _T:
        """What a call gives, once nobody else writes to a SQLite file, or this is to stop."""
        deadline = time.monotonic() + BUSY_TIMEOUT_SECONDS
        while True:
            try:
                return call()
            except OperationalError as error:
                code = getattr(error.orig, "sqlite_errorcode", None)
                is_busy = code is not None and code & 0xFF == sqlite3.SQLITE_BUSY
                is_late = time.monotonic() >= deadline
                if not is_busy or is_late or self._waiting.should_stop():
                    raise

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self.engine.connect() as connection:
            writes = connection.execution_options(**{_WRITES: True})
            with writes.begin():
                yield writes

    def close(self) -> None:
        self.engine.dispose()

    def make_tables(self) -> None:
        """Makes the tables where they are missing.

        Raises:
            StorageError: if those of another version are there.
            DatabaseError: if the database fails.
        """
        if self.read(check_tables, self.url):
            return
        for is_last in [False] * _N_TRIES + [True]:
            make = partial(self._make_missing, is_last=is_last)
            if self._retry.call(self._once_unlocked, make):
                return

    def _make_missing(self, *, is_last: bool) -> bool:
        """Makes the tables that are missing; false where another process made some meanwhile."""
        try:
            with self._transaction() as connection:
                if not check_tables(connection, self.url):
                    make_tables(connection)
        except (IntegrityError, OperationalError, ProgrammingError) as error:
            is_race = isinstance(error, IntegrityError) or "already exists" in str(error)
            if is_last or not is_race:
                raise
            return False
        return True


def _set_up_sqlite(engine: Engine) -> None:
    """Has transactions that write begin as such.

    One that reads first, and finds when it writes that another has written meanwhile, would fail.
    """

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver begins no transaction by itself
        cursor = connection.cursor()
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute(f"PRAGMA busy_timeout={_BUSY_MILLISECONDS}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def opened_database(
    url: str, *, create: bool, waiting: Waiting | None = None
) -> Iterator[QueueDatabase]:
    """The database of a queue, with its tables made where they are missing.

    Args:
        create: whether to create the database itself where there is none.
        waiting: for a server that goes away while the context lasts; by default, there is none.

    Raises:
        StorageError: if it cannot be opened.
    """
    with opened_storage(url, create=create, write=True, waiting=waiting) as storage:
        database = QueueDatabase(url, storage, waiting)
        try:
            database.make_tables()
            yield database
        finally:
            database.close()
