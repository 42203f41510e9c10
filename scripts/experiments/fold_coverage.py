"""How often a race's interval holds the accuracy on new images, on real ones.

    python -m scripts.experiments.fold_coverage --draws 60

Draws half of the digits' development images, again and again, to be a small data set with its
parts; the other half stand for new images. Trains three networks of different quality on all
parts but one, twice for each part, and records which images each run gets right, of those that
validate it and of the new ones. A race of four runs each follows.

*Drawn*: intervals from the runs as they are, against the accuracy of the same network on the new
images, over all of its runs. Those images are finitely many: their own scatter is added to the
interval's. *Resampled*: from the recorded answers, the images of each part are drawn anew from all
that its runs have not seen, and one of its two runs; against the mean answer to all these images.

For each way to make an interval: how often it holds, and how wide it is beside Student's t of
one candidate's runs; of a mean, the error that it had beside the one that its variance expects.
Nadeau and Bengio ("Inference for the Generalization Error", 2003) take 1 / n + n_test / n_train for
the 1 / n of Student's t.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import stdtrit

from search.data.dataset import Dataset, Examples, stratified_split
from search.data.load import load_dataset
from search.data.parts import fold
from search.results.folds import Folds, Run
from search.results.race import CONFIDENCE, SeedRace
from search.space.hyperparameters import Hyperparameters
from search.training.epochs import N_LAST_EPOCHS
from search.training.train import train
from search_models.spec import ModelSpec

N_PARTS, N_RUNS, EPOCHS, N_RESAMPLED = 4, 8, 10, 50
RECIPES = [
    Hyperparameters(
        spec=ModelSpec.parse(network),
        learning_rate=0.1,
        batch_size=16,
    )
    for network in (
        "c3 6, pool, c3 10, gap, out",
        "c3 4, pool, c3 6, pool, c3 8, gap, out",
        "c3 6, pool, c3 10, pool, c3 10, gap, out",
    )
]
QUANTILE = (1 + CONFIDENCE) / 2
Shares = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Answered:
    """What one run gets right, as the mean of its last epochs: shares, one an image.

    Args:
        own: of the images that validate it.
        new: of the new images.
    """

    own: Shares
    new: Shares


@dataclass(frozen=True, slots=True)
class Interval:
    """An interval by one of the ways, less the truth that it should hold.

    Args:
        error: of the mean.
        spread: the standard error that the way expects of it; None where it is that of a winner.
    """

    low: float
    high: float
    error: float
    spread: float | None


def small_dataset(digits: Dataset, random: np.random.Generator) -> tuple[Dataset, Examples]:
    """Half of the development images as a data set, and the other half."""
    known, new = np.array_split(random.permutation(len(digits.development)), 2)
    n_validation = len(known) // N_PARTS
    labels = digits.development.labels.numpy()
    known = known[stratified_split(labels[known], n_validation)]
    info = replace(
        digits.info,
        n_training=len(known) - n_validation,
        n_development=len(known),
        n_parts=N_PARTS,
        class_counts=tuple(np.bincount(labels[known[-n_validation:]], minlength=10).tolist()),
    )
    at_hand, others = (
        Examples(digits.development.images[places], digits.development.labels[places])
        for places in map(torch.from_numpy, (known, new))
    )
    return replace(digits, info=info, development=at_hand), others


def answers(recipe: Hyperparameters, run: Run, dataset: Dataset, new: Examples) -> Answered:
    """Trains a recipe on all parts but one, and asks it."""
    split = fold(dataset.development, dataset.info, run.part)
    normalization = dataset.info.normalization
    training = train(
        recipe,
        split.training,
        split.validation,
        normalization,
        places=split.places,
        epochs=EPOCHS,
        seed=run.seed,
        device="cpu",
    )
    images = torch.cat([split.validation.images, new.images]).float() / 255
    images = (images - normalization.mean[0]) / normalization.std[0]
    labels = torch.cat([split.validation.labels, new.labels])
    right = []
    for result in training:
        if result.epoch > EPOCHS - N_LAST_EPOCHS:
            training.network.eval()
            with torch.inference_mode():
                right.append(training.network(images).argmax(dim=1) == labels)
    shares = torch.stack(right).double().mean(dim=0).numpy()
    n = len(split.validation)
    return Answered(shares[:n], shares[n:])


def intervals(
    values: Sequence[Mapping[Run, float]],
    truths: Sequence[float],
    folds: Folds,
    spreads: Sequence[float],
) -> Iterator[tuple[str, Interval]]:
    """What each way makes of the runs of a race's candidates.

    Args:
        truths: what their means should be.
        spreads: the standard errors of these.
    """
    runs = list(values[0])
    race = SeedRace(range(len(values)), runs, folds.n_images)
    while (following := race.next()) is not None:
        candidate, run = following
        race.add(candidate, run, values[candidate][run])
    winner = race.standings()[0]
    assert winner.low is not None
    assert winner.high is not None

    def widened(low: float, high: float, mean: float, number: int) -> tuple[float, float]:
        wider = [math.hypot(each - mean, 1.96 * spreads[number]) for each in (low, high)]
        return mean - wider[0] - truths[number], mean + wider[1] - truths[number]

    number, mean = winner.candidate, winner.mean
    bounds = widened(winner.low, winner.high, mean, number)
    yield "the winner's", Interval(*bounds, mean - truths[number], None)
    n, share = len(runs), 1 / (N_PARTS - 1)
    for number, found in enumerate(values):
        race = SeedRace([number], runs, folds.n_images)
        for run in runs:
            race.add(number, run, found[run])
        mean, variance = statistics.fmean(found.values()), statistics.variance(found.values())
        known = race.bounds(number, QUANTILE)
        assert known is not None
        quantile = float(stdtrit(n - 1, QUANTILE))
        for way, half in (
            ("one candidate's", known[1] - mean),
            ("Student's t", quantile * math.sqrt(variance / n)),
            ("Nadeau and Bengio's", quantile * math.sqrt(variance * (1 / n + share))),
        ):
            bounds = widened(mean - half, mean + half, mean, number)
            spread = math.hypot(half / quantile, spreads[number])
            yield way, Interval(*bounds, mean - truths[number], spread)


def drawn(found: Sequence[Mapping[Run, Answered]], folds: Folds) -> Iterator[tuple[str, Interval]]:
    """From the first runs of all parts as they are."""
    values = [{run: float(each[run].own.mean()) for run in list(each)[:N_PARTS]} for each in found]
    new = [np.mean([answered.new for answered in each.values()], axis=0) for each in found]
    spreads = [float(shares.std(ddof=1)) / math.sqrt(len(shares)) for shares in new]
    yield from intervals(values, [float(shares.mean()) for shares in new], folds, spreads)


def resampled(
    found: Sequence[Mapping[Run, Answered]], folds: Folds, random: np.random.Generator
) -> Iterator[tuple[str, Interval]]:
    """From images and runs that are drawn anew."""
    unseen = [
        {run: np.concatenate([answered.own, answered.new]) for run, answered in each.items()}
        for each in found
    ]
    runs = list(unseen[0])
    truths = [float(np.mean([shares.mean() for shares in each.values()])) for each in unseen]
    for _ in range(N_RESAMPLED):
        values: list[dict[Run, float]] = [{} for _ in unseen]
        for first in runs[:N_PARTS]:
            of_part = [run for run in runs if run.part == first.part]
            n = len(unseen[0][first])
            images = random.integers(0, n, folds.n_images)
            for each, taken in zip(unseen, values, strict=True):
                run = of_part[random.integers(len(of_part))]
                taken[first] = float(each[run][images].mean())
        yield from intervals(values, truths, folds, [0.0] * len(truths))


def print_table(title: str, told: Mapping[str, Sequence[Interval]]) -> None:
    print(f"| {title} | holds | width | error | expected |\n| --- | ---: | ---: | ---: | ---: |")
    plain = statistics.fmean(each.high - each.low for each in told["Student's t"])
    for way, each in told.items():
        width = statistics.fmean(one.high - one.low for one in each) / plain
        holds = statistics.fmean(one.low <= 0 <= one.high for one in each)
        error = math.sqrt(statistics.fmean(one.error**2 for one in each))
        squares = [one.spread**2 for one in each if one.spread is not None]
        expected = f"{100 * math.sqrt(statistics.fmean(squares)):.2f}" if squares else ""
        print(f"| {way} | {100 * holds:.1f} % | {width:.2f} | {100 * error:.2f} | {expected} |")
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    random = np.random.default_rng(arguments.seed)
    digits = load_dataset("digits")
    told: dict[str, dict[str, list[Interval]]] = {
        "drawn": defaultdict(list),
        "resampled": defaultdict(list),
    }
    means = []
    for draw in range(arguments.draws):
        dataset, new = small_dataset(digits, random)
        folds = Folds.of(dataset.info, "accuracy")
        runs = folds.runs(N_RUNS, first_seed=1 + N_RUNS * draw)
        found = [{run: answers(recipe, run, dataset, new) for run in runs} for recipe in RECIPES]
        means.append([np.mean([each.new.mean() for each in one.values()]) for one in found])
        for way, interval in drawn(found, folds):
            told["drawn"][way].append(interval)
        for way, interval in resampled(found, folds, random):
            told["resampled"][way].append(interval)
    print("accuracy on new images, %:", (100 * np.mean(means, axis=0)).round(1), "\n")
    for title, ways in told.items():
        print_table(title, ways)


if __name__ == "__main__":
    main()
