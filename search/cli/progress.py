"""How far a search is, counted from its events, and when it will be at its end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from optuna.trial import TrialState

from search.cli.time_left import Forecast, TimeLeft
from search.study.history import StudyLength
from search.study.length import Stagnation
from search.study.summary import Tally
from search.tuner.events import SearchEvent, TrialEnded, TrialEpoch, TrialStarted

_REST_SECONDS = 1.0  # between two estimates, each of which takes some hundredths


@dataclass(frozen=True, slots=True)
class Best:
    """The best complete trial so far."""

    number: int
    value: float
    parameter_count: int | None


@dataclass(slots=True)
class Row:
    """A trial that runs; where its worker dies before it has begun, another one takes it over."""

    number: int
    worker: int
    parameter_count: int
    since: float  # by the search's clock, when its last epoch ended or it began
    accuracies: list[float] = field(default_factory=list)  # one an epoch

    @property
    def epoch(self) -> int:
        return len(self.accuracies)

    @property
    def accuracy(self) -> float | None:
        return self.accuracies[-1] if self.accuracies else None


class Progress:
    """Keeps count of a search from its events, beginning with what the study already had.

    Args:
        stagnation: of the trials that the study already had.
        clock: seconds, which only grow.
    """

    def __init__(
        self,
        *,
        before: Tally,
        best: Best | None,
        length: StudyLength,
        stagnation: Stagnation,
        timeout_seconds: float | None,
        forecast: Forecast | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._length = length
        self._stagnation = stagnation
        self.n_trained = before.n_trained
        self.n_pruned = before.n_pruned
        self.n_failed = before.n_failed
        self.n_redraws = before.n_redraws
        self.best = best
        self.running: dict[int, Row] = {}  # by the trial's number
        self.lowest, self.highest = 1.0, 0.0  # accuracy after any epoch of this run
        self.forecast = forecast or Forecast()
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._started = clock()
        self._time_left = TimeLeft(self.forecast)
        self._left: float | None = None  # as it was estimated last
        self._estimated = -math.inf  # when that was
        self._is_outdated = False  # since a trial has ended

    @property
    def n_expected(self) -> int:
        """The trained trials that the study has at its end, where nothing better comes."""
        n_expected, patience = self._length.n_trials, self._length.patience
        if patience is not None:
            n_without = self._stagnation.n_without
            if self._stagnation.reference is None and self.running:
                n_without = -1  # the first that comes to its end is better than none
            n_to_come = len(self.running)
            if n_without < patience:  # when it is over, the other workers train
                n_to_come = max(n_to_come, patience - n_without + self.forecast.n_workers - 1)
            n_expected = min(n_expected, self.n_trained + n_to_come)
        return max(n_expected, self.n_trained)

    @property
    def may_take_longer(self) -> bool:
        """Whether `seconds_left` is the least: a better trial, or a race, would add to it."""
        ends_by_patience = self.n_expected < self._length.n_trials
        return ends_by_patience or self.forecast.race is None

    @property
    def elapsed_seconds(self) -> float:
        return self._clock() - self._started

    def seconds_since(self, row: Row) -> float:
        """For how long a trial has trained its present epoch."""
        return self._clock() - row.since

    @property
    def seconds_left(self) -> float | None:
        """An estimate from the trials of this run, its race included; None while there is none.

        It is of a search in which nothing better comes, see `may_take_longer`. It is made anew once
        a trial has ended, and in between it counts down.
        """
        if self._is_outdated and self._clock() - self._estimated >= _REST_SECONDS:
            self._is_outdated = False
            n_begun = sum(row.epoch > 0 for row in list(self.running.values()))
            self._left = self._time_left.seconds(max(0, self.n_expected - self.n_trained - n_begun))
            self._estimated = self._clock()
        if self._left is None:
            return None
        left = self._left - (self._clock() - self._estimated)
        if self._timeout_seconds is not None:
            left = min(left, self._timeout_seconds - self.elapsed_seconds)
        return max(0.0, left)

    def take(self, event: SearchEvent) -> bool:
        """Counts an event; true where it brought a new best trial."""
        match event:
            case TrialStarted():
                self.n_redraws += event.n_redraws
                row = Row(event.number, event.worker, event.parameter_count, self._clock())
                self.running[event.number] = row
            case TrialEpoch(number=number, worker=worker, result=result):
                row = self.running[number]
                # Its first epoch begins before the worker has it, which took a while to start; and
                # who begins to watch, or looks now and then, is told of several at once.
                since = self._clock() - row.since if row.accuracies else 0.0
                seconds = max(since, result.seconds)
                self._time_left.add_epoch(number, seconds)
                row.worker, row.since = worker, self._clock()
                row.accuracies.append(result.accuracy)
                self.lowest = min(self.lowest, result.accuracy)
                self.highest = max(self.highest, result.accuracy)
            case TrialEnded():
                return self._end(event)
        return False

    def _end(self, event: TrialEnded) -> bool:
        is_trained = event.n_epochs > 0 and event.state in (
            TrialState.COMPLETE,
            TrialState.PRUNED,
        )
        self.n_trained += is_trained
        self.n_pruned += is_trained and event.state == TrialState.PRUNED
        self.n_failed += event.state == TrialState.FAIL
        self.running.pop(event.number, None)
        if is_trained:
            self._stagnation.add(event.value)
        is_stopped = event.state == TrialState.PRUNED
        self._time_left.end(event.number, value=event.value, is_stopped=is_stopped)
        self._is_outdated |= is_trained
        if event.value is None or (self.best is not None and event.value <= self.best.value):
            return False
        self.best = Best(event.number, event.value, event.parameter_count)
        return True
