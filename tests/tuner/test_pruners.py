"""When a pruner stops a trial."""

from __future__ import annotations

import math
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from search.storage.open import opened_storage
from search.study.owners import owner_of_this_process
from search.study.record import TrialRecord
from search.study.settings import StudySettings, identity_of
from search.training.epochs import EpochResult
from search.tuner.pruners import make_pruner
from search.tuner.pruning import AccuracyPruning
from search.tuner.trial_writer import RunningTrial, TrialWriter
from tests.support.made_studies import make_study


def stopped_at(epochs: int, accuracies: list[float]) -> int | None:
    """After which epoch halving stops a trial, among ten that keep an accuracy of one half."""
    study = optuna.create_study(direction="maximize", pruner=make_pruner("halving", epochs=epochs))
    for _ in range(10):
        other = study.ask()
        for epoch in range(1, epochs + 1):
            other.report(0.5, epoch)
            other.should_prune()  # by which the pruner takes note of it
        study.tell(other, 0.5)
    trial = study.ask()
    for epoch, accuracy in enumerate(accuracies, start=1):
        trial.report(accuracy, epoch)
        if trial.should_prune():
            return epoch
    return None


def test_a_trial_that_diverged_stops_nobody() -> None:
    study = optuna.create_study(direction="maximize", pruner=make_pruner("halving", epochs=3))
    pruning = AccuracyPruning()
    diverged = study.ask()
    pruning.report(diverged, 1000, 1, 0.9)
    assert not pruning.should_prune(diverged)
    last = EpochResult(2, math.nan, 0.1, 0.05, math.nan, 0.1, 1.0)
    first = EpochResult(1, 0.1, 0.9, 0.05, 0.1, 0.9, 1.0)
    record = TrialRecord(parameter_count=1000, epochs=[first, last])
    record.write(study, diverged._trial_id)
    study.tell(diverged, state=TrialState.PRUNED)
    for accuracy in (0.5, 0.4):
        trial = study.ask()
        TrialRecord(owner=owner_of_this_process()).write(study, trial._trial_id)
        pruning.report(trial, 1000, 1, accuracy)
        assert pruning.should_prune(trial) == (accuracy < 0.5)


def test_what_a_search_begins_with_is_trained_to_its_end(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    make_study(url, "begun", [], epochs=3)
    with opened_storage(url, write=True) as storage:
        pruner = make_pruner("halving", epochs=3)
        study = optuna.load_study(study_name="begun", storage=storage, pruner=pruner)
        space = StudySettings.from_study(study).search_space()
        writer = TrialWriter(study, lambda event: None, known=())

        def stopped(accuracy: float, *, is_first: bool = False) -> str | None:
            trial = study.ask()
            count = space.suggest(trial).spec.parameter_count
            record = TrialRecord(
                owner=owner_of_this_process(), study=identity_of(study), parameter_count=count
            )
            record.write(study, trial._trial_id)
            result = EpochResult(1, 0.1, accuracy, 0.05, 0.1, accuracy, 1.0)
            return writer.add_epoch(RunningTrial(trial, count, is_first=is_first), result)

        assert stopped(0.9) is None
        assert stopped(0.5, is_first=True) is None
        assert stopped(0.5) == "weak after epoch 1"


@pytest.mark.parametrize("epochs", [2, 4, 10, 15, 16, 19, 20])
def test_halving_stops_a_weak_trial_once_and_none_near_its_end(epochs: int) -> None:
    third = -(-epochs // 3)
    assert stopped_at(epochs, [0.1] * epochs) == third
    late = [0.9] * (epochs // 2) + [0.1] * (epochs - epochs // 2)
    assert stopped_at(epochs, late[: epochs - 1]) is None
