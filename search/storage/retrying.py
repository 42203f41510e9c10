"""An Optuna storage that waits for a database server that is away, and says what else went wrong.

Optuna's storage does each of its calls in one transaction of its own. So a call that failed
because the connection broke has left nothing behind and is made again, unless it broke while the
server was committing. Most calls may be made twice; where that would change something, what the
first one may have done is looked for before it is repeated.
"""

from __future__ import annotations

import copy
import json
import math
import sqlite3
import time
import uuid
import zlib
from collections.abc import Callable, Collection, Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, TypeVar, cast
from urllib.parse import quote, quote_plus

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.orm import Session

from search.exceptions import DatabaseError
from search.storage.rows import (
    TrialWrites,
    can_write,
    read_open_states,
    read_state,
    read_trials,
    write_trial,
)

_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.5, 10.0
_MARK = "budget-search:made"
_LOCK_CLASS = 0x5EA4C5  # of all locks in a server's database, those of studies
_LONGEST_LOCK_SECONDS = 60  # of doing nothing: whoever fell asleep with it loses it
_RETRY_MILLISECONDS = 500  # while it waits for a lock, whether to stop
_LOCK_NOT_AVAILABLE = "55P03"  # https://www.postgresql.org/docs/current/errcodes-appendix.html
_NAP_SECONDS = 0.2  # between two looks whether to stop
_SECRET_KEYS = ("password", "passwd", "passfile", "sslpassword", "sslkey")  # of a URL's query
# The calls by which Optuna's studies and trials reach their storage, with its cache in between.
_CALLS = (
    *("create_new_study", "delete_study", "set_study_user_attr"),
    *("get_study_id_from_name", "get_study_name_from_id", "get_study_directions"),
    *("get_study_user_attrs", "get_all_studies"),
    *("_set_trial_param", "set_trial_intermediate_value"),
    *("set_trial_user_attr", "set_trial_system_attr", "get_trial_param", "get_trial"),
    *("get_trial_id_from_study_id_trial_number", "_get_best_trial_id"),
    *("get_trial_user_attrs", "get_trial_system_attrs", "record_heartbeat"),
)

_T = TypeVar("_T")


