"""Recorded tasks: what any configuration of the default space would show, from `draws.jsonl`.

A search of one trains by what is recorded.

None of them judges the default. `scripts/experiments/trainings.py` says what images they are, and
how they were trained.
"""

from __future__ import annotations

import functools
import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.benchmarks.step_flops import step_flops
from scripts.experiments import default_space, draws
from scripts.experiments.peers.trainer import Trainer
from scripts.experiments.recipe_features import design_features
from scripts.experiments.recorded_points import Point
from scripts.experiments.surrogate import Surrogate
from scripts.experiments.trainings import TASKS
from search.space.adaptive import Situation, adaptive_table
from search.space.hyperparameters import Hyperparameters
from search.space.space import Space
from search.space.toml import ADAPTIVE
from search.training.epochs import N_LAST_EPOCHS
from search_models.network import in_notation

# Input shape, classes and training images, as a search of these images has them.
IMAGES = {
    "digits": ((1, 8, 8), 10, 1_079),
    "letters": ((1, 32, 32), 26, 3_134),
    "coloured": ((3, 40, 40), 8, 1_445),
    "icons": ((3, 48, 48), 6, 477),
}
_N_RACES = 3  # fresh seeds of each that a race is among
# Microseconds of one core for a million operations of a step, docs/performance.md.
_MICROSECONDS = {"separable": 18.0, "plain": 10.0}


@dataclass(frozen=True)
class RecordedTask:
    """A space, and what its configurations would show.

    Args:
        whole_seconds: of training the first configuration to its end.
    """

    name: str
    space: Space
    surrogate: Surrogate
    epochs: int
    whole_seconds: float


class RecordedTrainer(Trainer):
    """Trains by what is recorded."""

    def __init__(self, task: RecordedTask, *, seed: int, seconds: float) -> None:
        super().__init__(task.space, task.epochs, seed=seed, seconds=seconds)
        self._surrogate = task.surrogate

    def _begin(self, recipe: Hyperparameters, number: int) -> Iterator[tuple[float, float]]:
        answer = self._surrogate.answer(recipe, self.seed)
        return iter([(accuracy, answer.epoch_seconds) for accuracy in answer.accuracies])

    def winner(self) -> float:
        """The true value of what a race of the best whole trainings and the first finds.

        The race is the same for all ways, and its seconds are not counted. As in a search's own
        race, the first configuration is in it where it was trained to its end.
        """
        first = self.space.hyperparameters(self.space.first())
        whole = {one.recipe for one in self.trained.values() if len(one.accuracies) == self.epochs}
        best = [one.recipe for one in self.best()]
        if first in whole and first not in best:
            best.append(first)
        raced = [
            statistics.fmean(
                statistics.fmean(answer.accuracies[-N_LAST_EPOCHS:])
                for answer in (
                    self._surrogate.answer(recipe, 10_000 + 10 * self.seed + i)
                    for i in range(_N_RACES)
                )
            )
            for recipe in best
        ]
        return self._surrogate.answer(best[raced.index(max(raced))], self.seed).true_value


def space_of(task: str) -> Space:
    """The default space as a search of the task's images has it."""
    _, cap, epochs, _ = TASKS[task]
    shape, n_classes, n_training = IMAGES[task]
    table = adaptive_table(Situation(shape, n_training, epochs, cap))
    return Space(ADAPTIVE, table, shape, n_classes, cap)


@functools.cache
def recorded_task(task: str) -> RecordedTask:
    """The task of that name, its models fitted; that takes some seconds."""
    space, epochs = space_of(task), TASKS[task][2]
    n_training = IMAGES[task][2]

    def seconds(recipe: Hyperparameters, kind: str) -> float:
        flops = step_flops(in_notation(recipe.spec)) / 1e6
        return 1e-6 * _MICROSECONDS[kind] * flops * n_training * epochs

    points = []
    for row in _rows(draws.KEPT):
        if row["task"] == task and row["way"] in ("evenly", "near", "nearer"):
            recipe = space.hyperparameters(row["drawn"])
            found = tuple(row["accuracies"])
            filled = (*found, *[1 / space.n_classes] * (epochs - len(found)))
            cost = seconds(recipe, row["drawn"]["block"])
            points.append(Point(recipe, filled, cost, epochs, "counted"))
    surrogate = Surrogate(points, featured=design_features, seed_noise=seed_noise(task))
    first = space.hyperparameters(space.first())
    whole = epochs * surrogate.cost.epoch_seconds(in_notation(first.spec))
    return RecordedTask(task, space, surrogate, epochs, whole)


def seed_noise(task: str) -> float:
    """How much trainings of one of the best recipes scatter over folds and seeds."""
    by_change: dict[str, list[float]] = {}
    for row in _rows(default_space.KEPT):
        if row["task"] == task:
            value = statistics.fmean(row["accuracies"][-N_LAST_EPOCHS:])
            by_change.setdefault(row["change"], []).append(value)
    often = [values for values in by_change.values() if len(values) >= 3]
    best = sorted(often, key=statistics.fmean)[-5:]
    return statistics.median(map(statistics.stdev, best))


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
