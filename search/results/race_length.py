"""How long a race takes: played through, with chances of its own for what its runs reach. Pure."""

from __future__ import annotations

import heapq
import math
import random
import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from search.results.folds import Run
from search.results.race import SeedRace

DRIFT = 1.1  # by which a run may be longer than its trial was
# Of what sets the best trials of a search apart, what a race finds again; the rest is luck.
_LASTING = 0.5


class RacedTrial(NamedTuple):
    """What a trial reached, and how long a run of it takes."""

    value: float
    seconds: float


def lasting_values(values: Sequence[float]) -> list[float]:
    """What runs of the best trials of a search will reach, by what these reached in it."""
    mean = statistics.fmean(values) if values else 0.0
    return [mean + _LASTING * (value - mean) for value in values]


def play_through(
    race: SeedRace,
    trials: Mapping[int, RacedTrial],
    *,
    n_images: int,
    limit_seconds: float,
    n_workers: int,
    running: Sequence[tuple[float, int, Run]] = (),
    gone: Collection[tuple[int, Run]] = (),
) -> float:
    """How many seconds a race takes from now on.

    Args:
        race: as it stands; it is run to its end here.
        trials: its candidates, with what a run of each reaches on average.
        n_images: how many validate a run.
        limit_seconds: of training, which may be spent beside what runs now.
        running: the seconds after which a run ends, its candidate, and which run it is.
        gone: candidates and their runs that failed, and are not tried again.
    """
    chances = random.Random(0)
    now, spent = 0.0, 0.0
    ends = [*running]
    heapq.heapify(ends)
    taken = {(candidate, run) for _, candidate, run in running} | {*gone}
    while True:
        while len(ends) < n_workers and (following := race.next(taken)) is not None:
            seconds = trials[following[0]].seconds
            if spent + DRIFT * seconds > limit_seconds:
                break
            spent += seconds
            taken.add(following)
            heapq.heappush(ends, (now + seconds, *following))
        if not ends:
            return now
        now, candidate, run = heapq.heappop(ends)
        value = trials[candidate].value
        # By so much it scatters at the least, for the choice of the images that validate it.
        scatter = math.sqrt(value * (1 - value) / n_images)
        race.add(candidate, run, value + chances.gauss(0, scatter))
