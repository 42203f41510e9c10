"""How often the interval of a race's winner holds its true mean, simulated.

    python -m scripts.experiments.race_coverage --races 20000

Races candidates whose true means lie evenly apart, in standard deviations of a run, and prints for
each size of race and each distance: how often the winner's interval holds the winner's true mean,
and how often one of a single mean would, which allows for nothing; how wide it is beside that one;
by how much the winner's mean is too high, and by how much `luck_of_winning` says that it may be;
how often a candidate is dropped; and how many runs the race took.
"""

from __future__ import annotations

import argparse
import random
import statistics
from dataclasses import dataclass

from search.results.race import CONFIDENCE, SeedRace

SIZES = ((3, 3), (5, 5), (6, 8))  # candidates and seeds
DISTANCES = (0.0, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True, slots=True)
class Raced:
    """What one race told; all in standard deviations of a run."""

    holds: bool
    plain_holds: bool
    width: float
    plain_width: float
    excess: float
    luck: float
    n_dropped: int
    n_runs: int


def race(n_candidates: int, n_seeds: int, distance: float, noise: random.Random) -> Raced:
    """One race of candidates with means 0, -distance, -2 · distance and so on."""
    raced = SeedRace(range(n_candidates), range(n_seeds))
    # A small scatter, so that no interval ends at 0 or 1, as one of accuracies would.
    while (following := raced.next()) is not None:
        candidate, seed = following
        raced.add(candidate, seed, 0.5 + 1e-4 * noise.gauss(-distance * candidate, 1.0))
    standings = raced.standings()
    winner = standings[0]
    plain = raced.bounds(winner.candidate, (1 + CONFIDENCE) / 2)
    luck = raced.luck_of_winning()
    low, high = winner.low, winner.high
    if low is None or high is None or plain is None or luck is None:
        raise ValueError("A race must run each candidate with two seeds or more.")
    true_mean = 0.5 - 1e-4 * distance * winner.candidate
    return Raced(
        holds=low <= true_mean <= high,
        plain_holds=plain[0] <= true_mean <= plain[1],
        width=1e4 * (high - low),
        plain_width=1e4 * (plain[1] - plain[0]),
        excess=1e4 * (winner.mean - true_mean),
        luck=1e4 * luck,
        n_dropped=sum(standing.is_out for standing in standings),
        n_runs=sum(len(standing.values) for standing in standings),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--races", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(
        "| candidates × seeds | apart | holds | single mean's | width | mean too high | said | "
        "dropped, each | runs |"
    )
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for n_candidates, n_seeds in SIZES:
        for distance in DISTANCES:
            noise = random.Random(arguments.seed)
            told = [race(n_candidates, n_seeds, distance, noise) for _ in range(arguments.races)]
            mean = statistics.fmean
            width = mean(one.width for one in told) / mean(one.plain_width for one in told)
            print(
                f"| {n_candidates} × {n_seeds} | {distance:g} "
                f"| {100 * mean(one.holds for one in told):.1f} % "
                f"| {100 * mean(one.plain_holds for one in told):.1f} % "
                f"| {width:.2f} "
                f"| {mean(one.excess for one in told):.2f} "
                f"| {mean(one.luck for one in told):.2f} "
                f"| {100 * mean(one.n_dropped for one in told) / (n_candidates - 1):.1f} % "
                f"| {mean(one.n_runs for one in told):.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
