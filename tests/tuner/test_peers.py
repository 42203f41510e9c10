"""Searches of a recorded task at equal training seconds, by ours and over the line to a peer."""

from __future__ import annotations

import math
import random
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from scripts.experiments.draws import draw
from scripts.experiments.peers import client
from scripts.experiments.peers.client import play_peer
from scripts.experiments.peers.real import RealTrainer
from scripts.experiments.peers.table import markdown
from scripts.experiments.peers.tasks import RecordedTask, RecordedTrainer, space_of
from scripts.experiments.peers.ways import WAYS, train_trial
from scripts.experiments.recipe_features import design_features
from scripts.experiments.recorded_points import Point
from scripts.experiments.surrogate import Surrogate
from search.data.load import load_dataset
from search.study.record import is_foreign
from search.study.summary import is_trained
from search.tuner.pruners import make_pruner
from search_models.network import in_notation

EPOCHS = 15
PEER = """
import json, sys
task = json.loads(sys.stdin.readline())
assert set(task["first"]) == set(task["space"])
number = 0
while True:
    for epoch in (1, task["epochs"]):
        asked = {"key": str(number), "values": task["first"], "epoch": epoch}
        print(json.dumps(asked), flush=True)
        assert len(json.loads(sys.stdin.readline())["accuracies"]) == epoch
    number += 1
"""


@pytest.fixture(scope="module")
def task() -> RecordedTask:
    """The digits' space, where a learning rate near 0.01 is best."""
    space = space_of("digits")

    def point(number: int) -> Point:
        recipe = space.hyperparameters(draw(space, random.Random(number), spread=None))
        error = 0.02 * math.exp(math.log(recipe.learning_rate / 0.01) ** 2 / 4)
        errors = [min(0.9, error * (1 + 4 / epoch)) for epoch in range(1, EPOCHS + 1)]
        return Point(recipe, tuple(1 - each for each in errors), 1.0, EPOCHS, "one")

    points = [point(number) for number in range(40)]
    surrogate = Surrogate(points, kinds=("isotropic",), featured=design_features)
    first = space.hyperparameters(space.first())
    whole = EPOCHS * surrogate.cost.epoch_seconds(in_notation(first.spec))
    return RecordedTask("digits", space, surrogate, EPOCHS, whole)


def trainer(task: RecordedTask, length: float) -> RecordedTrainer:
    return RecordedTrainer(task, seed=1, seconds=length * task.whole_seconds)


def test_a_training_goes_on_from_where_it_was_until_the_seconds_are_over(
    task: RecordedTask,
) -> None:
    trains, first = trainer(task, 1.5), task.space.first()

    assert len(trains.train("a", first, 5)) == 5
    spent = trains.spent
    assert len(trains.train("a", first, 5)) == 5
    assert trains.spent == spent
    whole = trains.train("a", first, EPOCHS)
    assert len(whole) == EPOCHS
    assert trains.spent == pytest.approx(task.whole_seconds)
    assert trains.train("b", first, EPOCHS) == []
    assert trains.is_over
    recipe = task.space.hyperparameters(first)
    assert trains.winner() == task.surrogate.answer(recipe, 0).true_value


def test_the_first_configuration_is_in_the_race_whatever_luck_others_had(
    task: RecordedTask,
) -> None:
    def true_value(values: dict[str, Any]) -> float:
        return task.surrogate.answer(task.space.hyperparameters(values), 1).true_value

    trains = trainer(task, 50)
    first = task.space.first()
    drawn = [draw(task.space, random.Random(seed), spread=None) for seed in range(40)]
    weakest = sorted(drawn, key=true_value)[:3]
    for number, values in enumerate([first, *weakest]):
        assert trains.train(str(number), values, EPOCHS)
    for key in ("1", "2", "3"):
        trains.trained[key].accuracies[:] = [1.0] * EPOCHS

    assert trains.trained["0"] not in trains.best()
    assert trains.winner() == true_value(first)


@pytest.mark.parametrize("way", sorted(WAYS))
def test_each_way_uses_its_seconds_and_finds_something(task: RecordedTask, way: str) -> None:
    trains = trainer(task, 8)
    WAYS[way](trains)

    whole = [one for one in trains.trained.values() if len(one.accuracies) == EPOCHS]
    assert whole
    assert trains.is_over == (way != "first alone")
    assert all(len(one.accuracies) <= EPOCHS for one in trains.trained.values())
    assert min(task.surrogate.answer(one.recipe, 1).true_value for one in whole) <= trains.winner()
    if "no first values" not in way:
        first = task.space.hyperparameters(task.space.first())
        assert trains.trained["0"].recipe == first


def test_ours_learns_of_each_trial_that_is_played(task: RecordedTask) -> None:
    trains = trainer(task, 8)
    study = optuna.create_study(direction="maximize", pruner=make_pruner("halving", epochs=EPOCHS))
    study.enqueue_trial(task.space.first())
    for _ in range(5):
        train_trial(study, study.ask(), trains)

    trials = study.get_trials()
    assert {trial.state for trial in trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    assert all(is_trained(trial) and not is_foreign(trial) for trial in trials)


def test_a_peer_is_served_until_the_seconds_are_over(
    task: RecordedTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "peer.py").write_text(PEER)
    python = tmp_path / "neps" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    monkeypatch.setitem(client.PEERS, "neps", tmp_path / "peer.py")
    trains = trainer(task, 3.5)
    play_peer("neps", tmp_path, trains)

    assert trains.is_over
    assert [len(one.accuracies) for one in trains.trained.values()][:3] == [EPOCHS] * 3

    (tmp_path / "peer.py").write_text("pass")
    with pytest.raises(RuntimeError, match="ended before its seconds were over"):
        play_peer("neps", tmp_path, trainer(task, 1))


def test_a_real_training_goes_on_from_where_it_was_as_well() -> None:
    trains = RealTrainer("digits-8000", "ours", load_dataset("digits", None), seed=0)
    first = trains.space.first()

    (one,) = trains.train("a", first, 1)
    spent = trains.spent
    assert 0 < one < 1
    assert trains.train("a", first, 2)[0] == one
    assert 0 < spent < trains.spent < trains.seconds
    assert trains.best() == [trains.trained["a"]]  # none is whole, and none is further
    assert not trains.steps


def test_ways_are_compared_by_pairs_in_units_of_a_training_s_noise() -> None:
    found = {("digits", "ours", seed): 0.98 + 0.001 * seed for seed in range(3)}
    found |= {("digits", "other", seed): 0.979 + 0.001 * seed for seed in range(3)}
    shown = markdown(found, {"digits": 0.002}).splitlines()

    assert shown[2] == "| ours | 98.10 |  | 3 |"
    assert shown[3] == "| other | 98.00 | -0.50 (-0.50 to -0.50) | 3 |"
