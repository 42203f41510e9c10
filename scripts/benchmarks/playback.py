"""Training played back from recorded learning curves, as a pool of workers that a search takes."""

from __future__ import annotations

import heapq
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from scripts.experiments.record_curves import EPOCHS, read_table
from search.training.epochs import EpochResult
from search.workers.jobs import Event, Job, JobCancelled, JobDone, JobEpoch

TRIAL_SECONDS = 30.0  # what a recorded training takes on average, played back at its own speed


@dataclass(frozen=True)
class Curve:
    """A recorded training: the accuracy after each epoch, and an epoch's seconds."""

    accuracies: tuple[float, ...]
    epoch_seconds: float

    def result(self, epoch: int) -> EpochResult:
        accuracy = self.accuracies[epoch - 1]
        return EpochResult(epoch, 0.1, accuracy, 0.01, 0.1, accuracy, self.epoch_seconds)


def read_curves() -> list[Curve]:
    """The recorded trainings, scaled so that they take `TRIAL_SECONDS` on average."""
    rows = read_table()
    scale = TRIAL_SECONDS / statistics.fmean(float(row["seconds"]) for row in rows)
    return [
        Curve(
            tuple(float(row[f"accuracy_{epoch}"]) for epoch in range(1, EPOCHS + 1)),
            scale * float(row["seconds"]) / EPOCHS,
        )
        for row in rows
    ]


@dataclass
class _Played:
    """A worker that plays a job back."""

    job: Job
    curve: Curve
    epoch: int = 0
    is_cancelled: bool = False


class Playback:
    """A pool of workers that play recorded curves back.

    Args:
        speed_up: how much faster than they were recorded; None plays the next epoch, in the order
            in which they would end, as soon as it is asked for.

    Attributes:
        start_seconds: of each job, what the coordinator took to ask for its trial and submit it.
        report_seconds: of each epoch, what the coordinator took to store it, pruning included.
        idle_seconds: for how long workers had no job, all added up, while there were some to come.
    """

    def __init__(
        self, n_workers: int, curves: Sequence[Curve], *, speed_up: float | None = None
    ) -> None:
        self._n_workers = n_workers
        self._curves = curves
        self._speed_up = speed_up
        self._played: dict[int, _Played] = {}
        self._ends: list[tuple[float, int]] = []  # of the epochs that are played, by their time
        self._virtual_now = 0.0
        self._asked = 0.0
        self._idle_since: list[float] = []
        self.start_seconds: list[float] = []
        self.idle_seconds = 0.0
        self.report_seconds: list[float] = []

    @property
    def n_idle(self) -> int:
        self._asked = time.perf_counter()
        return self._n_workers - len(self._played)

    def submit(self, job: Job) -> int:
        self.start_seconds.append(time.perf_counter() - self._asked)
        if self._idle_since:
            self.idle_seconds += self._now() - self._idle_since.pop()
        curve = self._curves[job.seed % len(self._curves)]
        self._played[job.key] = _Played(job, curve)
        heapq.heappush(self._ends, (self._now() + curve.epoch_seconds, job.key))
        return int(job.key) % self._n_workers

    def cancel(self, key: int) -> None:
        if key in self._played:
            self._played[key].is_cancelled = True

    def kill_overdue(self, limit_seconds: float) -> None:
        pass

    def events(self, timeout: float) -> Iterator[Event]:
        end = self._now() + timeout * (self._speed_up or 0.0)
        if self._speed_up is not None and self._ends:
            wait = (min(self._ends[0][0], end) - self._now()) / self._speed_up
            time.sleep(max(0.0, wait))
        is_first = True
        while self._ends and (is_first if self._speed_up is None else self._is_due()):
            is_first = False
            yield from self._end_epoch(*heapq.heappop(self._ends))

    def _is_due(self) -> bool:
        return self._ends[0][0] <= self._now()

    def _end_epoch(self, now: float, key: int) -> Iterator[Event]:
        self._virtual_now = now
        played = self._played[key]
        if not played.is_cancelled:
            played.epoch += 1
            started = time.perf_counter()
            yield JobEpoch(key, 0, played.curve.result(played.epoch))
            self.report_seconds.append(time.perf_counter() - started)
        if played.is_cancelled or played.epoch == played.job.epochs:
            del self._played[key]
            self._idle_since.append(now)
            seconds = played.epoch * played.curve.epoch_seconds
            yield JobCancelled(key, 0) if played.is_cancelled else JobDone(key, 0, seconds)
        else:
            heapq.heappush(self._ends, (now + played.curve.epoch_seconds, key))

    def _now(self) -> float:
        """By the clock of the playback."""
        if self._speed_up is None:
            return self._virtual_now
        return time.perf_counter() * self._speed_up
