"""What a policy is worth, over many searches by it, beside the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scripts.experiments.policies import Floats, Replay
from scripts.experiments.record_curves import EPOCHS

N_BOOTSTRAPS = 500
Chosen = NDArray[np.intp]  # replays by number, some twice


@dataclass(frozen=True)
class Interval:
    """A figure, and the 95 % interval of it over bootstraps of the replays."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Measures:
    """What a policy is worth, over its replays.

    Args:
        named_best: median, over the replays, of the true value of the trial that the search names
            best at its end: accuracy, from 0 to 1.
        total_seconds: median training seconds of all its trained trials.
        named_at: median true value of the trial that it names best once it has trained so many
            seconds as all are compared after, or at its end if that is sooner.
        reached_share: of the replays that name a trial at least as good as the reference's median
            at its end.
        seconds_to_reference: median training seconds until then; infinite where most never do.
        ratio: of those to the seconds that the reference trains in all.
        false_prune_rate: of the best tenth of a search's trials, by true value, the share that was
            pruned; the mean over replays.
        saved_share: of the seconds that its trials would train to their end; the mean.
        over_cap: trials over the cap for each trained one; the mean.
    """

    policy: str
    n_replays: int
    named_best: Interval
    total_seconds: float
    named_at: Interval
    reached_share: float
    seconds_to_reference: float
    ratio: Interval
    false_prune_rate: float
    saved_share: float
    over_cap: float


class Paths:
    """The named best of several replays as matrices, padded at the end with its last entry."""

    def __init__(self, replays: Sequence[Replay]) -> None:
        paths = [replay.named_best() for replay in replays]
        width = max(len(spent) for spent, _ in paths)
        self.spent, self.named = (
            np.array([np.pad(path[i], (0, width - len(path[i])), mode="edge") for path in paths])
            for i in (0, 1)
        )
        self.total = np.array([replay.spent for replay in replays])

    def __len__(self) -> int:
        return len(self.total)

    def seconds_to(self, value: float) -> Floats:
        """Of each replay until it names a trial of that true value; infinite where it does not."""
        is_reached = self.named >= value
        first = self.spent[np.arange(len(self)), is_reached.argmax(axis=1)]
        return np.where(is_reached.any(axis=1), first, np.inf)

    def named_at(self, spent: Floats) -> Floats:
        """Of each replay, what it names after so many seconds; 0 before its first trial's end."""
        values = []
        for row, named in zip(self.spent, self.named, strict=True):
            place = np.searchsorted(row, spent, side="right")
            values.append(np.concatenate(([0.0], named))[place])
        return np.array(values)


def _interval(value: float, samples: Sequence[float]) -> Interval:
    # An order statistic, because infinite samples cannot be interpolated.
    low, high = np.quantile(samples, (0.025, 0.975), method="nearest")
    return Interval(value, float(low), float(high))


def measure(
    name: str, replays: Sequence[Replay], reference: Sequence[Replay], *, seconds: float = 0.0
) -> Measures:
    """A policy's figures. For the intervals its replays and the reference's are drawn anew.

    They are drawn apart, although replays of one seed and sampler begin with the same trials, so
    two policies differ more surely than their intervals say.

    Args:
        seconds: after which policies are compared; 0: those that the reference trains in all.
    """
    own, other = Paths(replays), Paths(reference)
    at_seconds = own.named_at(np.array([seconds or np.median(other.total)]))[:, 0]

    def ratio(chosen: Chosen, references: Chosen) -> float:
        target = float(np.median(other.named[references, -1]))
        seconds = np.median(own.seconds_to(target)[chosen])
        return float(seconds / np.median(other.total[references]))

    random = np.random.default_rng(0)
    draws = [
        (random.integers(len(own), size=len(own)), random.integers(len(other), size=len(other)))
        for _ in range(N_BOOTSTRAPS)
    ]
    until = own.seconds_to(float(np.median(other.named[:, -1])))
    return Measures(
        policy=name,
        n_replays=len(own),
        named_best=_median_interval(own.named[:, -1], draws),
        total_seconds=float(np.median(own.total)),
        named_at=_median_interval(at_seconds, draws),
        reached_share=float(np.isfinite(until).mean()),
        seconds_to_reference=float(np.median(until)),
        ratio=_interval(
            ratio(np.arange(len(own)), np.arange(len(other))), [ratio(*draw) for draw in draws]
        ),
        false_prune_rate=float(np.mean([_false_prune_rate(replay) for replay in replays])),
        saved_share=float(np.mean([_saved_share(replay) for replay in replays])),
        over_cap=float(np.mean([replay.n_over / len(replay.records) for replay in replays])),
    )


def _median_interval(values: Floats, draws: Sequence[tuple[Chosen, Chosen]]) -> Interval:
    return _interval(
        float(np.median(values)), [float(np.median(values[chosen])) for chosen, _ in draws]
    )


def _false_prune_rate(replay: Replay) -> float:
    ranked = sorted(replay.records, key=lambda record: record.true_value, reverse=True)
    best = ranked[: max(1, len(ranked) // 10)]
    return sum(record.value is None for record in best) / len(best)


def _saved_share(replay: Replay) -> float:
    whole = sum(EPOCHS * record.epoch_seconds for record in replay.records)
    return 1 - replay.spent / whole
