"""How far a search is, counted from its events, and when it will be at its end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from optuna.trial import TrialState

from search.study.history import StudyLength
from search.study.length import Stagnation
from search.study.summary import Tally
from search.tuner.events import SearchEvent, TrialEnded, TrialEpoch, TrialStarted

# Of the trials that come to where a pruner stops some for the first time, a third of their epochs,
# the share that goes on; and with how many trials what was seen has to reckon against that.
_GOING_ON = {"halving": 1 / 3, "hyperband": 1 / 2, "median": 1 / 2, "percentile": 1 / 4}
_PRIOR_TRIALS = 8


@dataclass(frozen=True, slots=True)
class Best:
    """The best complete trial so far."""

    number: int
    value: float
    parameter_count: int | None


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is known of a search's length before it begins.

    Args:
        epochs: of a trial that is not stopped.
        pruner: by its name.
        n_race_runs: runs of the race at its end, at most; 0 without one.
        race_share: of the epochs that its trials train, what the race may train at most,
        race_seconds: or so many of training, by all workers together, where that is more,
        n_least_race_runs: or so many runs.
    """

    epochs: int = 1
    pruner: str = "none"
    n_workers: int = 1
    n_race_runs: int = 0
    race_share: float = 1.0
    race_seconds: float = 0.0
    n_least_race_runs: int = 0


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
        self._first_epoch: float | None = None  # when it ended
        self._n_epochs = 0  # that ended since, of all trials
        self._ended_epochs: list[int] = []  # of each trained trial of this run

    @property
    def n_expected(self) -> int:
        """The trained trials that the study has at its end, where nothing better comes."""
        n_expected, patience = self._length.n_trials, self._length.patience
        if patience is not None:
            n_to_come = max(patience - self._stagnation.n_without, len(self.running))
            n_expected = min(n_expected, self.n_trained + n_to_come)
        return max(n_expected, self.n_trained)

    @property
    def elapsed_seconds(self) -> float:
        return self._clock() - self._started

    def seconds_since(self, row: Row) -> float:
        """For how long a trial has trained its present epoch."""
        return self._clock() - row.since

    @property
    def seconds_left(self) -> float | None:
        """An estimate from the trials of this run, its race included; None while there is none."""
        if not self._ended_epochs or self._first_epoch is None:
            return None
        seconds = (self._clock() - self._first_epoch) / max(1, self._n_epochs)  # an epoch
        left = seconds * self._epochs_left() + self._race_seconds(seconds)
        if self._timeout_seconds is not None:
            left = min(left, self._timeout_seconds - self.elapsed_seconds)
        return max(0.0, left)

    def _epochs_left(self) -> float:
        forecast = self.forecast
        expected = self._expected_epochs()
        first_rung = math.ceil(forecast.epochs / 3)
        n_open = self.n_expected - self.n_trained - len(self.running)
        left = max(0, n_open) * expected + sum(
            (expected if row.epoch < first_rung else forecast.epochs) - row.epoch
            for row in self.running.values()
        )
        # At the end, workers wait for the one that is still at work: on average half a trial.
        return left + 0.5 * expected * (forecast.n_workers - 1)

    def _race_seconds(self, epoch_seconds: float) -> float:
        """How long the race takes at most, where an epoch of any trial ends so often."""
        forecast = self.forecast
        share = forecast.race_share * self._expected_epochs() * self.n_expected
        run_seconds = epoch_seconds * forecast.epochs
        limit = max(epoch_seconds * share, forecast.race_seconds / forecast.n_workers)
        return min(
            run_seconds * forecast.n_race_runs,
            max(limit, run_seconds * forecast.n_least_race_runs),
        )

    def _expected_epochs(self) -> float:
        """How many a trial trains on average, as far as can be told."""
        epochs = self.forecast.epochs
        if self.forecast.pruner not in _GOING_ON:
            return epochs
        first_rung = math.ceil(epochs / 3)
        prior = first_rung + _GOING_ON[self.forecast.pruner] * (epochs - first_rung)
        n_seen = len(self._ended_epochs)
        return (_PRIOR_TRIALS * prior + sum(self._ended_epochs)) / (_PRIOR_TRIALS + n_seen)

    def take(self, event: SearchEvent) -> bool:
        """Counts an event; true where it brought a new best trial."""
        match event:
            case TrialStarted():
                self.n_redraws += event.n_redraws
                row = Row(event.number, event.worker, event.parameter_count, self._clock())
                self.running[event.number] = row
            case TrialEpoch(number=number, worker=worker, result=result):
                row = self.running[number]
                row.worker, row.since = worker, self._clock()
                row.accuracies.append(result.accuracy)
                self.lowest = min(self.lowest, result.accuracy)
                self.highest = max(self.highest, result.accuracy)
                if self._first_epoch is None:
                    self._first_epoch = self._clock()
                else:
                    self._n_epochs += 1
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
            self._ended_epochs.append(event.n_epochs)
            self._stagnation.add(event.value)
        if event.value is None or (self.best is not None and event.value <= self.best.value):
            return False
        self.best = Best(event.number, event.value, event.parameter_count)
        return True
