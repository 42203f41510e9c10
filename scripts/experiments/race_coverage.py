"""How often the interval of a race's winner holds its true mean, simulated.

    python -m scripts.experiments.race_coverage --races 20000

The accuracy of candidate c in run r, which part p validates, is

    its true mean + difficulty of p + interaction of c and p + noise of the run,

the last three normal. Their variances, which add up to 1, come in mixes: the difficulty is common
to all candidates, the interaction comes again with each run of that candidate on that part, the
noise is new in each run. Of all three together `images` is what the choice of a part's images
brings, p (1 - p) / n, which the race knows. True means lie evenly apart, in standard deviations of
a run. There are six parts, as MNIST has them, or `--parts`: one, where a data set says itself which
images validate.

Prints for each size of race and each distance: how often the winner's interval holds the winner's
true mean, and how often one of a single mean would (Student's t of the pooled variance of runs),
which allows neither for winning nor for what the candidates share; how wide it is beside that one;
by how much the winner's mean is too high, and by how much `luck_of_winning` says that it may be;
how often a candidate is dropped; and how many runs the race took. Then, for other mixes and a
quarter of the races, the worst of each size.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

from search.results.folds import Folds
from search.results.race import CONFIDENCE, SeedRace, Standing

SIZES = ((3, 3), (5, 5), (6, 8))  # candidates and runs
DISTANCES = (0.0, 0.5, 1.0, 2.0, 4.0)
N_PARTS = 6
# A small scatter, so that no interval ends at 0 or 1, as one of accuracies would.
_CENTRE, _STD = 0.5, 1e-4


@dataclass(frozen=True, slots=True)
class Mix:
    """Variances, as shares of that of a run.

    Args:
        difficulty: of a part, for all candidates.
        interaction: of a part with a candidate.
        images: of all that the choice of images brings, the rest being the seed's.
    """

    difficulty: float
    interaction: float
    images: float

    @property
    def noise(self) -> float:
        return 1 - self.difficulty - self.interaction

    @property
    def n_images(self) -> int:
        """How many images a part has, where their choice brings that much."""
        return round(_CENTRE * (1 - _CENTRE) / (self.images * _STD**2))


# As of MNIST: of two networks' errors about half are the same images, and two seeds of one network
# differ little more than chance has them differ.
MNIST = Mix(0.5, 0.25, 0.8)
MIXES = (
    Mix(0.9, 0.05, 1.0),
    Mix(0.5, 0.5, 1.0),
    Mix(0.25, 0.25, 0.6),
    Mix(0.3, 0.0, 0.3),
    Mix(0.0, 0.0, 1e-6),
    Mix(0.0, 0.0, 1.0),
)


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


def race(
    n_candidates: int,
    n_runs: int,
    distance: float,
    noise: random.Random,
    mix: Mix = MNIST,
    n_parts: int = N_PARTS,
) -> Raced:
    """One race of candidates with means 0, -distance, -2 · distance and so on."""
    raced = SeedRace(
        range(n_candidates), Folds(n_parts, 0).runs(n_runs, first_seed=1), mix.n_images
    )
    drawn: dict[object, float] = defaultdict(lambda: noise.gauss(0.0, 1.0))
    while (following := raced.next()) is not None:
        candidate, run = following
        value = (
            -distance * candidate
            + math.sqrt(mix.difficulty) * drawn[run.part]
            + math.sqrt(mix.interaction) * drawn[run.part, candidate]
            + math.sqrt(mix.noise) * noise.gauss(0.0, 1.0)
        )
        raced.add(candidate, run, _CENTRE + _STD * value)
    standings = raced.standings()
    winner = standings[0]
    luck = raced.luck_of_winning()
    if winner.low is None or winner.high is None or luck is None:
        raise ValueError("A race must run each candidate twice or more.")
    true_mean = _CENTRE - _STD * distance * winner.candidate
    plain = single_margin(standings, winner)
    return Raced(
        holds=winner.low <= true_mean <= winner.high,
        plain_holds=abs(winner.mean - true_mean) <= plain,
        width=(winner.high - winner.low) / _STD,
        plain_width=2 * plain / _STD,
        excess=(winner.mean - true_mean) / _STD,
        luck=luck / _STD,
        n_dropped=sum(standing.is_out for standing in standings),
        n_runs=sum(len(standing.values) for standing in standings),
    )


def single_margin(standings: Sequence[Standing], winner: Standing) -> float:
    """What Student's t gives a single mean on both sides, with the pooled variance of runs."""
    freedom = sum(len(standing.values) - 1 for standing in standings)
    squares = sum(
        (value - statistics.fmean(standing.values)) ** 2
        for standing in standings
        for value in standing.values
    )
    quantile = float(stdtrit(freedom, (1 + CONFIDENCE) / 2))
    return quantile * math.sqrt(squares / freedom / len(winner.values))


@dataclass(frozen=True, slots=True)
class Shares:
    """What many races of one kind told, as shares and ratios."""

    holds: float
    plain_holds: float
    width: float
    dropped: float

    @classmethod
    def of(cls, told: Sequence[Raced], n_candidates: int) -> Shares:
        mean = statistics.fmean
        return cls(
            holds=mean(one.holds for one in told),
            plain_holds=mean(one.plain_holds for one in told),
            width=mean(one.width for one in told) / mean(one.plain_width for one in told),
            dropped=mean(one.n_dropped for one in told) / (n_candidates - 1),
        )


def print_distances(n_races: int, seed: int, n_parts: int) -> None:
    print(
        "| candidates × runs | apart | holds | single mean's | width | mean too high | said | "
        "dropped, each | runs |"
    )
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for n_candidates, n_runs in SIZES:
        for distance in DISTANCES:
            noise = random.Random(seed)
            told = [
                race(n_candidates, n_runs, distance, noise, n_parts=n_parts) for _ in range(n_races)
            ]
            shares = Shares.of(told, n_candidates)
            print(
                f"| {n_candidates} × {n_runs} | {distance:g} | {100 * shares.holds:.1f} % "
                f"| {100 * shares.plain_holds:.1f} % | {shares.width:.2f} "
                f"| {statistics.fmean(one.excess for one in told):.2f} "
                f"| {statistics.fmean(one.luck for one in told):.2f} "
                f"| {100 * shares.dropped:.1f} % "
                f"| {statistics.fmean(one.n_runs for one in told):.1f} |",
                flush=True,
            )


def print_mixes(n_races: int, seed: int) -> None:
    print(
        "| difficulty, interaction, noise | images | candidates × runs | holds, least "
        "| single mean's, least | width, most | dropped where alike, each |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for mix in MIXES:
        for n_candidates, n_runs in SIZES:
            shares = []
            for distance in DISTANCES:
                noise = random.Random(seed)
                told = [race(n_candidates, n_runs, distance, noise, mix) for _ in range(n_races)]
                shares.append(Shares.of(told, n_candidates))
            print(
                f"| {mix.difficulty:g}, {mix.interaction:g}, {mix.noise:.2g} | {mix.images:.2g} "
                f"| {n_candidates} × {n_runs} | {100 * min(each.holds for each in shares):.1f} % "
                f"| {100 * min(each.plain_holds for each in shares):.1f} % "
                f"| {max(each.width for each in shares):.2f} | {100 * shares[0].dropped:.1f} % |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--races", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parts", type=int, default=N_PARTS)
    arguments = parser.parse_args()
    print_distances(arguments.races, arguments.seed, arguments.parts)
    print()
    print_mixes(arguments.races // 4, arguments.seed)


if __name__ == "__main__":
    main()
