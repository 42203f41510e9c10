"""What a search knows of its trials without reading them again, on real databases."""

from __future__ import annotations

from collections.abc import Iterator

import optuna
import pytest
import sqlalchemy
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.study import Study
from optuna.trial import TrialState

from search.storage.cached import CachedStorage, batch_writes
from search.storage.open import opened_storage
from search.storage.retrying import RetryingStorage
from search.study.news import TrialNews

RATE = FloatDistribution(1e-4, 1e-1, log=True)


@pytest.fixture
def study(database_url: str) -> Iterator[Study]:
    """A study by way of a cache."""
    with opened_storage(database_url, create=True) as storage:
        yield optuna.create_study(
            study_name="s", storage=CachedStorage(storage), direction="maximize"
        )


@pytest.fixture
def other(study: Study, database_url: str) -> Iterator[Study]:
    """The same study by way of another process's cache."""
    with opened_storage(database_url, write=True) as storage:
        yield optuna.load_study(study_name="s", storage=CachedStorage(storage))


def database(study: Study) -> RDBStorage:
    backend = study._storage._backend  # type: ignore[attr-defined]
    assert isinstance(backend, RetryingStorage)
    return backend


def is_true(study: Study) -> bool:
    """Whether what the cache knows is what the database holds."""
    stored = database(study).get_all_trials(study._study_id)
    return study.get_trials() == stored


def test_what_it_knows_is_what_is_stored(study: Study) -> None:
    study.enqueue_trial({"rate": 0.01})
    for number in range(4):
        trial = study.ask()
        trial.suggest_float("rate", 1e-4, 1e-1, log=True)
        trial.suggest_categorical("optimizer", ["adamw", "nesterov"])
        assert is_true(study)
        trial.set_user_attr("epochs", [{"epoch": 1}])
        trial.set_user_attr("epochs", [{"epoch": 1}, {"epoch": 2}])
        trial.report(0.5, step=1)
        trial.report(float("inf"), step=2)
        trial.set_constraint("size", -1.0)
        assert study._storage.get_trial(trial._trial_id) == database(study).get_trial(
            trial._trial_id
        )
        if number < 3:
            study.tell(trial, *((0.9,) if number < 2 else (None, TrialState.PRUNED)))
        assert len(study.get_trials(states=(TrialState.RUNNING,))) == (number == 3)
        assert is_true(study)
    assert study.best_value == 0.9


def test_it_sees_what_another_process_does(study: Study, other: Study) -> None:
    ours = study.ask({"rate": RATE})
    assert [trial.state for trial in other.trials] == [TrialState.RUNNING]
    theirs = other.ask({"rate": RATE})
    queued = {"rate": 0.01}
    other.enqueue_trial(queued)
    assert [trial.state.name for trial in study.trials] == ["RUNNING", "RUNNING", "WAITING"]
    assert study.trials[1].params == theirs.params
    assert study.trials[2].system_attrs["fixed_params"] == queued
    other.tell(theirs, 0.5)
    other.tell(ours.number, state=TrialState.FAIL)  # as a person does in a dashboard
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE", "WAITING"]
    with pytest.raises(UpdateFinishedTrialError):
        ours.report(0.5, step=1)
    assert is_true(study)


def test_hyperparameters_of_others_are_seen_as_soon_as_they_are_there(
    study: Study, other: Study
) -> None:
    theirs = other.ask()
    assert study.trials[0].params == {}
    theirs.suggest_float("rate", 1e-4, 1e-1, log=True)
    assert study.trials[0].params == theirs.params


def test_trials_made_in_turns_by_two_processes_are_all_seen(study: Study, other: Study) -> None:
    for _ in range(3):
        study.add_trial(optuna.create_trial(value=0.1))
        other.add_trial(optuna.create_trial(value=0.2))
    assert [trial.value for trial in study.trials] == [0.1, 0.2] * 3
    assert is_true(study)
    assert is_true(other)


