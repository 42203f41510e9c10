"""Trials as rows of Optuna's tables, read and written many at a time.

Optuna makes an object of each row and parses each distribution anew, which for thousands of trials
takes several times as long as reading them.
"""

from __future__ import annotations

import datetime
import json
from collections import defaultdict
from collections.abc import Callable, Collection, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from typing import Any

import sqlalchemy
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import CompoundSelect, Connection
from sqlalchemy.dialects import postgresql, sqlite

from search.storage.collection import no_collection

_AT_A_TIME = 500  # trials; SQLite took no more than 999 values in a statement before 3.32
# A system attribute that tells a trial from one that the same call has made before its connection
# broke; nobody is shown it.
MARK = "budget-search:made"
_INSERTS: dict[str, Callable[[Any], Any]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}
# What Optuna, SQLAlchemy and JSON raise of a row that holds something else than they wrote.
_UNREADABLE = (ValueError, TypeError, LookupError, OverflowError, AssertionError, RecursionError)


class UnreadableRowError(Exception):
    """A row is none that Optuna has written."""


@contextmanager
def parsing_rows() -> Iterator[None]:
    """Raises UnreadableRowError where what parses rows does not understand one.

    Only such code belongs inside: whatever else fails there would be called a damaged row.
    """
    try:
        yield
    except _UNREADABLE as error:
        if error.args == (models.NOT_FOUND_MSG,):  # Optuna's, of what is not there
            raise
        raise UnreadableRowError(str(error) or type(error).__name__) from error


def unmarked(trial: FrozenTrial) -> FrozenTrial:
    """The trial, without its mark."""
    trial.system_attrs.pop(MARK, None)
    return trial


@dataclass(slots=True)
class TrialWrites:
    """What is set of one trial at one time.

    Args:
        params: distribution and value, as a user sees it.
    """

    params: dict[str, tuple[BaseDistribution, Any]] = field(default_factory=dict)
    user_attrs: dict[str, Any] = field(default_factory=dict)
    system_attrs: dict[str, Any] = field(default_factory=dict)
    intermediate_values: dict[int, float] = field(default_factory=dict)

    def add(self, later: TrialWrites) -> None:
        self.params.update(later.params)
        self.user_attrs.update(later.user_attrs)
        self.system_attrs.update(later.system_attrs)
        self.intermediate_values.update(later.intermediate_values)


def can_write(database: str) -> bool:
    """Whether `write_trial` knows a database, by SQLAlchemy's name for it."""
    return database in _INSERTS


def write_trial(connection: Connection, trial_id: int, writes: TrialWrites) -> None:
    """Writes all of that; to do it twice is to do it once."""
    for table, keys, rows in _rows(trial_id, writes):
        if rows:
            connection.execute(_upsert(connection.dialect.name, table, keys), rows)


def read_state(connection: Connection, trial_id: int, *, for_update: bool = False) -> TrialState:
    """The state of a trial.

    Raises:
        KeyError: if there is no such trial.
    """
    query = sqlalchemy.select(models.TrialModel.state).where(models.TrialModel.trial_id == trial_id)
    with parsing_rows():
        state: TrialState | None = connection.scalar(
            query.with_for_update() if for_update else query
        )
    if state is None:
        raise KeyError(models.NOT_FOUND_MSG)
    return state


def read_open_states(
    connection: Connection, study_id: int, open_ids: Collection[int], last_id: int
) -> dict[int, TrialState]:
    """The states of a study's trials among `open_ids`, and of all with a higher identifier.

    Raises:
        KeyError: if there is no such study.
    """
    trials = models.TrialModel
    query = sqlalchemy.select(trials.trial_id, trials.state).where(trials.study_id == study_id)
    # Not one condition with OR, for which a database goes through all trials of the study.
    newer = query.where(trials.trial_id > last_id)
    first, *others = list(_chunks(sorted(open_ids), _AT_A_TIME)) or [[]]
    union = sqlalchemy.union_all(newer, query.where(trials.trial_id.in_(first)))
    rows = _fetch(connection, union)
    for ids in others:
        rows += _fetch(connection, query.where(trials.trial_id.in_(ids)))
    if not rows:
        _check_study(connection, study_id)
    return dict(rows)


def read_silent(connection: Connection, study_id: int, seconds: float) -> set[int]:
    """Identifiers of a study's running trials without a heartbeat for so long, or ever.

    Of PostgreSQL alone, and by its clock; time in which it was away does not count.
    """
    query = sqlalchemy.text(
        "SELECT trials.trial_id FROM trials LEFT JOIN trial_heartbeats USING (trial_id) "
        "WHERE study_id = :study_id AND state = 'RUNNING' AND (heartbeat IS NULL OR "
        "localtimestamp - greatest(heartbeat, pg_postmaster_start_time()::timestamp) "
        "> make_interval(secs => :seconds))"
    )
    return set(connection.scalars(query, {"study_id": study_id, "seconds": seconds}))


