"""What all pools of workers have in common: who gets which job, and what follows when one dies.

A worker that dies is replaced; its job comes back as `JobFailed`, or goes to the next worker where
it had not begun. So it is with one that runs out of memory, and with one that hangs. One whose
replacements die again and again before they are ready ends the search.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

from search.exceptions import TrainingError
from search.files import write_bytes
from search.workers.awake_clock import AwakeClock
from search.workers.jobs import Event, Job, JobCancelled, JobEpoch, JobFailed
from search.workers.resources import DeviceShare
from search.workers.worker_loop import (
    Assignment,
    Begun,
    Cancel,
    Dying,
    Message,
    Order,
    Ready,
    Weights,
)

_MAX_STARTUP_DEATHS = 3
_STARTUP_SECONDS = 120.0
# Seconds. Whoever has a pool asks it for events more often than that, but for an outage of the
# database; what that takes does not count towards any limit.
_LONGEST_GAP = 2.0


class WorkerProcess(Protocol):
    """One worker's process, wherever it is."""

    def send(self, order: Order) -> None:
        """Tells it something; one that is dead is told nothing, and no error follows."""

    def messages(self) -> Iterator[Message]:
        """What it has said since the last call.

        Raises:
            EOFError: if it is dead, once all that it said is told.
        """

    def kill(self) -> None:
        """Ends it, whatever it is doing."""

    def death(self) -> str:
        """How it ended, as `was killed by signal 9`; waits for its end, but not for ever."""


ProcessT = TypeVar("ProcessT", bound=WorkerProcess)


@dataclass(slots=True)
class _Worker(Generic[ProcessT]):
    """What a pool knows of one of its workers.

    Args:
        since: by the pool's clock, when it was started, became ready, or was given its job.
        n_startup_deaths: of those whose place it has taken, in a row, before they were ready.
        pid: None until it is ready.
    """

    process: ProcessT
    since: float
    n_startup_deaths: int = 0
    pid: int | None = None
    job: Job | None = None
    has_begun: bool = False
    why_dying: str | None = None

    @property
    def is_ready(self) -> bool:
        return self.pid is not None

    @property
    def is_idle(self) -> bool:
        return self.is_ready and self.job is None


