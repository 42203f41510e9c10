"""A pool of training processes: jobs in, epoch results out. Knows no Optuna.

Each worker is a process of its own with one thread, made once and used for many jobs. It maps
the data set's file, so that all workers share one copy. A worker that dies is replaced; its job
comes back as `JobFailed`. So it is with one that runs out of memory, and with one that hangs. A
worker whose pool is gone ends by itself.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import psutil
import torch

from search.clock import AwakeClock
from search.data import DatasetFiles, Examples
from search.exceptions import SearchError, TrainingError
from search.hyperparameters import Hyperparameters
from search.metrics import Metric
from search.processes import start_server, worker_context
from search.training import EpochResult, train
from search.weights import save_weights

_MAX_STARTUP_DEATHS = 3
_MAX_SERVER_DEATHS = 8  # in a row; its imports take seconds, in which a busy machine may kill it
_STARTUP_SECONDS = 120.0  # of being awake, in which a worker must be ready
_CLOSE_SECONDS = 1.0  # of the five in which a search must end
# Seconds. Whoever has a pool asks it for events more often than that, but for an outage of the
# database; what that takes does not count towards any limit.
_LONGEST_GAP = 2.0

TrainingPart = Literal["train", "development"]
EvaluationPart = Literal["validation", "test"]


@dataclass(frozen=True, slots=True)
class Job:
    """One network to train.

    Args:
        key: chosen by whoever submits it; comes back with each of the job's events.
        training: which images train: those a search trains on, or all but the test set.
        weights_path: where to write the trained weights, if anywhere.
    """

    key: int
    hyperparameters: Hyperparameters
    epochs: int
    seed: int
    training: TrainingPart = "train"
    evaluation: EvaluationPart = "validation"
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


@dataclass(frozen=True, slots=True)
class _Ready:
    pass


@dataclass(frozen=True, slots=True)
class _Begun:
    """The worker has its job: from here on, a death of the one is charged to the other."""


@dataclass(frozen=True, slots=True)
class _Cancel:
    key: int


@dataclass(frozen=True, slots=True)
class _Dying:
    """A worker's last word: why it ends, where it can still say so."""

    reason: str


@dataclass(slots=True)
class _Worker:
    """What the pool knows of one of its processes.

    Args:
        system: the same process as the system has it. Once their server is dead, multiprocessing
            takes all its workers for dead, and neither kills them nor waits for them.
        since: by the pool's clock, when it was started, became ready, or was given its job.
    """

    process: BaseProcess
    system: psutil.Process | None
    connection: Connection
    since: float
    is_ready: bool = False
    job: Job | None = None
    has_begun: bool = False
    why_dying: str | None = None

    def kill(self) -> None:
        if self.system is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                self.system.kill()


def default_worker_count() -> int:
    """One worker for each core that this process may use, cgroup quotas included."""
    import joblib  # slow to import, and no worker needs it

    return int(joblib.cpu_count())


def _own_cores(n_workers: int) -> dict[int, int]:
    """A core for each worker, where there are exactly as many; else the system places them."""
    if not hasattr(os, "sched_getaffinity"):
        return {}
    cores = sorted(os.sched_getaffinity(0))
    return dict(enumerate(cores)) if len(cores) == n_workers else {}