def read_trials(
    connection: Connection,
    study_id: int,
    *,
    states: Container[TrialState] | None = None,
    among: Collection[int] = (),
    above: int | None = -1,
    at_a_time: int = _AT_A_TIME,
) -> list[FrozenTrial]:
    """A study's trials by their identifiers: those `among` some, and all with one `above`.

    Args:
        above: None for none but those `among`.
        at_a_time: how many trials a statement asks for.

    Raises:
        KeyError: if there is no such study.
    """
    trials = models.TrialModel
    columns = trials.__table__.c
    query = sqlalchemy.select(
        trials.trial_id,
        trials.number,
        trials.state,
        columns.datetime_start,
        columns.datetime_complete,
    ).where(trials.study_id == study_id)
    rows: list[Any] = []
    if above is not None:
        rows += _fetch(connection, query.where(trials.trial_id > above))
    ids = sorted(trial_id for trial_id in among if above is None or trial_id <= above)
    for some in _chunks(ids, at_a_time):
        rows += _fetch(connection, query.where(trials.trial_id.in_(some)))
    if not rows:
        _check_study(connection, study_id)
    rows = sorted(row for row in rows if states is None or row.state in states)
    parse = cache(json_to_distribution)
    found: list[FrozenTrial] = []
    with no_collection():
        for chunk in _chunks(rows, at_a_time):
            found += _with_details(connection, chunk, parse)
    return found


def _fetch(
    connection: Connection, query: sqlalchemy.Select[Any] | CompoundSelect[Any]
) -> list[Any]:
    with parsing_rows():
        return list(connection.execute(query).all())


def _check_study(connection: Connection, study_id: int) -> None:
    """Raises KeyError where there is no such study."""
    studies = models.StudyModel
    query = sqlalchemy.select(studies.study_id).where(studies.study_id == study_id)
    if connection.scalar(query) is None:
        raise KeyError(models.NOT_FOUND_MSG)


def _chunks(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


def _with_details(
    connection: Connection,
    rows: Sequence[Any],
    parse: Callable[[str], BaseDistribution],
) -> Iterator[FrozenTrial]:
    ids = [row.trial_id for row in rows]

    def read(*columns: Any) -> dict[int, list[Any]]:
        """Rows of a table by trial, in the order in which they were written."""
        table = columns[0].class_
        order = sqlalchemy.inspect(table).primary_key
        query = sqlalchemy.select(table.trial_id, *columns).where(table.trial_id.in_(ids))
        found: dict[int, list[Any]] = defaultdict(list)
        for trial_id, *values in _fetch(connection, query.order_by(*order)):
            found[trial_id].append(values)
        return found

    params, values = models.TrialParamModel, models.TrialValueModel
    user, system = models.TrialUserAttributeModel, models.TrialSystemAttributeModel
    steps = models.TrialIntermediateValueModel
    stored_values = read(values.objective, values.value, values.value_type)
    stored_params = read(params.param_name, params.param_value, params.distribution_json)
    stored_user, stored_system = (
        read(user.key, user.value_json),
        read(system.key, system.value_json),
    )
    stored_steps = read(steps.step, steps.intermediate_value, steps.intermediate_value_type)
    for trial_id, number, state, started, completed in rows:
        if number is None:  # which the column may be, and no trial is
            raise UnreadableRowError(f"trial_id {trial_id} has no number")
        with parsing_rows():
            drawn = [(name, value, parse(text)) for name, value, text in stored_params[trial_id]]
            trial = FrozenTrial(
                number=number,
                state=state,
                value=None,
                values=[
                    values.stored_repr_to_value(value, kind)
                    for _, value, kind in sorted(stored_values[trial_id], key=lambda row: row[0])
                ]
                or None,
                datetime_start=_local(started),
                datetime_complete=_local(completed),
                params={name: kind.to_external_repr(value) for name, value, kind in drawn},
                distributions={name: kind for name, _, kind in drawn},
                user_attrs={key: json.loads(text) for key, text in stored_user[trial_id]},
                system_attrs={
                    key: json.loads(text) for key, text in stored_system[trial_id] if key != MARK
                },
                intermediate_values={
                    step: steps.stored_repr_to_intermediate_value(value, kind)
                    for step, value, kind in stored_steps[trial_id]
                },
                trial_id=trial_id,
            )
        yield trial


def _local(utc: datetime.datetime | None) -> datetime.datetime | None:
    """A time as Optuna's tables have it, as its trials have it."""
    if utc is None:
        return None
    return utc.replace(tzinfo=datetime.UTC).astimezone().replace(tzinfo=None)


def _rows(
    trial_id: int, writes: TrialWrites
) -> Iterator[tuple[type[models.BaseModel], tuple[str, ...], list[dict[str, Any]]]]:
    """Rows of Optuna's tables, and which of their columns tell one row from another."""
    own = {"trial_id": trial_id}
    parameters = [
        {
            **own,
            "param_name": name,
            "param_value": distribution.to_internal_repr(value),
            "distribution_json": distribution_to_json(distribution),
        }
        for name, (distribution, value) in writes.params.items()
    ]
    yield models.TrialParamModel, ("trial_id", "param_name"), parameters
    for table, attributes in (
        (models.TrialUserAttributeModel, writes.user_attrs),
        (models.TrialSystemAttributeModel, writes.system_attrs),
    ):
        rows = [
            {**own, "key": key, "value_json": json.dumps(value)}
            for key, value in attributes.items()
        ]
        yield table, ("trial_id", "key"), rows
    values = []
    for step, number in writes.intermediate_values.items():
        stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(number)
        values.append(
            {**own, "step": step, "intermediate_value": stored, "intermediate_value_type": kind}
        )
    yield models.TrialIntermediateValueModel, ("trial_id", "step"), values


def _upsert(database: str, table: type[models.BaseModel], keys: Sequence[str]) -> Any:
    insert = _INSERTS[database](table)
    columns = {column.name for column in table.__table__.columns if not column.primary_key}
    changed = {name: insert.excluded[name] for name in columns.difference(keys)}
    return insert.on_conflict_do_update(index_elements=keys, set_=changed)