class BaseWorkerPool(ABC, Generic[ProcessT]):
    """A `WorkerPool` but for how its processes are started, heard and ended, which others say.

    It is a context manager: when the context ends, so do the processes.

    Attributes:
        startup_seconds: of being awake, in which a worker must be ready, once its time runs.
    """

    def __init__(self, n_workers: int) -> None:
        self.startup_seconds = _STARTUP_SECONDS
        self._clock = AwakeClock(longest_gap=_LONGEST_GAP)
        self._pending: deque[Event] = deque()
        self._left_over: deque[Job] = deque()  # of workers that died before they began them
        self._workers = [self._fresh(index) for index in range(n_workers)]

    @abstractmethod
    def _start(self, index: int) -> ProcessT:
        """A new process for the worker of that number.

        Raises:
            TrainingError: if there can be none.
        """

    @abstractmethod
    def _wait(self, processes: Sequence[ProcessT], timeout: float) -> Sequence[ProcessT]:
        """Those that have said something or died; waits up to `timeout` seconds for the first."""

    @abstractmethod
    def _share(self, device: str, index: int) -> DeviceShare:
        """What the worker of that number may use of a job's device."""

    @abstractmethod
    def _startup_advice(self) -> str:
        """Where to look, and what to do, when processes do not start."""

    @abstractmethod
    def close(self) -> None:
        """Ends all workers, whatever they are doing."""

    def _is_due(self, index: int) -> bool:
        """Whether a worker that is not ready could be; else its time does not run out."""
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @property
    def n_idle(self) -> int:
        """As `WorkerPool` says."""
        return sum(worker.is_idle for worker in self._workers)

    @property
    def pids(self) -> list[int]:
        """The process identifiers of the workers that are ready, each on its machine."""
        return [worker.pid for worker in self._workers if worker.pid is not None]

    def submit(self, job: Job) -> int:
        """As `WorkerPool` says.

        Raises:
            RuntimeError: if no worker is idle.
        """
        for index, worker in enumerate(self._workers):
            if worker.is_idle:
                worker.job, worker.has_begun = job, False
                worker.since = self._clock.seconds()
                # One that is dead already shows up in `events`, its job with it.
                worker.process.send(Assignment(job, self._share(job.device, index)))
                return index
        raise RuntimeError("submit() needs an idle worker, but all are busy or still start")

    def cancel(self, key: int) -> None:
        """As `WorkerPool` says."""
        for worker in self._workers:
            if worker.job is not None and worker.job.key == key:
                worker.process.send(Cancel(key))
        for job in list(self._left_over):
            if job.key == key:
                self._left_over.remove(job)
                self._pending.append(JobCancelled(key, worker=0))

    def kill_overdue(self, limit_seconds: float) -> None:
        """As `WorkerPool` says.

        What does not count is time in which this process was stopped or the machine slept: the
        workers slept, too.
        """
        now = self._clock.seconds()
        for worker in self._workers:
            if worker.job is not None and now - worker.since > limit_seconds:
                worker.why_dying = (
                    f"it had not ended after {limit_seconds:.0f} s, the time limit of a trial"
                )
                worker.process.kill()

    def events(self, timeout: float) -> Iterator[Event]:
        """As `WorkerPool` says.

        Raises:
            TrainingError: if one worker after another dies in the same place before it is ready.
        """
        indices = {id(worker.process): index for index, worker in enumerate(self._workers)}
        if self._pending:
            timeout = 0.0
        for process in self._wait([worker.process for worker in self._workers], timeout):
            index = indices[id(process)]
            try:
                for message in process.messages():
                    self._take(self._workers[index], message)
            except EOFError:
                self._replace(index)
        now = self._clock.seconds()
        for index, worker in enumerate(self._workers):
            if worker.is_ready:
                continue
            if not self._is_due(index):
                worker.since = now
            elif now - worker.since > self.startup_seconds:
                worker.process.kill()
        while self._pending:
            yield self._pending.popleft()

    def _fresh(self, index: int, *, n_startup_deaths: int = 0) -> _Worker[ProcessT]:
        return _Worker(self._start(index), self._clock.seconds(), n_startup_deaths)

    def _take(self, worker: _Worker[ProcessT], message: Message) -> None:
        match message:
            case Ready(pid=pid):
                worker.pid = pid
                worker.since = self._clock.seconds()
            case Begun():
                worker.has_begun = True
            case Dying(reason=reason):
                worker.why_dying = reason
            case Weights(content=content):
                self._write(worker, content)
            case JobEpoch():
                self._pending.append(message)
            case _:
                # A job whose weights could not be written has failed already.
                if worker.job is not None and worker.job.key == message.key:
                    self._pending.append(message)
                    worker.job = None
        self._hand_over()

    def _hand_over(self) -> None:
        """Gives jobs that nobody has begun to whoever is idle."""
        while self._left_over and self.n_idle:
            self.submit(self._left_over.popleft())

    def _write(self, worker: _Worker[ProcessT], weights: bytes) -> None:
        """Writes the weights here: the worker need not reach the folder."""
        job = worker.job
        assert job is not None
        assert job.weights_path is not None
        try:
            write_bytes(weights, job.weights_path)
        except OSError as error:
            reason = f"{type(error).__name__}: {error}"
            index = self._workers.index(worker)
            self._pending.append(
                JobFailed(job.key, index, reason, worker_died=False, is_machines_fault=True)
            )
            worker.job = None

    def _replace(self, index: int) -> None:
        worker = self._workers[index]
        death = worker.process.death()
        n_startup_deaths = 0 if worker.is_ready else worker.n_startup_deaths + 1
        if n_startup_deaths >= _MAX_STARTUP_DEATHS:
            raise TrainingError(
                f"Worker processes must start, but {n_startup_deaths} in a row ended while they "
                f"did; the last one {death}. {self._startup_advice()}"
            )
        self._workers[index] = self._fresh(index, n_startup_deaths=n_startup_deaths)
        if worker.job is None:
            return
        if worker.has_begun:
            reason = worker.why_dying or f"its worker process {death}"
            self._pending.append(JobFailed(worker.job.key, index, reason, worker_died=True))
        else:
            self._left_over.append(worker.job)
            self._hand_over()
