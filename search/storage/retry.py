"""Calls to a database made again for as long as its server is away."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from optuna.exceptions import StorageInternalError
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from search.exceptions import StorageUnreachableError
from search.stops import database_call
from search.storage.errors import (
    database_failed,
    database_unreachable,
    is_refused,
    is_unreachable,
    reason_of,
    rows_unreadable,
)
from search.storage.rows import UnreadableRowError, parsing_rows
from search.storage.urls import without_secrets

_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.5, 10.0
_AWAY_SECONDS = 5.0  # without an answer, after which a server counts as one that was away
_NAP_SECONDS = 0.2  # after which it is asked whether to stop

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Waiting:
    """How long to wait for a database server that is away, and whom to tell.

    Args:
        limit_seconds: 0 does not wait.
        notice: called once as the wait begins, perhaps by another thread, and once when the server
            is back, with words.
        should_stop: asked several times a second; true ends the wait.
        from_start: whether to wait as well for one that is away when its database is opened.
    """

    limit_seconds: float = 0.0
    notice: Callable[[str], None] = lambda _text: None
    should_stop: Callable[[], bool] = lambda: False
    from_start: bool = False


class Retry:
    """Makes calls to one database.

    Once it has given up on the server, nothing waits for it until it answers again: what is done on
    the way out fails at once.

    Args:
        reset: called after each failure, as its connection may be the broken one.

    Attributes:
        check: called before each call, to raise where there is no use in making it.
    """

    def __init__(self, url: URL, waiting: Waiting, reset: Callable[[], None]) -> None:
        self._url = url
        self._waiting = waiting
        self._reset = reset
        self._has_given_up = False
        self.check: Callable[[], None] = lambda: None
        self.returned_at = -math.inf  # when a server that was away answered again; monotonic

    def call(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """The result of a call, which Optuna or SQLAlchemy makes in one transaction.

        Raises:
            DatabaseError: if the server stays away, the database answers that it fails, or a row is
                none that Optuna has written.
            StorageUnreachableError: if the call opens a database, whose server stays away.
        """
        deadline = wait = None
        while True:
            self.check()
            try:
                with database_call(self._tell_silence) as made:
                    result = call(*args, **kwargs)
            except (StorageInternalError, SQLAlchemyError, StorageUnreachableError) as error:
                with suppress(SQLAlchemyError):
                    self._reset()
                cause = error if isinstance(error, SQLAlchemyError) else error.__cause__
                if not isinstance(cause, SQLAlchemyError):
                    raise
                if not is_unreachable(cause, self._url) or is_refused(cause, self._url):
                    raise database_failed(self._url, cause) from None
                now = time.monotonic()
                if deadline is None or wait is None:
                    limit = 0.0 if self._has_given_up else self._waiting.limit_seconds
                    deadline, wait = now + limit, _FIRST_WAIT_SECONDS
                    if limit:
                        self._waiting.notice(
                            f"The database {without_secrets(self._url)} does not answer "
                            f"({reason_of(cause, self._url)}); waiting for it, for at most "
                            f"{self._waiting.limit_seconds:g} s."
                        )
                if now >= deadline or not self._nap(min(wait, deadline - now)):
                    self._has_given_up = True
                    if isinstance(error, StorageUnreachableError):
                        raise
                    raise database_unreachable(self._url, cause) from None
                wait = min(2 * wait, _LONGEST_WAIT_SECONDS)
            except UnreadableRowError as error:
                raise rows_unreadable(self._url, error) from error
            else:
                self._has_given_up = False
                if deadline is not None or made.silent_seconds > _AWAY_SECONDS:
                    self.returned_at = time.monotonic()
                if deadline is not None or made.is_told:
                    self._waiting.notice("The database answers again; the work goes on.")
                return result

    def read(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """The same of a call of Optuna's that reads rows, into which anybody may have written.

        Raises:
            DatabaseError: as `call` does.
            KeyError: if what is asked for is not there.
        """

        def parsing() -> _T:
            with parsing_rows():
                return call(*args, **kwargs)

        return self.call(parsing)

    def _tell_silence(self, seconds: float) -> None:
        database = without_secrets(self._url)
        self._waiting.notice(
            f"The database {database} has not answered for {seconds:g} s; waiting for it."
        )

    def _nap(self, seconds: float) -> bool:
        """Waits; false where that is to stop."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._waiting.should_stop():
                return False
            time.sleep(min(left, _NAP_SECONDS))
        return not self._waiting.should_stop()
