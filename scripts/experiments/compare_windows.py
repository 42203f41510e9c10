"""What TPE loses by what it forgets: searches that learn from all trials, and from some, by pairs.

    python -m scripts.experiments.compare_windows

As `replay.py` replays them: accuracies come from models of recorded trainings.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import numpy as np
import optuna

from scripts.experiments.policies import make_policy, replay
from scripts.experiments.record_curves import read_table
from scripts.experiments.recorded_points import points_of
from scripts.experiments.surrogate import Surrogate
from search.tuner.sampler import SAMPLERS, CappedSampler


@functools.cache
def _surrogate() -> Surrogate:
    return Surrogate(points_of(read_table()))


def found(seed: int, n_trials: int, *, forgets: bool) -> tuple[list[float], float]:
    """The true value of a replayed search's best after each third of it, and its seconds."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    kind, policy = SAMPLERS["tpe"], make_policy("standard/tpe/halving-5-3")

    def sampler(own_seed: int) -> CappedSampler:
        return CappedSampler(
            kind.make(own_seed),
            policy.space,
            max_redraws=kind.max_redraws,
            seed=own_seed,
            forgets=forgets,
        )

    started = time.perf_counter()
    search = replay(
        replace(policy, sampler=sampler),
        _surrogate(),
        seed,
        n_trials=n_trials,
    )
    best = [
        max((r.value, r.true_value) for r in search.records[: n_trials * third // 3] if r.value)[1]
        for third in (1, 2, 3)
    ]
    return best, time.perf_counter() - started


def print_pairs(n_trials: int, n_seeds: int) -> None:
    """Searches whose TPE learns from all trials against searches whose TPE forgets, by pairs."""
    with ProcessPoolExecutor(os.cpu_count()) as executor:
        runs = {
            forgets: [
                executor.submit(found, seed, n_trials, forgets=forgets) for seed in range(n_seeds)
            ]
            for forgets in (False, True)
        }
        results = {forgets: [run.result() for run in own] for forgets, own in runs.items()}
    for third in range(3):
        of_all, of_some = (
            np.array([best[third] for best, _ in results[forgets]]) for forgets in (False, True)
        )
        differences = 100 * (of_some - of_all)
        error = differences.std(ddof=1) / n_seeds**0.5
        print(
            f"after {n_trials * (third + 1) // 3} trials: {100 * of_all.mean():.3f} % by all "
            f"trials, {100 * of_some.mean():.3f} % by best and latest; difference "
            f"{differences.mean():+.3f}, standard error {error:.3f}, {n_seeds} pairs"
        )
    seconds = [statistics.fmean(took for _, took in results[forgets]) for forgets in (False, True)]
    print(f"a search took {seconds[0]:.0f} s by all trials, {seconds[1]:.0f} s by best and latest")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=8)
    options = parser.parse_args()
    print_pairs(options.trials, options.seeds)


if __name__ == "__main__":
    main()
