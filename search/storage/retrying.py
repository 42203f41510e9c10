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
from typing import Any, Concatenate, ParamSpec, TypeVar

from optuna.distributions import BaseDistribution
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection
from sqlalchemy.engine import URL
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from search.storage.connections import set_up_connections
from search.storage.retry import Retry, Waiting
from search.storage.rows import (
    MARK,
    TrialWrites,
    can_write,
    read_open_states,
    read_silent,
    read_state,
    read_trials,
    unmarked,
    write_trial,
)
from search.storage.server_locks import acquire_lock, release_lock
from search.storage.study_rows import delete_orphans, write_system_attributes

_P = ParamSpec("_P")
_T = TypeVar("_T")


class WriteConflictError(Exception):
    """Another process wrote the same in between; whoever wants to write it reads again first."""


class RetryingStorage(RDBStorage):
    """Optuna's storage of a database, with errors of ours.

    Every call raises DatabaseError where the database fails for good: a server that stays away, a
    disk that is full, a file that is damaged or stays locked.
    """

    def __init__(
        self,
        url: URL,
        waiting: Waiting,
        *,
        skip_compatibility_check: bool = False,
        **engine_kwargs: Any,
    ) -> None:
        self._own_url = url
        self._backend_name = url.get_backend_name()
        self._retry = Retry(url, waiting, reset=self.remove_session)
        self._is_to_write = False
        self._gathered: dict[int, dict[str, Any]] | None = None  # by study, within a batch
        text = url.render_as_string(hide_password=False)
        # Optuna fills in a template, and a file's name may have braces of its own.
        text = text.replace("{", "{{").replace("}", "}}")
        super().__init__(text, engine_kwargs, skip_compatibility_check)

    def set_up_connections(self, *, write: bool) -> None:
        """Has all connections made from now on set up, for `write` with what writing needs."""
        self._is_to_write = write
        set_up_connections(self.engine, write=write)

    def guard(self, check: Callable[[], None]) -> None:
        """Has `check` called before each call: it raises where the database is not to be used."""
        self._retry.check = check

    def retry(self, call: Callable[[], _T]) -> _T:
        """What a call on the same database gives, by a connection of its own, as `Retry.call`."""
        return self._retry.call(call)

    def check(self) -> None:
        """Raises DatabaseError where the file of the database is gone, without another call."""
        self._retry.check()

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        del state["_retry"], state["_gathered"]
        return state

    def __setstate__(self, state: dict[Any, Any]) -> None:
        """In another process perhaps, where nobody is told of a server that is away: none waits."""
        super().__setstate__(state)
        self._retry = Retry(self._own_url, Waiting(), reset=self.remove_session)
        self._gathered = None
        self.set_up_connections(write=self._is_to_write)

    # --- Optuna's calls: each that reaches the database is made again while its server is away ---

    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> int:
        self._retry.call(self._delete_orphans)
        return self._retry.call(super().create_new_study, directions, study_name)

    def delete_study(self, study_id: int) -> None:
        self._retry.call(super().delete_study, study_id)
        self._retry.call(self._delete_orphans)

    def _delete_orphans(self) -> None:
        if self._backend_name == "sqlite":
            with self.engine.begin() as connection:
                delete_orphans(connection)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._retry.call(super().set_study_user_attr, study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        if self._gathered is None:
            self._retry.call(super().set_study_system_attr, study_id, key, value)
        else:
            self._gathered.setdefault(study_id, {})[key] = value

    def get_study_id_from_name(self, study_name: str) -> int:
        return self._retry.call(super().get_study_id_from_name, study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._retry.call(super().get_study_name_from_id, study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._retry.read(super().get_study_directions, study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._retry.read(super().get_study_user_attrs, study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        stored = self._retry.read(super().get_study_system_attrs, study_id)
        return stored | (self._gathered or {}).get(study_id, {})

    def get_all_studies(self) -> list[FrozenStudy]:
        return self._retry.read(super().get_all_studies)

    def _create_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None = None
    ) -> FrozenTrial:
        # A queue, or a list of results, would have it twice; so it carries a mark. A trial that has
        # just begun, and is made twice, is taken for one of a host that died, and put right.
        begins = template_trial is None or template_trial.state == TrialState.RUNNING
        if template_trial is not None and not begins and self._backend_name != "sqlite":
            template_trial = copy.copy(template_trial)
            mark = {MARK: uuid.uuid4().hex}
            template_trial.system_attrs = {**template_trial.system_attrs, **mark}
        return unmarked(self._retry.call(super()._create_new_trial, study_id, template_trial))

    def _get_prepared_new_trial(
        self, study_id: int, template_trial: FrozenTrial | None, session: Session
    ) -> models.TrialModel:
        """In the transaction of one try, of which Optuna makes several by itself."""
        if template_trial is not None and MARK in template_trial.system_attrs:
            marks = models.TrialSystemAttributeModel
            mark = json.dumps(template_trial.system_attrs[MARK])
            query = session.query(models.TrialModel).join(marks)
            made = query.filter(marks.key == MARK, marks.value_json == mark).one_or_none()
            if made is not None:
                return made
        return super()._get_prepared_new_trial(study_id, template_trial, session)

    def _set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
        previous_distribution: BaseDistribution | None,
    ) -> None:
        self._retry.call(
            super()._set_trial_param,
            trial_id,
            param_name,
            param_value_internal,
            distribution,
            previous_distribution,
        )

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        self._retry.call(super().set_trial_intermediate_value, trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._retry.call(super().set_trial_user_attr, trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._retry.call(super().set_trial_system_attr, trial_id, key, value)

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

        return self._retry.call(call)

    def record_heartbeat(self, trial_id: int) -> None:
        self._retry.call(super().record_heartbeat, trial_id)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return unmarked(self._retry.read(super().get_trial, trial_id))

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        return self._retry.call(
            super().get_trial_id_from_study_id_trial_number, study_id, trial_number
        )

    def get_trial_param(self, trial_id: int, param_name: str) -> float:
        return self._retry.call(super().get_trial_param, trial_id, param_name)

    def get_trial_user_attrs(self, trial_id: int) -> dict[str, Any]:
        return self._retry.read(super().get_trial_user_attrs, trial_id)

    def get_trial_system_attrs(self, trial_id: int) -> dict[str, Any]:
        stored = self._retry.read(super().get_trial_system_attrs, trial_id)
        return {key: value for key, value in stored.items() if key != MARK}

    def _get_best_trial_id(self, study_id: int, direction: StudyDirection) -> int:
        return self._retry.call(super()._get_best_trial_id, study_id, direction)

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        return self.read(
            read_trials,
            study_id,
            states=states,
            among=included_trial_ids,
            above=trial_id_greater_than,
        )

    # --- What a search asks of its database beside that ---

    @property
    def returned_at(self) -> float:
        """When a server that was away answered again, by the monotonic clock; or minus infinity."""
        return self._retry.returned_at

    @contextmanager
    def batch_study_attributes(self) -> Iterator[None]:
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
                write_system_attributes(session, study_id, attributes)
        except IntegrityError as error:
            raise WriteConflictError from error

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
        """Identifiers of a study's running trials without a heartbeat for so long, or ever.

        Of PostgreSQL alone, and by its clock; time in which it was away does not count.
        """
        return self.read(read_silent, study_id, seconds)

    def open_trial_states(
        self, study_id: int, open_ids: Collection[int], last_id: int
    ) -> dict[int, TrialState]:
        """The states of a study's trials among `open_ids`, and of all with a higher identifier.

        Raises:
            KeyError: if there is no such study.
        """
        return self.read(read_open_states, study_id, open_ids, last_id)

    def read_trials(self, study_id: int, trial_ids: Collection[int]) -> list[FrozenTrial]:
        """Those trials of a study, whole.

        Raises:
            KeyError: if there is no such study.
        """
        return self.read(read_trials, study_id, among=trial_ids, above=None)

    def trial_state(self, trial_id: int) -> TrialState:
        """The state of a trial.

        Raises:
            KeyError: if there is no such trial.
        """
        return self.read(read_state, trial_id)

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

    def read(
        self,
        read: Callable[Concatenate[Connection, _P], _T],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        """What a function reads by a connection of its own, which it is called with."""

        def call() -> _T:
            with self.engine.connect() as connection:
                return read(connection, *args, **kwargs)

        return self._retry.call(call)