def test_a_deleted_trial_is_forgotten(study: Study) -> None:
    first, second = study.ask(), study.ask()
    assert len(study.trials) == 2
    with database(study).engine.begin() as connection:
        connection.execute(
            sqlalchemy.text("DELETE FROM trials WHERE trial_id = :id"), {"id": first._trial_id}
        )
    assert [trial.number for trial in study.trials] == [second.number]
    with pytest.raises(KeyError):
        first.set_user_attr("key", 1)
    with pytest.raises(KeyError), batch_writes(study):
        first.set_user_attr("key", 1)
    assert is_true(study)


def test_a_trial_that_takes_the_identifier_of_a_deleted_one_is_seen(
    study: Study, other: Study
) -> None:
    study.ask()
    last = study.ask()
    assert len(study.trials) == 2
    with database(study).engine.begin() as connection:
        connection.execute(
            sqlalchemy.text("DELETE FROM trials WHERE trial_id = :id"), {"id": last._trial_id}
        )
    assert len(study.trials) == 1
    theirs = other.ask()
    assert [trial.number for trial in study.trials] == [0, theirs.number]


def test_a_deleted_study_is_missed(study: Study) -> None:
    study.ask()
    optuna.delete_study(study_name="s", storage=database(study))
    with pytest.raises(KeyError):
        study.get_trials()


def test_writes_of_one_time_come_together_or_not_at_all(study: Study, other: Study) -> None:
    trial = study.ask()
    with batch_writes(study):
        trial.suggest_float("rate", 1e-4, 1e-1, log=True)
        trial.set_user_attr("parameter_count", 7)
        assert other.trials[0].params == {}
        assert study.trials[0].params == trial.params
    assert other.trials[0].params == trial.params
    assert other.trials[0].user_attrs == {"parameter_count": 7}

    def set_and_fail() -> None:
        with batch_writes(study):
            trial.set_user_attr("parameter_count", 8)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        set_and_fail()
    assert study.trials[0].user_attrs == {"parameter_count": 7}

    other.tell(trial.number, state=TrialState.FAIL)
    with pytest.raises(UpdateFinishedTrialError), batch_writes(study):
        trial.set_user_attr("parameter_count", 9)
    assert is_true(study)


def test_an_end_inside_comes_after_what_was_set_before_it(study: Study) -> None:
    trial = study.ask()
    with batch_writes(study):
        trial.set_user_attr("reason", "weak")
        study.tell(trial, state=TrialState.PRUNED)
    assert study.trials[0].user_attrs == {"reason": "weak"}
    assert is_true(study)


def test_distributions_of_a_name_stay_compatible(study: Study) -> None:
    study.ask({"rate": RATE})
    with pytest.raises(ValueError, match="distribution"):
        study.ask({"rate": CategoricalDistribution((1, 2))})


def test_a_look_costs_the_same_however_many_trials_run(study: Study) -> None:
    statements: list[str] = []

    @sqlalchemy.event.listens_for(database(study).engine, "before_cursor_execute")
    def note(*arguments: object) -> None:
        statements.append(str(arguments[2]))

    def n_statements() -> int:
        study.get_trials(deepcopy=False)
        statements.clear()
        study.get_trials(deepcopy=False)
        return len(statements)

    study.ask({"rate": RATE})
    before = n_statements()
    for _ in range(20):
        study.ask({"rate": RATE})
    assert n_statements() == before == 1


def test_each_finished_trial_is_news_once(study: Study, other: Study) -> None:
    news, plain = TrialNews(), TrialNews()
    memory = optuna.create_study()
    for own in (study, memory):
        first, second = own.ask(), own.ask()
        own.tell(second, 0.5)
        read = (news if own is study else plain).take_new(own)
        assert [trial.number for trial in read.finished] == [1]
        assert [trial.number for trial in read.open] == [0]
        (other if own is study else own).tell(first.number, 0.25)
        read = (news if own is study else plain).take_new(own)
        assert [trial.number for trial in read.finished] == [0]
        assert [trial.number for trial in read.open] == []
        assert (news if own is study else plain).take_new(own).finished == []
