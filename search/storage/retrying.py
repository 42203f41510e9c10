"""An Optuna storage that waits for a database server that is away, and says what else went wrong.

Optuna's storage does each of its calls in one transaction of its own. So a call that failed
because the connection broke has left nothing behind and is made again, unless it broke while the
server was committing. Most calls may be made twice; where that would change something, what the
first one may have done is looked for before it is repeated.
"""

from __future__ import annotations

import copy
import json
import uuid
from collections.abc import Callable, Collection, Container, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar, cast

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from search.storage.retry import Retry, Waiting
from search.storage.rows import (
    TrialWrites,
    can_write,
    read_open_states,
    read_state,
    read_trials,
    write_trial,
)
from search.storage.server_locks import acquire_lock, release_lock

_MARK = "budget-search:made"
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


class RetryingStorage(RDBStorage):
    """Optuna's storage of a database, with errors of ours.

    Every call raises DatabaseError where the database fails for good: a server that stays away, a
    disk that is full, a file that is damaged or stays locked.
    """

    def __init__(self, url: URL, waiting: Waiting, **engine_kwargs: Any) -> None:
        self._backend_name = url.get_backend_name()
        self._retry = Retry(url, waiting, reset=self.remove_session)
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

        return bool(self._retry.call(call))

    @property
    def returned_at(self) -> float:
        """When a server that was away answered again, by the monotonic clock; or minus infinity."""
        return self._retry.returned_at

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
            self._retry.call(self._write_system_attributes, study_id, attributes)

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
        self._retry.call(lambda: method(self, study_id, key, value))

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        method = RDBStorage.get_study_system_attrs
        stored: dict[str, Any] = self._retry.call(lambda: method(self, study_id))
        return stored | (self._gathered or {}).get(study_id, {})

    def _create_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None = None
    ) -> FrozenTrial:
        # A queue, or a list of results, would have it twice; so it carries a mark. A trial without
        # a template has no owner when it is made twice, and the next start puts that right.
        if template_trial is not None and self._backend_name != "sqlite":
            template_trial = copy.copy(template_trial)
            mark = {_MARK: uuid.uuid4().hex}
            template_trial.system_attrs = {**template_trial.system_attrs, **mark}
        method = RDBStorage._create_new_trial
        return self._retry.call(lambda: method(self, study_id, template_trial))

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
        return self._backend_name == "postgresql"

    @contextmanager
    def lock(self, name: str, should_stop: Callable[[], bool]) -> Iterator[bool]:
        """Lets one at a time in, of all that use this database and wait for a lock of that name.

        Of PostgreSQL alone. Yields false where it was told to stop while it waited, about which
        it asks twice a second. The server takes back a lock whose holder says nothing for a minute;
        what is done under the lock is done by other connections, and so is not undone then.
        """
        connection = self._retry.call(acquire_lock, self.engine, name, should_stop)
        try:
            yield connection is not None
        finally:
            if connection is not None:
                release_lock(connection)

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
            self._retry.call(call)
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
        """What is read over a connection, waited for like any other call."""

        def call() -> _T:
            with self.engine.connect() as connection:
                return read(connection)

        return self._retry.call(call)


def _with_retry(name: str) -> Any:
    method = getattr(RDBStorage, name)

    @wraps(method)
    def call(self: RetryingStorage, *args: Any, **kwargs: Any) -> Any:
        return self._retry.call(lambda: method(self, *args, **kwargs))

    return call


for _name in _CALLS:
    setattr(RetryingStorage, _name, _with_retry(_name))