class WorkerPool:
    """`n_workers` training processes that share one data set.

    Use it as a context manager: when the context ends, so do the processes.

    Args:
        log_folder: where each worker keeps a log of its own, if anywhere: `worker-PID.jsonl`, one
            line an epoch with the job's key, the epoch and its accuracy, written before anybody
            else hears of the epoch. The folder must be there.
    """

    def __init__(
        self, n_workers: int, files: DatasetFiles, *, log_folder: Path | None = None
    ) -> None:
        self._context = worker_context()
        self._files = files
        self._log_folder = log_folder
        self._clock = AwakeClock(longest_gap=_LONGEST_GAP)
        self._n_startup_deaths = 0
        self._pending: deque[Event] = deque()
        self._cores = _own_cores(n_workers)
        self._workers = [self._spawn(index) for index in range(n_workers)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def n_idle(self) -> int:
        """How many more jobs can be submitted now."""
        return sum(worker.job is None for worker in self._workers)

    @property
    def pids(self) -> list[int]:
        """The process identifiers of the workers."""
        return [worker.process.pid for worker in self._workers if worker.process.pid is not None]

    def submit(self, job: Job) -> int:
        """Starts a job; returns the number of its worker.

        Raises:
            RuntimeError: if no worker is idle.
        """
        for index, worker in enumerate(self._workers):
            if worker.job is None:
                worker.job, worker.has_begun = job, False
                worker.since = self._clock.seconds()
                # A worker that is dead already shows up in `events`, its job with it.
                with contextlib.suppress(OSError):
                    worker.connection.send(job)
                return index
        raise RuntimeError("submit() needs an idle worker, but all are busy")

    def cancel(self, key: int) -> None:
        """Asks for the end of a job; a `JobCancelled` (or another end) follows."""
        for worker in self._workers:
            if worker.job is not None and worker.job.key == key:
                with contextlib.suppress(OSError):  # a worker that is dead stops anyway
                    worker.connection.send(_Cancel(key))

    def kill_overdue(self, limit_seconds: float) -> None:
        """Kills each worker that has had its job for longer; `events` tells of its death.

        What does not count is time before the worker was ready, and time in which this process was
        stopped or the machine slept: the workers slept, too.
        """
        now = self._clock.seconds()
        for worker in self._workers:
            is_working = worker.job is not None and worker.is_ready
            if is_working and now - worker.since > limit_seconds:
                worker.why_dying = (
                    f"it had not ended after {limit_seconds:.0f} s, the time limit of a trial"
                )
                worker.kill()

    def events(self, timeout: float) -> Iterator[Event]:
        """What has happened since the last call; waits up to `timeout` seconds for the first.

        Raises:
            TrainingError: if workers die again and again before they are ready.
        """
        connections = {worker.connection: i for i, worker in enumerate(self._workers)}
        for connection in wait(list(connections), timeout):
            assert isinstance(connection, Connection)
            self._receive(connections[connection])
        now = self._clock.seconds()
        for worker in self._workers:
            if not worker.is_ready and now - worker.since > _STARTUP_SECONDS:
                worker.kill()
        while self._pending:
            yield self._pending.popleft()

    def close(self) -> None:
        """Ends all workers, whatever they are doing."""
        for worker in self._workers:
            worker.connection.close()  # which ends them between two batches
        _end(self._workers)

    def _spawn(self, index: int) -> _Worker:
        """A new worker.

        Raises:
            TrainingError: if the server that forks workers dies again and again.
        """
        for n_left in reversed(range(_MAX_SERVER_DEATHS)):
            start_server()  # another, where it has died
            ours, theirs = self._context.Pipe()
            process = self._context.Process(
                target=_worker_main,
                args=(theirs, self._files, index, self._cores.get(index), self._log_folder),
                daemon=True,
                name=f"search-worker-{index}",
            )
            try:
                process.start()
            except (EOFError, OSError) as error:  # the server died before it answered
                ours.close()
                if not n_left:
                    raise TrainingError(
                        "Worker processes must start, but what starts them died "
                        f"{_MAX_SERVER_DEATHS} times in a row ({error!r}); if it is memory, take "
                        "fewer --workers."
                    ) from error
                continue
            finally:
                theirs.close()
            return _Worker(process, _system_process(process.pid), ours, self._clock.seconds())
        raise AssertionError  # the last one ends one way or the other

    def _receive(self, index: int) -> None:
        worker = self._workers[index]
        try:
            while worker.connection.poll():
                self._take(worker, worker.connection.recv())
        except (EOFError, OSError):
            self._replace(index)

    def _take(self, worker: _Worker, message: _Ready | _Begun | _Dying | Event) -> None:
        if isinstance(message, _Ready):
            worker.is_ready = True
            worker.since = self._clock.seconds()
            self._n_startup_deaths = 0
            return
        if isinstance(message, _Begun):
            worker.has_begun = True
            return
        if isinstance(message, _Dying):
            worker.why_dying = message.reason
            return
        if not isinstance(message, JobEpoch):
            worker.job = None
        self._pending.append(message)

    def _replace(self, index: int) -> None:
        worker = self._workers[index]
        worker.connection.close()
        _end([worker])
        reason = worker.why_dying or f"its worker process {_death(worker.process.exitcode)}"
        if not worker.is_ready:
            self._n_startup_deaths += 1
            if self._n_startup_deaths >= _MAX_STARTUP_DEATHS:
                raise TrainingError(
                    f"Worker processes must start, but {self._n_startup_deaths} in a row ended "
                    f"while they did; the last one {_death(worker.process.exitcode)}. What they "
                    "printed stands above; if it is memory, take fewer --workers."
                )
        fresh = self._workers[index] = self._spawn(index)
        if worker.job is None:
            return
        if worker.has_begun:
            self._pending.append(JobFailed(worker.job.key, index, reason, worker_died=True))
        else:  # it never came to the job, which the next worker gets
            fresh.job = worker.job
            with contextlib.suppress(OSError):
                fresh.connection.send(worker.job)


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
            if isinstance(event, JobFailed):
                raise TrainingError(f"A training run must end by itself, but {event.reason}.")
            n_left -= isinstance(event, JobDone)
            yield event


def _system_process(pid: int | None) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:  # it has died already
        return None


def _end(workers: Sequence[_Worker]) -> None:
    """Gives processes that are about to end a moment for it, and then kills them."""
    processes = [worker.system for worker in workers if worker.system is not None]
    psutil.wait_procs(processes, timeout=_CLOSE_SECONDS)
    for worker in workers:
        worker.kill()
        worker.process.join(_CLOSE_SECONDS)  # for its exit code


def _death(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        try:
            name = signal.Signals(-exit_code).name
        except ValueError:
            name = "an unknown signal"
        hint = ", perhaps for lack of memory" if name == "SIGKILL" else ""
        return f"was killed by signal {-exit_code} ({name}{hint})"
    return f"ended with exit code {exit_code}"


def _worker_main(
    connection: Connection,
    files: DatasetFiles,
    index: int,
    core: int | None,
    log_folder: Path | None,
) -> None:
    # A terminal or a cluster sends these to all processes; only the pool decides what follows.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if core is not None:
        os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the pool is gone
        connection.send(_Ready())
        while True:
            message = connection.recv()
            if isinstance(message, Job):  # a cancellation may come too late
                connection.send(_Begun())
                _run(connection, files, index, message, log_folder)


def _run(
    connection: Connection, files: DatasetFiles, index: int, job: Job, log_folder: Path | None
) -> None:
    def is_cancelled() -> bool:
        while connection.poll():
            message = connection.recv()
            if isinstance(message, _Cancel) and message.key == job.key:
                return True
        return False

    started = time.perf_counter()
    try:
        training, evaluation = _examples(files, job)
        run = train(
            job.hyperparameters,
            training,
            evaluation,
            files.info.normalization,
            epochs=job.epochs,
            seed=job.seed,
            device=job.device,
            should_stop=is_cancelled,
            metric=job.metric,
        )
        n_epochs = 0
        for result in run:
            n_epochs = result.epoch
            if log_folder is not None:
                _log(log_folder, job.key, result)
            connection.send(JobEpoch(job.key, index, result))
        if n_epochs < job.epochs and (n_epochs == 0 or result.is_finite):
            connection.send(JobCancelled(job.key, index))
            return
        if job.weights_path is not None:
            save_weights(run.network, job.weights_path)
        connection.send(JobDone(job.key, index, time.perf_counter() - started))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise
    except Exception as error:  # whatever a recipe does, the next job gets its chance
        if not isinstance(error, SearchError | OSError):  # those explain themselves
            traceback.print_exc()
        if _is_lack_of_memory(error):  # what this process holds is freed with it
            connection.send(_Dying(f"its worker process ran out of memory ({error})"))
            raise SystemExit(1) from error
        reason = f"{type(error).__name__}: {error}"
        is_systems = isinstance(error, OSError)
        connection.send(
            JobFailed(job.key, index, reason, worker_died=False, is_machines_fault=is_systems)
        )


def _is_lack_of_memory(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    # PyTorch has a class of its own for a GPU alone.
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def _log(folder: Path, key: int, result: EpochResult) -> None:
    """Appends one whole line: a single write, so that a kill leaves all of it or nothing."""
    line = json.dumps({"trial": key, "epoch": result.epoch, "accuracy": result.accuracy})
    with (folder / f"worker-{os.getpid()}.jsonl").open("ab", buffering=0) as file:
        file.write(f"{line}\n".encode())


def _examples(files: DatasetFiles, job: Job) -> tuple[Examples, Examples]:
    development = files.development()
    n = files.info.n_training
    training = development[:n] if job.training == "train" else development[:]
    evaluation = development[n:] if job.evaluation == "validation" else files.test()
    return training, evaluation
