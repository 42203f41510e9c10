"""Trials read by rows are those that Optuna reads, on real databases."""

from __future__ import annotations

import math

import optuna
import pytest
import sqlalchemy
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.exceptions import DatabaseError
from search.storage.open import opened_storage
from search.storage.retrying import RetryingStorage
from search.storage.rows import MARK, read_trials

RATE, WIDTH = FloatDistribution(1e-4, 1e-1, log=True), IntDistribution(4, 32, step=2)
NAME = CategoricalDistribution((None, "sgd", 0.5, True))


def filled(storage: RetryingStorage) -> Study:
    """A study with a trial of each state and kind of value, beside another study's trials."""
    other = optuna.create_study(study_name="other", storage=storage)
    study = optuna.create_study(
        study_name="filled", storage=storage, directions=["maximize", "minimize"]
    )
    for state in TrialState:
        for value in (0.5, math.inf, -math.inf):
            is_complete = state == TrialState.COMPLETE
            is_queued = state == TrialState.WAITING
            study.add_trial(
                create_trial(
                    state=state,
                    values=[value, 10] if is_complete else None,
                    params={} if is_queued else {"width": 8, "rate": 0.01, "name": None},
                    distributions={} if is_queued else {"width": WIDTH, "rate": RATE, "name": NAME},
                    user_attrs={"epochs": [{"epoch": 1, "accuracy": value}], "é": None},
                    system_attrs={"fixed_params": {"rate": 0.01}},
                    intermediate_values={} if is_queued else {2: value, 1: 0.25},
                )
            )
            other.add_trial(create_trial(value=0.0))
    return study


def optunas(
    storage: RetryingStorage, study: Study, states: tuple[TrialState, ...] | None = None
) -> list[FrozenTrial]:
    trials = RDBStorage._get_trials(storage, study._study_id, states, set(), -1)
    for trial in trials:
        trial._system_attrs.pop(MARK, None)  # our own on a server, which no trial is shown with
    return trials


def test_all_trials_are_read_as_optuna_reads_them(database_url: str) -> None:
    with opened_storage(database_url, create=True) as storage:
        study = filled(storage)
        trials = storage.get_all_trials(study._study_id)
        assert len(trials) == 15
        assert trials == optunas(storage, study)
        for read, own in zip(trials, optunas(storage, study), strict=True):
            assert list(read.params) == list(own.params)
        some = (TrialState.COMPLETE, TrialState.RUNNING)
        assert storage.get_all_trials(study._study_id, states=some) == optunas(storage, study, some)


@pytest.mark.parametrize("at_a_time", [1, 4, 500])
def test_some_trials_are_read_by_their_identifiers(database_url: str, at_a_time: int) -> None:
    with opened_storage(database_url, create=True) as storage:
        study = filled(storage)
        trials = storage.get_all_trials(study._study_id)
        ids = [trial._trial_id for trial in trials]

        def read(among: set[int], above: int | None) -> list[FrozenTrial]:
            with storage.engine.connect() as connection:
                return read_trials(
                    connection, study._study_id, among=among, above=above, at_a_time=at_a_time
                )

        assert read(set(), -1) == trials
        some = {ids[1], ids[3], ids[12], 10**6}
        assert read(some, ids[10]) == [trials[1], trials[3], *trials[11:]]
        assert read(some, None) == [trials[1], trials[3], trials[12]]
        assert read(set(), None) == []


def test_states_of_more_trials_are_read_than_a_statement_takes(database_url: str) -> None:
    with opened_storage(database_url, create=True) as storage:
        study = filled(storage)
        trials = storage.get_all_trials(study._study_id)
        last = trials[9]._trial_id
        many = {trials[0]._trial_id, trials[5]._trial_id, *range(10**6, 10**6 + 40_000)}
        found = storage.open_trial_states(study._study_id, many, last)
        expected = [trials[0], trials[5], *trials[10:]]
        assert found == {trial._trial_id: trial.state for trial in expected}


def test_a_study_that_is_not_there_is_no_empty_one(database_url: str) -> None:
    with opened_storage(database_url, create=True) as storage:
        study = optuna.create_study(study_name="empty", storage=storage)
        assert storage.get_all_trials(study._study_id) == []
        with pytest.raises(KeyError):
            storage.get_all_trials(study._study_id + 1)


@pytest.mark.parametrize(
    "change",
    [
        "trial_params SET distribution_json = '{}'",
        'trial_params SET distribution_json = \'{"name": "IntDistribution", "attributes": '
        '{"low": 0, "high": 1e999}}\'',
        "trials SET number = NULL WHERE number = 0",
        "trial_params SET param_value = NULL",
        "trial_user_attributes SET value_json = '['",
        "trial_values SET value = NULL",
        "study_user_attributes SET value_json = 'x'",
    ],
)
def test_a_row_that_optuna_cannot_have_written_is_told(change: str, database_url: str) -> None:
    with opened_storage(database_url, create=True) as storage:
        filled(storage).set_user_attr("note", "mine")
        with storage.engine.begin() as connection:
            connection.execute(sqlalchemy.text(f"UPDATE {change}"))
    with pytest.raises(DatabaseError, match="row was changed"):
        read_whole(database_url)


def test_so_is_one_that_is_asked_for_alone(database_url: str) -> None:
    with opened_storage(database_url, create=True) as storage:
        trial_id = filled(storage).trials[0]._trial_id
        for kind, read in {
            "user": storage.get_trial_user_attrs,
            "system": storage.get_trial_system_attrs,
        }.items():
            with storage.engine.begin() as connection:
                change = f"UPDATE trial_{kind}_attributes SET value_json = '['"
                connection.execute(sqlalchemy.text(change))
            with pytest.raises(DatabaseError, match="row was changed"):
                read(trial_id)


def test_what_a_reader_of_ours_gets_wrong_is_no_damaged_row(database_url: str) -> None:
    with opened_storage(database_url, create=True) as storage:
        study_id = filled(storage)._study_id
        with pytest.raises(ValueError, match="islice"):
            storage.read(read_trials, study_id, among=[1], above=None, at_a_time=-1)
        with pytest.raises(KeyError, match="nothing"):
            storage.read(lambda _: dict[str, int]()["nothing"])


def read_whole(url: str) -> None:
    with opened_storage(url) as storage:
        study = optuna.load_study(study_name="filled", storage=storage)
        assert study.user_attrs
        study.get_trials()
