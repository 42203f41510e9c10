"""Studies as rows: none inherits the trials of one that was deleted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from sqlalchemy import event
from sqlalchemy.orm import Session

from search.storage.open import opened_storage


def _delete_while_a_trial_is_made(storage: RDBStorage, url: str) -> None:
    """Deletes the study `old`, of which another process makes a trial between two statements."""
    writers = [optuna.load_study(study_name="old", storage=url)]

    def ask(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("DELETE") and writers:
            writers.pop().ask().suggest_float("x", 0, 1)

    event.listen(storage.engine, "before_cursor_execute", ask)
    optuna.delete_study(study_name="old", storage=storage)


@pytest.mark.parametrize("is_ours", [True, False])
def test_a_study_does_not_inherit_trials_made_while_another_was_deleted(
    is_ours: bool, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    with opened_storage(url, create=True) as storage:
        optuna.create_study(study_name="old", storage=storage)
        if is_ours:
            _delete_while_a_trial_is_made(storage, url)
        else:  # by the dashboard, say
            _delete_while_a_trial_is_made(RDBStorage(url), url)
            assert _n_rows(storage.engine) > 0
            optuna.create_study(study_name="new", storage=storage)
        assert _n_rows(storage.engine) == 0


def _n_rows(engine: Any) -> int:
    """How many rows there are of trials, and of all that belongs to them."""
    with Session(engine) as session:
        return (
            session.query(models.TrialModel).count() + session.query(models.TrialParamModel).count()
        )