class WriteConflictError(Exception):
    """Another process wrote the same in between; whoever wants to write it reads again first."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """How long to wait for a database server that is away, and whom to tell.

    Args:
        limit_seconds: 0 does not wait.
        notice: told once that it waits, and once that the server is back.
        should_stop: asked several times a second; true ends the wait.
    """

    limit_seconds: float = 0.0
    notice: Callable[[str], None] = lambda _text: None
    should_stop: Callable[[], bool] = lambda: False


class RetryingStorage(RDBStorage):
    """Optuna's storage of a database, with errors of ours.

    Every call raises DatabaseError where the database fails for good: a server that stays away, a
    disk that is full, a file that is damaged or stays locked.
    """

    def __init__(self, url: URL, waiting: Waiting, **engine_kwargs: Any) -> None:
        self._shown = without_secrets(url)
        self._parsed = url
        self._waiting = waiting
        self.returned_at = -math.inf  # when a server that was away answered again; monotonic
        self._has_given_up = False  # what is still tried on the way out is not waited for again
        self._gathered: dict[int, dict[str, Any]] | None = (
            None  # by study, within `study_attributes_together`
        )
        text = url.render_as_string(hide_password=False)
        # Optuna fills in a template, and a file's name may have braces of its own.
        text = text.replace("{", "{{").replace("}", "}}")
        super().__init__(text, engine_kwargs=engine_kwargs)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        has_failed = False

        def call() -> bool:
            nonlocal has_failed
            try:
                is_set = RDBStorage.set_trial_state_values(self, trial_id, state, values)
            except UpdateFinishedTrialError:
                # The first try may have come through, and only its answer was lost.
                if has_failed and RDBStorage.get_trial(self, trial_id).state == state:
                    return True
                raise
            except (StorageInternalError, SQLAlchemyError):
                has_failed = True
                raise
            if not is_set and has_failed:
                return RDBStorage.get_trial(self, trial_id).state == state
            return is_set

        return bool(self._with_retry(call))

    @contextmanager
    def study_attributes_together(self) -> Iterator[None]:
        """Writes all system attributes that a study is given inside in one transaction, at its end.

        optuna-dashboard cuts a note or a graph into many attributes: so a reader meets all of them
        or none, and they cost little more than one. An error inside leaves none written.

        Raises:
            WriteConflictError: if another process wrote the same at that moment; none is
                written then.
        """
        assert self._gathered is None
        self._gathered = {}
        try:
            yield
            gathered = self._gathered
        finally:
            self._gathered = None
        for study_id, attributes in gathered.items():
            self._with_retry(partial(self._write_system_attributes, study_id, attributes))

    def _write_system_attributes(self, study_id: int, attributes: dict[str, Any]) -> None:
        try:
            with _create_scoped_session(self.scoped_session) as session:
                models.StudyModel.find_or_raise_by_id(study_id, session)
                found = models.StudySystemAttributeModel.where_study_id(study_id, session)
                known = {str(attribute.key): attribute for attribute in found}
                for key, value in attributes.items():
                    text = json.dumps(value)
                    if key in known:
                        cast(Any, known[key]).value_json = text
                    else:
                        session.add(
                            models.StudySystemAttributeModel(
                                study_id=study_id, key=key, value_json=text
                            )
                        )
        except IntegrityError as error:
            raise WriteConflictError from error

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        if self._gathered is not None:
            self._gathered.setdefault(study_id, {})[key] = value
            return
        method = RDBStorage.set_study_system_attr
        self._with_retry(lambda: method(self, study_id, key, value))

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        method = RDBStorage.get_study_system_attrs
        stored: dict[str, Any] = self._with_retry(lambda: method(self, study_id))
        return stored | (self._gathered or {}).get(study_id, {})

    def _create_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None = None
    ) -> FrozenTrial:
        # A queue, or a list of results, would have it twice; so it carries a mark. A trial without
        # a template has no owner when it is made twice, and the next start puts that right.
        if template_trial is not None and self._parsed.get_backend_name() != "sqlite":
            template_trial = copy.copy(template_trial)
            mark = {_MARK: uuid.uuid4().hex}
            template_trial.system_attrs = {**template_trial.system_attrs, **mark}
        method = RDBStorage._create_new_trial
        return cast(FrozenTrial, self._with_retry(lambda: method(self, study_id, template_trial)))

    def _get_prepared_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None, session: Session
    ) -> models.TrialModel:
        """In the transaction of one try, of which Optuna makes several by itself."""
        if template_trial is not None and _MARK in template_trial.system_attrs:
            marks = models.TrialSystemAttributeModel
            mark = json.dumps(template_trial.system_attrs[_MARK])
            query = session.query(models.TrialModel).join(marks)
            made = query.filter(marks.key == _MARK, marks.value_json == mark).one_or_none()
            if made is not None:
                return made
        return super()._get_prepared_new_trial(study_id, template_trial, session)

    @property
    def has_locks(self) -> bool:
        """Whether it is PostgreSQL, whose locks `lock` is made of."""
        return self._parsed.get_backend_name() == "postgresql"

    @contextmanager
    def lock(self, name: str, should_stop: Callable[[], bool]) -> Iterator[bool]:
        """Lets one at a time in, of all that use this database and wait for a lock of that name.

        Of PostgreSQL alone. Yields false where it was told to stop while it waited, about which
        it asks twice a second. The server takes back a lock whose holder says nothing for a minute;
        what is done under the lock is done by other connections, and so is not undone then.
        """
        connection = self._with_retry(lambda: self._take_turn(name, should_stop))
        try:
            yield connection is not None
        finally:
            if connection is not None:
                with suppress(SQLAlchemyError):  # a server that went away has ended the lock
                    connection.rollback()
                with suppress(SQLAlchemyError):
                    connection.close()

    def _take_turn(self, name: str, should_stop: Callable[[], bool]) -> Connection | None:
        number = zlib.crc32(name.encode()) - 2**31  # PostgreSQL's integers have a sign
        connection = self.engine.connect()
        try:
            idle = f"SET LOCAL idle_in_transaction_session_timeout = '{_LONGEST_LOCK_SECONDS}s'"
            connection.execute(text(idle))
            connection.execute(text(f"SET LOCAL lock_timeout = {_RETRY_MILLISECONDS}"))
            lock = text(f"SELECT pg_advisory_xact_lock({_LOCK_CLASS}, {number})")
            while True:
                try:
                    with connection.begin_nested():
                        connection.execute(lock)
                    return connection
                except OperationalError as error:
                    if _sql_state(error) != _LOCK_NOT_AVAILABLE:
                        raise
                if should_stop():
                    connection.close()
                    return None
        except SQLAlchemyError:
            connection.close()
            raise

    def silent_trials(self, study_id: int, seconds: float) -> set[int]:
        """Identifiers of a study's running trials that nobody said to live for so long, or ever.

        Of PostgreSQL alone, and by its clock; time in which it was away does not count.
        """
        query = text(
            "SELECT trials.trial_id FROM trials LEFT JOIN trial_heartbeats USING (trial_id) "
            "WHERE study_id = :study_id AND state = 'RUNNING' AND (heartbeat IS NULL OR "
            "localtimestamp - greatest(heartbeat, pg_postmaster_start_time()::timestamp) "
            "> make_interval(secs => :seconds))"
        )
        values = {"study_id": study_id, "seconds": seconds}

        return self._read(lambda connection: set(connection.scalars(query, values)))

    def open_trial_states(
        self, study_id: int, open_ids: Collection[int], last_id: int
    ) -> dict[int, TrialState]:
        """The states of a study's trials among `open_ids`, and of all with a higher identifier.

        Raises:
            KeyError: if there is no such study.
        """
        return self._read(
            lambda connection: read_open_states(connection, study_id, open_ids, last_id)
        )

    def read_trials(self, study_id: int, trial_ids: Collection[int]) -> list[FrozenTrial]:
        """Those trials of a study, whole.

        Raises:
            KeyError: if there is no such study.
        """
        return self._read(
            lambda connection: read_trials(connection, study_id, among=trial_ids, above=None)
        )

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        return self._read(
            lambda connection: read_trials(
                connection,
                study_id,
                states=states,
                among=included_trial_ids,
                above=trial_id_greater_than,
            )
        )

    def trial_state(self, trial_id: int) -> TrialState:
        """The state of a trial.

        Raises:
            KeyError: if there is no such trial.
        """
        return self._read(lambda connection: read_state(connection, trial_id))

    def write_trial(self, trial_id: int, writes: TrialWrites) -> None:
        """Writes all of that in one transaction; to do it twice is to do it once.

        Raises:
            KeyError: if there is no such trial.
            UpdateFinishedTrialError: if it is finished.
        """

        def call() -> None:
            with self.engine.begin() as connection:
                state = read_state(connection, trial_id, for_update=True)
                self.check_trial_is_updatable(trial_id, state)
                write_trial(connection, trial_id, writes)

        if can_write(self.engine.name):
            self._with_retry(call)
        else:
            self._write_one_by_one(trial_id, writes)

    def _write_one_by_one(self, trial_id: int, writes: TrialWrites) -> None:
        for name, (distribution, value) in writes.params.items():
            self.set_trial_param(trial_id, name, distribution.to_internal_repr(value), distribution)
        for key, value in writes.user_attrs.items():
            self.set_trial_user_attr(trial_id, key, value)
        for key, value in writes.system_attrs.items():
            self.set_trial_system_attr(trial_id, key, value)
        for step, number in writes.intermediate_values.items():
            self.set_trial_intermediate_value(trial_id, step, number)

    def _read(self, read: Callable[[Connection], _T]) -> _T:
        """What is read over a connection, waited for as `_with_retry` does."""

        def call() -> _T:
            with self.engine.connect() as connection:
                return read(connection)

        return cast(_T, self._with_retry(call))

    def _with_retry(self, call: Callable[[], Any]) -> Any:
        """The result of a call, made again for as long as the server is away."""
        deadline = wait = None
        while True:
            try:
                result = call()
            except (StorageInternalError, SQLAlchemyError) as error:
                with suppress(SQLAlchemyError):  # its connection may be the broken one
                    self.remove_session()
                cause = error.__cause__ if isinstance(error, StorageInternalError) else error
                if not isinstance(cause, SQLAlchemyError):
                    raise
                if not self._is_away(cause):
                    raise self._broken(cause) from None
                now = time.monotonic()
                if deadline is None or wait is None:
                    limit = 0.0 if self._has_given_up else self._waiting.limit_seconds
                    deadline, wait = now + limit, _FIRST_WAIT_SECONDS
                    if limit:
                        self._waiting.notice(
                            f"The database {self._shown} does not answer "
                            f"({reason_of(cause, self._parsed)}); waiting for it, for at most "
                            f"{self._waiting.limit_seconds:g} s."
                        )
                if now >= deadline or not self._nap(min(wait, deadline - now)):
                    self._has_given_up = True
                    raise self._lost(cause) from None
                wait = min(2 * wait, _LONGEST_WAIT_SECONDS)
            else:
                if deadline is not None:
                    self.returned_at = time.monotonic()
                    self._waiting.notice("The database answers again; the work goes on.")
                return result

    def _nap(self, seconds: float) -> bool:
        """Waits; false where that is to stop."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._waiting.should_stop():
                return False
            time.sleep(min(left, _NAP_SECONDS))
        return not self._waiting.should_stop()

    def _is_away(self, error: SQLAlchemyError) -> bool:
        """Whether an error says that the server cannot be reached, rather than that it refuses."""
        if self._parsed.get_backend_name() == "sqlite":
            return False
        if not isinstance(error, DBAPIError):
            return False
        return error.connection_invalidated or (
            # No connection could be made at all: there is no statement that failed.
            isinstance(error, OperationalError | InterfaceError) and error.statement is None
        )

    def _lost(self, error: SQLAlchemyError) -> DatabaseError:
        return DatabaseError(
            f"The database must answer while it is used, but {self._shown} does not: "
            f"{reason_of(error, self._parsed)}. Everything that it confirmed is kept; start it, "
            "and the same command goes on."
        )

    def _broken(self, error: SQLAlchemyError) -> DatabaseError:
        reason = reason_of(error, self._parsed)
        code = getattr(getattr(error, "orig", None), "sqlite_errorcode", None)
        # The lower byte says which kind of error it is, the upper ones say more.
        match None if code is None else code & 0xFF:
            case sqlite3.SQLITE_FULL | sqlite3.SQLITE_IOERR:
                what = "must have room and a disk that works"
                fix = "make room on its disk"
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                what = "must not be locked for longer than a minute"
                fix = "end the program that locks it"
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                what = "must be whole"
                fix = "take a copy that 'search backup' made"
            case _:
                what = "must take what is written and give what is read"
                fix = "mend that"
        return DatabaseError(
            f"The database {what}, but {self._shown} answered: {reason}. Everything that it "
            f"confirmed is kept; {fix}, and the same command goes on."
        )


