"""How long a search will still take, its race included: played through from what was seen."""

from __future__ import annotations

import heapq
import math
import random
import statistics
from dataclasses import dataclass, field

from search.results.race_length import RacedTrial
from search.tuner.final_race import RaceLimits, race_seconds

# Of the trials that come to where a pruner stops some for the first time, a third of their epochs,
# the share that goes on; and with how many trials what was seen has to reckon against that. Of
# halving more than its third: the first ones have nothing to be compared with, and one is never
# stopped (of 13 searches of 12 to 20 trials, 0.33 to 0.45 were complete).
_GOING_ON = {"halving": 0.42, "hyperband": 1 / 2, "median": 1 / 2, "percentile": 1 / 4}
_PRIOR_TRIALS = 16
_N_PLAYED = 20  # times that the rest is played through; of many trials, fewer
_MOST_PLAYED = 20_000  # trials


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is known of a search's length before it begins.

    Args:
        epochs: of a trial that is not stopped.
        pruner: by its name.
        race: how long that at its end may be; None where that is not known.
    """

    epochs: int = 1
    pruner: str = "none"
    n_workers: int = 1
    race: RaceLimits | None = field(default_factory=RaceLimits)


@dataclass(slots=True)
class _Seen:
    """A trial of this run: how long its epochs took, and how it ended."""

    epoch_seconds: list[float] = field(default_factory=list)
    has_ended: bool = False
    is_stopped: bool = False
    value: float | None = None

    @property
    def epochs(self) -> int:
        return len(self.epoch_seconds)

    @property
    def mean_seconds(self) -> float:
        return statistics.fmean(self.epoch_seconds)


class TimeLeft:
    """Told each epoch and each end of a trial; says how long the rest takes.

    A trial that a pruner stops ends sooner than one that it lets go on: how long trials are is told
    by those that run as well, each for the epochs to which it has come (Kaplan and Meier,
    "Nonparametric Estimation from Incomplete Observations", 1958).
    """

    def __init__(self, forecast: Forecast) -> None:
        self._forecast = forecast
        self._seen: dict[int, _Seen] = {}

    def add_epoch(self, number: int, seconds: float) -> None:
        self._seen.setdefault(number, _Seen()).epoch_seconds.append(seconds)

    def end(self, number: int, *, value: float | None, is_stopped: bool) -> None:
        seen = self._seen.setdefault(number, _Seen())
        seen.has_ended, seen.is_stopped, seen.value = True, is_stopped, value

    def seconds(self, n_open: int) -> float | None:
        """How long the search takes from now on, with its race where that is known.

        None before a trial has ended.

        Args:
            n_open: trials that are still to be started.
        """
        seen_now = list(self._seen.values())  # at once: another thread adds to them
        trained = [seen for seen in seen_now if seen.epoch_seconds]
        if not any(seen.has_ended for seen in trained):
            return None
        chances = random.Random(0)
        n_played = max(1, min(_N_PLAYED, _MOST_PLAYED // max(1, n_open)))
        lasting = self._lasting(trained)
        ends = [self._play(trained, lasting, n_open, chances) for _ in range(n_played)]
        seconds = statistics.fmean(ends)
        race = self._forecast.race
        if race is not None and race.n_candidates:
            seconds += self._race_seconds(race, trained, lasting, n_open)
        return seconds

    def _lasting(self, trained: list[_Seen]) -> list[float]:
        """The share of trials that train more than so many epochs, from 0 on."""
        epochs, pruner = self._forecast.epochs, self._forecast.pruner
        first_rung = math.ceil(epochs / 3)
        lasting = [1.0]
        for epoch in range(1, epochs):
            n_there = sum(seen.epochs >= epoch for seen in trained)
            n_stopped = float(sum(seen.is_stopped and seen.epochs == epoch for seen in trained))
            if epoch == first_rung and pruner in _GOING_ON:
                n_there += _PRIOR_TRIALS
                n_stopped += _PRIOR_TRIALS * (1 - _GOING_ON[pruner])
            lasting.append(lasting[-1] * (1 - n_stopped / n_there if n_there else 1.0))
        return lasting

    def _play(
        self, trained: list[_Seen], lasting: list[float], n_open: int, chances: random.Random
    ) -> float:
        """How long the trials take that run and that are still to come."""

        def draw_end(epoch: int) -> int:
            chance = chances.random() * lasting[min(epoch, len(lasting) - 1)]
            return next(
                (e for e in range(epoch, len(lasting)) if lasting[e] <= chance), len(lasting)
            )

        running = [seen for seen in trained if not seen.has_ended]
        ends = [(draw_end(seen.epochs) - seen.epochs) * seen.mean_seconds for seen in running]
        ends += [0.0] * (self._forecast.n_workers - len(ends))
        heapq.heapify(ends)
        for _ in range(n_open):
            seconds = draw_end(0) * chances.choice(trained).mean_seconds
            heapq.heappush(ends, heapq.heappop(ends) + seconds)
        return max(ends)

    def _race_seconds(
        self, race: RaceLimits, trained: list[_Seen], lasting: list[float], n_open: int
    ) -> float:
        """How long the race will take among such trials as there are so far."""
        forecast = self._forecast
        complete = [seen for seen in trained if seen.value is not None] or trained
        candidates = [
            RacedTrial(seen.value or 0.0, forecast.epochs * seen.mean_seconds) for seen in complete
        ]
        candidates.sort(key=lambda each: -each.value)
        # As many as there will be, which cost what those that are there do. The best of the end are
        # close; how close, only the end tells.
        n_complete = round(len(complete) + n_open * lasting[-1])
        if n_complete > len(complete):
            best = candidates[0].value
            candidates = [
                candidates[i % len(complete)]._replace(value=best) for i in range(n_complete)
            ]
        seconds = sum(sum(seen.epoch_seconds) for seen in trained)
        mean = sum(lasting) * statistics.fmean(seen.mean_seconds for seen in trained)
        return race_seconds(race, candidates, seconds + n_open * mean, n_workers=forecast.n_workers)
