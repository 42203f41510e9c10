"""Ways of searching, each until its training seconds are over."""

from __future__ import annotations

import math
import random
import statistics
import warnings
from collections.abc import Callable

import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import Trial, TrialState

from scripts.experiments.draws import draw
from scripts.experiments.peers.trainer import Trainer
from search.space.space import Space
from search.study.record import TrialRecord
from search.training.epochs import N_LAST_EPOCHS, EpochResult
from search.tuner.pruners import make_pruner
from search.tuner.sampler import CappedSampler, make_sampler

_SHARE_OF_SHORT = 0.6  # of random search's seconds, before the best of its short trainings go on

Way = Callable[[Trainer], None]


def _optuna_way(
    make_sampler_of: Callable[[Space, int], BaseSampler],
    make_pruner_of: Callable[[int], BasePruner],
    *,
    has_first: bool = True,
) -> Way:
    """A search by ask and tell, an epoch at a time."""

    def search(trainer: Trainer) -> None:
        study = optuna.create_study(
            direction="maximize",
            sampler=make_sampler_of(trainer.space, trainer.seed),
            pruner=make_pruner_of(trainer.epochs),
        )
        if has_first:
            study.enqueue_trial(trainer.space.first())
        while not trainer.is_over:
            train_trial(study, study.ask(), trainer)

    return search


def train_trial(study: optuna.Study, trial: Trial, trainer: Trainer) -> None:
    """Trains a trial until it is stopped, has ended, or the seconds are over."""
    recipe = trainer.space.suggest(trial)
    key = str(trial.number)
    for epoch in range(1, trainer.epochs + 1):
        accuracies = trainer.train(key, trial.params, epoch)
        if not accuracies:
            return
        trial.report(accuracies[-1], step=epoch)
        is_weak = epoch < trainer.epochs and trial.should_prune()
        if is_weak or epoch == trainer.epochs:
            epochs = [
                EpochResult(i, 0.1, a, 0.01, 0.1, a, 1.0) for i, a in enumerate(accuracies, 1)
            ]
            # By which ours tells its own trials from those of other programs, and learns of them.
            record = TrialRecord(epochs=epochs, parameter_count=recipe.spec.parameter_count)
            record.write(study, trial._trial_id)
            value = None if is_weak else statistics.fmean(accuracies[-N_LAST_EPOCHS:])
            study.tell(trial, value, state=TrialState.PRUNED if is_weak else TrialState.COMPLETE)
            return


def _ours(space: Space, seed: int) -> BaseSampler:
    return make_sampler("tpe", space, seed=seed, n_trials=0)


def _ours_drawn_evenly(space: Space, seed: int) -> BaseSampler:
    """Ours without first draws near the first values."""
    return CappedSampler(TPESampler(seed=seed), space, max_redraws=100, seed=seed)


def _plain_tpe(space: Space, seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(seed=seed)


def _halving(epochs: int) -> BasePruner:
    return make_pruner("halving", epochs=epochs)


def _early_halving(epochs: int) -> BasePruner:
    """A third goes on after a fifth of the epochs, and after three fifths."""
    return SuccessiveHalvingPruner(min_resource=math.ceil(epochs / 5), reduction_factor=3)


def _early_median(epochs: int) -> BasePruner:
    return MedianPruner(n_startup_trials=5, n_warmup_steps=2)


def _random_top(trainer: Trainer) -> None:
    """Random configurations for a third of the epochs; then the best of them whole."""
    chance = random.Random(trainer.seed)
    values = {"0": trainer.space.first()}
    last: dict[str, float] = {}
    while trainer.spent < _SHARE_OF_SHORT * trainer.seconds:
        key = str(len(last))
        values.setdefault(key, draw(trainer.space, chance, spread=None))
        last[key] = trainer.train(key, values[key], -(-trainer.epochs // 3))[-1]
    for key in sorted(last, key=lambda key: last[key], reverse=True):
        trainer.train(key, values[key], trainer.epochs)


def _first_alone(trainer: Trainer) -> None:
    """The first configuration and nothing else."""
    trainer.train("0", trainer.space.first(), trainer.epochs)


WAYS: dict[str, Way] = {
    "ours": _optuna_way(_ours, _halving),
    "ours, even first draws": _optuna_way(_ours_drawn_evenly, _halving),
    "ours, no pruning": _optuna_way(_ours, lambda epochs: NopPruner()),
    "ours, halving from epoch 3": _optuna_way(_ours, _early_halving),
    "ours, median": _optuna_way(_ours, _early_median),
    "ours, no first values": _optuna_way(_ours_drawn_evenly, _halving, has_first=False),
    "optuna": _optuna_way(_plain_tpe, lambda epochs: MedianPruner()),
    "random, best whole": _random_top,
    "first alone": _first_alone,
}