def _sql_state(error: DBAPIError) -> str | None:
    """PostgreSQL's code of an error, by whichever name its driver has for it."""
    return getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)


def _make_patient(name: str) -> Any:
    method = getattr(RDBStorage, name)

    @wraps(method)
    def call(self: RetryingStorage, *args: Any, **kwargs: Any) -> Any:
        return self._with_retry(lambda: method(self, *args, **kwargs))

    return call


for _name in _CALLS:
    setattr(RetryingStorage, _name, _make_patient(_name))


def without_secrets(url: URL) -> str:
    """A URL as it may be printed: without its password, wherever that stands."""
    hidden = {key: "***" for key in url.query if key.lower() in _SECRET_KEYS}
    text = url.update_query_dict(hidden).render_as_string(hide_password=True)
    return text.replace("=%2A%2A%2A", "=***")


def reason_of(error: Exception, url: URL) -> str:
    """The first line of what a database says of an error, without the URL's secrets."""
    text = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    line = text.strip().splitlines()[0].rstrip(".") if text.strip() else type(error).__name__
    secrets = [str(url.password)] if url.password else []
    for key, value in url.query.items():
        if key.lower() in _SECRET_KEYS:
            secrets += [value] if isinstance(value, str) else list(value)
    for secret in sorted(secrets, key=len, reverse=True):
        for written in {secret, quote(secret, safe=""), quote(secret), quote_plus(secret)} - {""}:
            line = line.replace(written, "***")
    return line
