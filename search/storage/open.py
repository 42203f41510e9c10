"""A storage URL opened as an Optuna storage, and made where it is missing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.engine import URL
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from search.storage.checks import HalfMadeError, check_schema, check_sqlite_file
from search.storage.connections import BUSY_TIMEOUT_SECONDS, checkpoint, engine_options
from search.storage.errors import cannot_open
from search.storage.guard import FileGuard
from search.storage.retry import Retry, Waiting
from search.storage.retrying import RetryingStorage
from search.storage.urls import parse_url

_N_RETRIES, _RETRY_SECONDS = 20, 0.25  # while another process makes the same database


@contextmanager
def opened_storage(
    url: str, *, create: bool = False, write: bool = False, waiting: Waiting | None = None
) -> Iterator[RetryingStorage]:
    """The storage at `url`, closed when the context ends.

    Args:
        create: whether to create the database, or Optuna's tables in it, where they are missing.
        write: whether something is going to be written; `create` implies it.
        waiting: for a server that goes away while the context lasts and, where it says so, for one
            that is away from the start; by default, there is none.

    Raises:
        StorageError: if it cannot be opened; nothing is written then.
        DatabaseError: if the file of a SQLite database that is written is deleted or replaced while
            the context lasts; what it had is saved beside it.
    """
    parsed = parse_url(url)
    write = write or create
    is_sqlite = parsed.get_backend_name() == "sqlite"
    if is_sqlite:
        check_sqlite_file(parsed, create=create, write=write)
    waiting = waiting or Waiting()
    opening = Retry(parsed, waiting if waiting.from_start else Waiting(), reset=lambda: None)
    storage = opening.call(_open, parsed, waiting, create=create, write=write)
    storage.set_up_connections(write=write)
    guard: FileGuard | None = None
    if is_sqlite and write:
        guard = FileGuard(Path(str(parsed.database)), timeout=BUSY_TIMEOUT_SECONDS)
    if guard is not None:
        storage.guard(guard.check)
    try:
        yield storage
        if guard is not None:  # what was written last is not lost unsaid
            guard.check()
            guard.check_whole()
    except (Exception, KeyboardInterrupt):
        if guard is not None and not guard.is_lost:
            guard.check()  # whatever ended it: with the connection, what a lost file had is gone
        raise
    finally:
        storage.remove_session()
        if guard is not None:
            guard.close()
            if not guard.is_lost:
                checkpoint(storage.engine)
        storage.engine.dispose()


def _open(url: URL, waiting: Waiting, *, create: bool, write: bool) -> RetryingStorage:
    """The storage, once whoever else makes its tables at the same time is done."""
    for is_last in [False] * _N_RETRIES + [True]:
        try:
            is_made = check_schema(url, create=create, write=write, may_be_half_made=is_last)
            return RetryingStorage(
                url,
                waiting,
                skip_compatibility_check=is_made,  # it would run all migrations' files again
                **engine_options(url, write=write),
                pool_pre_ping=url.get_backend_name() != "sqlite",
            )
        except HalfMadeError:
            pass
        except AssertionError:  # Optuna, of a table that has no row yet
            if is_last:
                raise
        except (SQLAlchemyError, RuntimeError) as error:
            is_race = isinstance(error, IntegrityError) or "already exists" in str(error)
            if is_last or not is_race:
                raise cannot_open(url, error) from error
        time.sleep(_RETRY_SECONDS)
    raise AssertionError  # the last try ends one way or the other
