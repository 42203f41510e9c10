"""Each call of Optuna's storage fails in words of ours: none is left out, none is added unseen."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from optuna.distributions import FloatDistribution
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import BaseModel
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy import event

from search.exceptions import DatabaseError
from search.storage.open import opened_storage
from search.storage.retrying import RetryingStorage

# What Optuna's methods take, by the names of their parameters.
ARGUMENTS: dict[str, Any] = {
    "deepcopy": False,
    "direction": StudyDirection.MAXIMIZE,
    "directions": [StudyDirection.MAXIMIZE],
    "distribution": FloatDistribution(0, 1),
    "included_trial_ids": {1},
    "intermediate_value": 0.5,
    "key": "key",
    "param_name": "x",
    "param_value_internal": 0.5,
    "previous_distribution": None,
    "state": TrialState.COMPLETE,
    "states": None,
    "step": 1,
    "study_id": 1,
    "study_name": "s",
    "template_trial": None,
    "trial_id": 1,
    "trial_id_greater_than": -1,
    "trial_number": 0,
    "trial_state": TrialState.COMPLETE,
    "value": "value",
    "values": [0.5],
}
# Optuna's tools for a schema, and its own search for lost trials, which needs an interval that no
# storage of ours has. No search calls these.
NOT_CALLED = ("upgrade", "get_current_version", "_get_stale_trial_ids")
PARTS = ("session", "trial")  # what only a part of a call takes: its transaction, or a row in it


def optunas_calls() -> list[str]:
    """The methods of Optuna's storage, those that it inherits among them."""
    return [
        name
        for name, method in inspect.getmembers(RDBStorage, inspect.isfunction)
        if not name.startswith("__")
        and name not in NOT_CALLED
        and not isinstance(inspect.getattr_static(RDBStorage, name), staticmethod)
        and not set(PARTS) & set(inspect.signature(method).parameters)
    ]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RetryingStorage]:
    """The storage of a database that has lost its tables."""
    path = tmp_path_factory.mktemp("broken") / "studies.db"
    with opened_storage(f"sqlite:///{path}", create=True) as storage:
        BaseModel.metadata.drop_all(storage.engine)
        yield storage


@pytest.mark.filterwarnings("ignore::FutureWarning")  # Optuna's, of what it has renamed
@pytest.mark.parametrize("name", optunas_calls())
def test_a_call_of_optunas_reaches_no_database_or_fails_in_words_of_ours(
    name: str, broken: RetryingStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)  # as Optuna does between its own tries
    method = getattr(broken, name)
    arguments = {key: ARGUMENTS[key] for key in inspect.signature(method).parameters}
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    event.listen(broken.engine, "before_cursor_execute", note)
    try:
        with suppress(DatabaseError):
            method(**arguments)
            assert not statements
    finally:
        event.remove(broken.engine, "before_cursor_execute", note)
