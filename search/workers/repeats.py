"""Recipes trained several times: how good each is, and how much of that is the seed."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search.exceptions import TrainingError
from search.space.hyperparameters import Hyperparameters
from search.training.card import weights_name
from search.training.epochs import EpochResult, last_epochs_mean
from search.training.metrics import Metric
from search.workers.jobs import EvaluationPart, Job, JobEpoch, TrainingPart, WorkerPool, run_jobs


@dataclass(frozen=True, slots=True)
class Repeat:
    """One training run of a recipe.

    Accuracies are those on the images that the run was evaluated on, as shares from 0 to 1.
    """

    seed: int
    epochs: list[EpochResult] = field(default_factory=list)

    @property
    def last_three_mean(self) -> float:
        """The mean accuracy of the last three epochs (or fewer)."""
        return last_epochs_mean(self.epochs)

    @property
    def best(self) -> EpochResult:
        """The epoch with the highest accuracy; the first of equals."""
        return max(self.epochs, key=lambda result: (result.accuracy, -result.epoch))

    @property
    def is_finite(self) -> bool:
        """Whether the loss stayed finite; a run ends with the first epoch in which it did not."""
        return all(result.is_finite for result in self.epochs)

    @property
    def seconds(self) -> float:
        return sum(result.seconds for result in self.epochs)

    def to_dict(self) -> dict[str, Any]:
        """As values that JSON knows, for cards and programs."""
        return {
            "seed": self.seed,
            "accuracies": [result.accuracy for result in self.epochs],
            "last_three_mean": self.last_three_mean,
            "last_accuracy": self.epochs[-1].accuracy,
            "best_epoch": self.best.epoch,
            "best_accuracy": self.best.accuracy,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and sample standard deviation over seeds; the latter is None for one seed."""

    mean: float
    std: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


def train_repeats(
    pool: WorkerPool,
    hyperparameters: Hyperparameters,
    *,
    seeds: Sequence[int],
    epochs: int,
    training: TrainingPart,
    evaluation: EvaluationPart,
    device: str,
    listener: Callable[[int, EpochResult], None],
    folder: Path | None = None,
    metric: Metric = "accuracy",
) -> list[Repeat]:
    """Trains a recipe once per seed, several at a time where the pool has the workers.

    Args:
        listener: told seed and result of each epoch as it ends.
        folder: where to write the weights of each seed, if anywhere.
        metric: which accuracy the results have.

    Raises:
        TrainingError: if a training run cannot be finished, or its loss is not finite.
    """
    jobs = [
        Job(
            key=index,
            hyperparameters=hyperparameters,
            epochs=epochs,
            seed=seed,
            training=training,
            evaluation=evaluation,
            device=device,
            weights_path=folder / weights_name(seed) if folder else None,
            metric=metric,
        )
        for index, seed in enumerate(seeds)
    ]
    repeats = {}
    for index, repeat in _train(pool, jobs):
        repeats[index] = repeat
        result = repeat.epochs[-1]
        listener(repeat.seed, result)
        if not result.is_finite:
            raise TrainingError(
                f"A loss must stay finite, but with seed {repeat.seed} it did not in epoch "
                f"{result.epoch}; take another trial, or other seeds."
            )
    return [repeats[index] for index in range(len(seeds))]


def train_runs(
    pool: WorkerPool,
    runs: Sequence[tuple[Hyperparameters, int, int]],
    *,
    epochs: int,
    device: str,
    should_stop: Callable[[], bool],
    metric: Metric = "accuracy",
) -> Iterator[tuple[int, Repeat]]:
    """Trains recipes in that order, as one queue that keeps all workers busy.

    A loss that is not finite ends its own run alone.

    Args:
        runs: each a recipe, the number of the part that validates it, and a seed.

    Yields:
        after each epoch, the index in `runs` and the run as far as it has come.

    Raises:
        TrainingError: if a training run cannot be finished.
    """
    jobs = [
        Job(
            key=index,
            hyperparameters=hyperparameters,
            epochs=epochs,
            seed=seed,
            part=part,
            device=device,
            metric=metric,
        )
        for index, (hyperparameters, part, seed) in enumerate(runs)
    ]
    yield from _train(pool, jobs, should_stop=should_stop)


def _train(
    pool: WorkerPool, jobs: Sequence[Job], *, should_stop: Callable[[], bool] = lambda: False
) -> Iterator[tuple[int, Repeat]]:
    """Yields a job's key, which is its index in `jobs`, and its run, after each of its epochs."""
    repeats = [Repeat(job.seed) for job in jobs]
    for event in run_jobs(pool, jobs, should_stop=should_stop):
        if isinstance(event, JobEpoch):
            repeats[event.key].epochs.append(event.result)
            yield event.key, repeats[event.key]
