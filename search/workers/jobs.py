"""Jobs for a pool of workers: what is to be trained, what comes back, and what a pool is.

Knows no Optuna, and neither processes nor machines: a pool may have its workers where it likes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from search.exceptions import TrainingError
from search.space.hyperparameters import Hyperparameters
from search.training.epochs import EpochResult
from search.training.metrics import Metric

TrainingPart = Literal["train", "development"]
EvaluationPart = Literal["validation", "test"]


@dataclass(frozen=True, slots=True)
class Job:
    """One network to train.

    Args:
        key: chosen by whoever submits it; comes back with each of the job's events.
        training: which images train: all but the part that validates, or all but the test set.
        part: the number of the part that validates; in a search, 0.
        weights_path: where the trained weights are to be written, if anywhere.
    """

    key: int
    hyperparameters: Hyperparameters
    epochs: int
    seed: int
    training: TrainingPart = "train"
    evaluation: EvaluationPart = "validation"
    part: int = 0
    device: str = "cpu"
    weights_path: Path | None = None
    metric: Metric = "accuracy"


@dataclass(frozen=True, slots=True)
class JobEpoch:
    """A job has finished an epoch."""

    key: int
    worker: int
    result: EpochResult


@dataclass(frozen=True, slots=True)
class JobDone:
    """A job has ended by itself."""

    key: int
    worker: int
    seconds: float


@dataclass(frozen=True, slots=True)
class JobCancelled:
    """A job has ended because it was cancelled."""

    key: int
    worker: int


@dataclass(frozen=True, slots=True)
class JobFailed:
    """A job could not go on: its worker died, or training raised an error.

    Args:
        is_machines_fault: whether the error was the system's (a full disk, a file that is gone),
            which says nothing about the recipe.
    """

    key: int
    worker: int
    reason: str
    worker_died: bool
    is_machines_fault: bool = False


Event = JobEpoch | JobDone | JobCancelled | JobFailed


class WorkerPool(Protocol):
    """Workers that train, as whoever has jobs for them sees them: each takes one at a time.

    `search.workers.base_pool` has the rules by which all pools here keep that.
    """

    @property
    def n_idle(self) -> int:
        """How many more jobs can be submitted now; a worker that still starts takes none."""

    def submit(self, job: Job) -> int:
        """Starts a job; returns the number of its worker.

        Raises:
            RuntimeError: if no worker is idle.
        """

    def cancel(self, key: int) -> None:
        """Asks for the end of a job; a `JobCancelled` (or another end) follows."""

    def kill_overdue(self, limit_seconds: float) -> None:
        """Kills each worker that has had its job for longer; `events` tells of its death."""

    def events(self, timeout: float) -> Iterator[Event]:
        """What has happened since the last call; waits up to `timeout` seconds for the first.

        Raises:
            TrainingError: if workers cannot be started.
        """


def run_jobs(
    pool: WorkerPool, jobs: Sequence[Job], *, should_stop: Callable[[], bool] = lambda: False
) -> Iterator[Event]:
    """Trains all jobs, as many at a time as there are workers; yields what happens.

    Args:
        should_stop: ends it where it is; what runs then ends with the pool.

    Raises:
        TrainingError: if a job fails.
    """
    waiting = deque(jobs)
    n_left = len(jobs)
    while n_left and not should_stop():
        while waiting and pool.n_idle:
            pool.submit(waiting.popleft())
        for event in pool.events(timeout=1.0):
            if isinstance(event, JobFailed) and event.is_machines_fault:
                raise TrainingError(
                    "A training run must be let read and write its files, but it was not "
                    f"({event.reason}); mend that, and give the same command again."
                )
            if isinstance(event, JobFailed):
                raise TrainingError(f"A training run must end by itself, but {event.reason}.")
            n_left -= isinstance(event, JobDone)
            yield event
