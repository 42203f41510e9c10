"""Ways of searching a recorded task, each until its training seconds are over."""

from __future__ import annotations

import random
import statistics
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import Trial, TrialState

from scripts.experiments.draws import draw
from scripts.experiments.peers.tasks import RecordedTask
from scripts.experiments.surrogate import N_LAST, Answer
from search.space.hyperparameters import Hyperparameters
from search.study.record import TrialRecord
from search.training.epochs import EpochResult
from search.tuner.pruners import make_pruner
from search.tuner.sampler import CappedSampler, make_sampler

_SHARE_OF_SHORT = 0.6  # of random search's seconds, before the best of its short trainings go on
_N_RACED, _N_RACES = 3, 3  # of the best whole trainings, with so many fresh seeds each


@dataclass
class Trained:
    """A configuration as far as it was trained."""

    recipe: Hyperparameters
    answer: Answer
    n_epochs: int = 0

    @property
    def accuracies(self) -> list[float]:
        return list(self.answer.accuracies[: self.n_epochs])


@dataclass
class Trainer:
    """Trains configurations by what is recorded, and counts the seconds.

    Args:
        seconds: of training, after which nothing is trained any more.
    """

    task: RecordedTask
    seed: int
    seconds: float
    spent: float = 0.0
    trained: dict[str, Trained] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        return self.spent >= self.seconds

    def train(self, key: str, values: Mapping[str, Any], epoch: int) -> list[float]:
        """Trains a configuration up to an epoch, on from where it was.

        Returns:
            the accuracies of all its epochs so far; none where the seconds are over before.
        """
        if key not in self.trained:
            full = self.task.space.with_single(values)
            recipe = self.task.space.hyperparameters(full)
            self.trained[key] = Trained(recipe, self.task.surrogate.answer(recipe, self.seed))
        trained = self.trained[key]
        for _ in range(trained.n_epochs, min(epoch, self.task.epochs)):
            self.spent += trained.answer.epoch_seconds
            if self.is_over:
                return []
            trained.n_epochs += 1
        return trained.accuracies

    def winner(self) -> float:
        """The true value of what a race of the best whole trainings finds.

        The race is the same for all ways, and its seconds are not counted.
        """
        whole = [one for one in self.trained.values() if one.n_epochs == self.task.epochs]
        whole.sort(key=lambda one: _value(one.answer), reverse=True)
        raced = {
            place: statistics.fmean(
                _value(self.task.surrogate.answer(one.recipe, 10_000 + 10 * self.seed + i))
                for i in range(_N_RACES)
            )
            for place, one in enumerate(whole[:_N_RACED])
        }
        return whole[max(raced, key=lambda place: raced[place])].answer.true_value


def _value(answer: Answer) -> float:
    return statistics.fmean(answer.accuracies[-N_LAST:])


Way = Callable[[RecordedTask, Trainer], None]


def _optuna_way(
    make_sampler_of: Callable[[RecordedTask, int], BaseSampler],
    make_pruner_of: Callable[[int], BasePruner],
    *,
    has_first: bool = True,
) -> Way:
    """A search by ask and tell, an epoch at a time."""

    def search(task: RecordedTask, trainer: Trainer) -> None:
        study = optuna.create_study(
            direction="maximize",
            sampler=make_sampler_of(task, trainer.seed),
            pruner=make_pruner_of(task.epochs),
        )
        if has_first:
            study.enqueue_trial(task.space.first())
        while not trainer.is_over:
            _train_trial(study, study.ask(), task, trainer)

    return search


def _train_trial(study: optuna.Study, trial: Trial, task: RecordedTask, trainer: Trainer) -> None:
    task.space.suggest(trial)
    key = str(trial.number)
    for epoch in range(1, task.epochs + 1):
        accuracies = trainer.train(key, trial.params, epoch)
        if not accuracies:
            return
        trial.report(accuracies[-1], step=epoch)
        is_weak = epoch < task.epochs and trial.should_prune()
        if is_weak or epoch == task.epochs:
            epochs = [
                EpochResult(i, 0.1, a, 0.01, 0.1, a, 1.0) for i, a in enumerate(accuracies, 1)
            ]
            TrialRecord(epochs=epochs).write(study, trial._trial_id)  # by which ours counts it
            value = None if is_weak else statistics.fmean(accuracies[-N_LAST:])
            study.tell(trial, value, state=TrialState.PRUNED if is_weak else TrialState.COMPLETE)
            return


def _ours(task: RecordedTask, seed: int) -> BaseSampler:
    return make_sampler("tpe", task.space, seed=seed, n_trials=0)


def _ours_drawn_evenly(task: RecordedTask, seed: int) -> BaseSampler:
    """Ours without first draws near the first values."""
    return CappedSampler(TPESampler(seed=seed), task.space, max_redraws=100, seed=seed)


def _plain_tpe(task: RecordedTask, seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(seed=seed)


def _halving(epochs: int) -> BasePruner:
    return make_pruner("halving", epochs=epochs)


def _random_top(task: RecordedTask, trainer: Trainer) -> None:
    """Random configurations for a third of the epochs; then the best of them whole."""
    chance = random.Random(trainer.seed)
    values = {"0": task.space.first()}
    last: dict[str, float] = {}
    while trainer.spent < _SHARE_OF_SHORT * trainer.seconds:
        key = str(len(last))
        values.setdefault(key, draw(task.space, chance, spread=None))
        last[key] = trainer.train(key, values[key], -(-task.epochs // 3))[-1]
    for key in sorted(last, key=lambda key: last[key], reverse=True):
        trainer.train(key, values[key], task.epochs)


def _first_alone(task: RecordedTask, trainer: Trainer) -> None:
    """The first configuration and nothing else."""
    trainer.train("0", task.space.first(), task.epochs)


WAYS: dict[str, Way] = {
    "ours": _optuna_way(_ours, _halving),
    "ours, even first draws": _optuna_way(_ours_drawn_evenly, _halving),
    "ours, no pruning": _optuna_way(_ours, lambda epochs: NopPruner()),
    "ours, no first values": _optuna_way(_ours_drawn_evenly, _halving, has_first=False),
    "optuna": _optuna_way(_plain_tpe, lambda epochs: MedianPruner()),
    "random, best whole": _random_top,
    "first alone": _first_alone,
}
