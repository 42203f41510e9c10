"""What is stored with a trial: the form that every version has written, and what is no record."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from search.exceptions import StudyDeletedError, StudyError
from search.storage.cached import CachedStorage, batch_writes
from search.storage.open import opened_storage
from search.study.record import NO_RECORD, Owner, TrialRecord, is_foreign, queued_values
from search.study.settings import StudySettings
from search.study.summary import is_trained, training_seconds
from search.training.epochs import EpochResult
from tests.support.made_studies import MadeTrial, make_study

# As version 0.1.0 stored a trial that was stopped.
_STORED: dict[str, Any] = {
    "owner": {"host": "vm", "machine": "60ff9c6d/pid:[4026531836]", "pid": 2883, "started": 131.6},
    "parameter_count": 1111,
    "redraws": 0,
    "training_seed": 1369798745,
    "epochs": [
        {
            "epoch": 1,
            "training_loss": 2.08,
            "training_accuracy": 0.25,
            "learning_rate": 0.16,
            "loss": 4.1,
            "accuracy": 0.1615598885793872,
            "seconds": 0.168,
        }
    ],
    "worker": "vm/0",
    "seconds": 0.077,
    "reason": "weak after epoch 1",
}
_RECORD = TrialRecord(
    owner=Owner("vm", "60ff9c6d/pid:[4026531836]", 2883, 131.6),
    parameter_count=1111,
    redraws=0,
    training_seed=1369798745,
    epochs=[EpochResult(1, 2.08, 0.25, 0.16, 4.1, 0.1615598885793872, 0.168)],
    worker="vm/0",
    seconds=0.077,
    reason="weak after epoch 1",
)


def _trial(attributes: dict[str, Any], state: TrialState = TrialState.PRUNED) -> FrozenTrial:
    value = 0.1615598885793872 if state == TrialState.COMPLETE else None
    return optuna.create_trial(state=state, value=value, user_attrs=attributes)


def test_a_record_is_stored_in_the_form_that_every_version_reads() -> None:
    assert json.dumps(_RECORD.to_attributes(), sort_keys=True) == json.dumps(
        _STORED, sort_keys=True
    )
    repeat = TrialRecord(repeats=7, crashes=0, training_seed=5, from_study="old/3", shrunk=True)
    assert repeat.to_attributes() == {
        "repeats": 7,
        "crashes": 0,
        "training_seed": 5,
        "from_study": "old/3",
        "shrunk": True,
    }
    assert TrialRecord(seconds=1.23456).to_attributes() == {"seconds": 1.235}


def test_what_is_stored_is_read_back() -> None:
    record = TrialRecord.read(_trial(_STORED))

    assert record.to_attributes() == _STORED
    assert (record.owner, list(record.epochs)) == (_RECORD.owner, list(_RECORD.epochs))


def test_what_is_written_of_a_trial_stands_beside_what_is_there(tmp_path: Path) -> None:
    with opened_storage(f"sqlite:///{tmp_path}/studies.db", create=True) as storage:
        study = optuna.create_study(storage=CachedStorage(storage))
        trial = study.ask()
        TrialRecord(training_seed=5).write(study, trial._trial_id)
        with batch_writes(study):
            TrialRecord(parameter_count=7, epochs=_RECORD.epochs).write(study, trial._trial_id)
            TrialRecord(reason="weak").write(study, trial._trial_id)
        study.tell(trial, state=TrialState.PRUNED)

        (stored,) = optuna.load_study(study_name=study.study_name, storage=storage).trials
    assert stored.user_attrs == {
        "training_seed": 5,
        "parameter_count": 7,
        "epochs": _STORED["epochs"],
        "reason": "weak",
    }
    assert TrialRecord.read(stored).parameter_count == 7


def test_what_epochs_write_grows_as_they_do_and_is_read_back_whole(tmp_path: Path) -> None:
    epochs = [replace(_RECORD.epochs[0], epoch=number) for number in range(1, 401)]
    with opened_storage(f"sqlite:///{tmp_path}/studies.db", create=True) as storage:
        study = optuna.create_study(storage=CachedStorage(storage))
        trial = study.ask()
        written: list[int] = []

        def note(_c: Any, _u: Any, statement: str, values: Any, *_others: Any) -> None:
            if statement.startswith("INSERT INTO trial_user_attributes"):
                written[-1] += len(str(values))

        sqlalchemy.event.listen(storage.engine, "before_cursor_execute", note)
        for n in range(1, len(epochs) + 1):
            written.append(0)
            TrialRecord.write_last_epoch(epochs[:n], study, trial._trial_id)
        TrialRecord(parameter_count=7).write(study, trial._trial_id)
        (stored,) = optuna.load_study(study_name=study.study_name, storage=storage).trials
    assert sum(written[200:]) < 1.1 * sum(written[:200]), "twice the epochs are twice the bytes"
    assert list(TrialRecord.read(stored).epochs) == epochs
    assert stored.user_attrs["epochs_20"][-1]["epoch"] == 400
    whole = TrialRecord(parameter_count=7, epochs=epochs)
    assert whole.to_attributes() == stored.user_attrs
    # As earlier versions stored any number of them.
    in_one = {**_STORED, "epochs": [result.to_dict() for result in epochs]}
    assert list(TrialRecord.read(_trial(in_one)).epochs) == epochs
    # A block that is missing or was written by somebody else is no part of a record.
    torn = {**stored.user_attrs, "epochs_3": [{"epoch": 41}]}
    assert TrialRecord.read(_trial(torn)) is NO_RECORD


def test_numbers_that_were_not_finite_are_null_in_the_database() -> None:
    diverged = EpochResult(2, math.inf, 0.1, 0.05, math.nan, 0.1, 1.5)
    stored = TrialRecord(epochs=[*_RECORD.epochs, diverged]).to_attributes()
    assert (stored["epochs"][1]["training_loss"], stored["epochs"][1]["loss"]) == (None, None)

    first, last = TrialRecord.read(_trial(stored)).epochs

    assert first.is_finite
    assert not last.is_finite
    assert (last.epoch, last.accuracy, last.seconds) == (2, 0.1, 1.5)


def test_of_a_trial_that_failed_only_the_epochs_tell_how_long_it_trained() -> None:
    stored = {key: _STORED[key] for key in ("epochs", "training_seed")}
    assert training_seconds(_trial(stored, TrialState.FAIL)) == 0.168
    assert training_seconds(_trial(_STORED)) == 0.077


def test_the_oldest_owners_name_no_machine() -> None:
    owner = {key: value for key, value in _STORED["owner"].items() if key != "machine"}

    assert TrialRecord.read(_trial({"owner": owner})).owner == Owner("vm", None, 2883, 131.6)


@pytest.mark.parametrize("stored", [{}, {"note": "by hand", "Epochs": 3}])
def test_a_trial_that_no_search_has_written_has_no_record(stored: dict[str, Any]) -> None:
    trial = _trial(stored, TrialState.COMPLETE)

    assert TrialRecord.read(trial) is NO_RECORD
    assert not is_trained(trial)
    assert TrialRecord.read(_trial({**_STORED, **stored})).seconds == 0.077


@pytest.mark.parametrize(
    "stored",
    [
        {"epochs": 15},
        {"epochs": [1, 2, 3]},
        {"epochs": {"epoch": 1}},
        {"parameter_count": "many"},
        {"parameter_count": 7.5},
        {"parameter_count": True},
        {"epochs": []},
        {"epochs": [{"accuracy": 0.1615598885793872, "loss": "low"}]},
        {"epochs": [{**_STORED["epochs"][0], "epoch": 2}]},
        {"epochs": [{**_STORED["epochs"][0], "accuracy": None}]},
        {"epochs": [{**_STORED["epochs"][0], "accuracy": 88.5}]},
        {"epochs": [{**_STORED["epochs"][0], "seconds": math.inf}]},
        {"epochs": [{**_STORED["epochs"][0], "seconds": 1e300}]},  # of which two are no number
        {"epochs": [{**_STORED["epochs"][0], "loss": 10**400}]},
        {"parameter_count": 10**400},
        {"epochs": [{**_STORED["epochs"][0], "accuracy": 0.5}]},  # which is not the value
    ],
)
def test_a_record_that_no_search_can_have_written_is_none(stored: dict[str, Any]) -> None:
    trial = _trial({**_STORED, **stored}, TrialState.COMPLETE)

    assert TrialRecord.read(trial) is NO_RECORD
    assert is_foreign(trial)
    assert not is_trained(trial)


def test_a_complete_trial_without_a_value_is_no_searchs() -> None:
    trial = _trial(_STORED)
    trial.state = TrialState.COMPLETE  # as a person may set it in the database
    assert TrialRecord.read(trial) is NO_RECORD


@pytest.mark.parametrize(
    "stored",
    [
        {"owner": "me"},
        {"owner": {"host": "vm"}},
        {"owner": {**_STORED["owner"], "pid": "2883"}},
        {"owner": {**_STORED["owner"], "pid": -1}},
        {"owner": {**_STORED["owner"], "started": 10**400}},
        {"seconds": None},
        {"seconds": 10**400},
        {"training_seed": 10**400},
        {"repeats": [1]},
        {"reason": 5},
        {"change": 3},
        {"settings": {"note": "mine"}},
        {"from_study": 7},
    ],
)
def test_an_attribute_of_a_persons_own_costs_a_trial_that_part_alone(
    stored: dict[str, Any],
) -> None:
    trial = _trial({**_STORED, **stored}, TrialState.COMPLETE)
    others = _trial({key: value for key, value in _STORED.items() if key not in stored})

    assert TrialRecord.read(trial).to_attributes() == TrialRecord.read(others).to_attributes()
    assert is_trained(trial)


def test_what_was_queued_is_told_from_what_was_drawn() -> None:
    study = optuna.create_study()
    study.enqueue_trial({"momentum": 0.5})
    queued, drawn = study.ask(), study.ask()

    assert queued_values(study.trials[queued.number]) == {"momentum": 0.5}
    assert queued_values(study.trials[drawn.number]) is None


class _AfterItsAttributes(RDBStorage):
    """As one is read in two steps, between which a study's attributes go, and it with them."""

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return {}


def test_a_study_that_is_deleted_while_it_is_read_is_told_to_be_gone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    make_study(url, "made", [MadeTrial([0.5] * 3)])
    study = optuna.load_study(study_name="made", storage=_AfterItsAttributes(url))
    with pytest.raises(StudyError, match="'made' holds no settings"):
        StudySettings.from_study(study)
    optuna.delete_study(study_name="made", storage=url)
    with pytest.raises(StudyDeletedError, match="'made' was deleted meanwhile"):
        StudySettings.from_study(study)
