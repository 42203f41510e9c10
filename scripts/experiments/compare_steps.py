"""Whether the native step trains as well as PyTorch's: same recipes, same seeds, both ways.

    python -m scripts.experiments.compare_steps --data-dir DIR    # real MNIST, 15 epochs
    python -m scripts.experiments.compare_steps --data-dir DIR --images 20000    # a third of it
    python -m scripts.experiments.compare_steps --data-dir DIR --names expert-8k   # of all systems

Each system is trained once a seed in each way, on one thread; the accuracy is that on the
validation images, the mean of the last three epochs.
"""

from __future__ import annotations

import argparse
import os
import statistics
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from search.data.load import load_dataset
from search.space.systems import find_system
from search.training.epochs import last_epochs_mean
from search.training.train import train

EPOCHS = 15


@dataclass(frozen=True)
class Run:
    name: str
    seed: int
    use_native: bool
    data_dir: Path
    n_images: int


def accuracy(run: Run) -> float:
    """Percent, the mean of the last three epochs."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    dataset = load_dataset("mnist", run.data_dir)
    n = dataset.info.n_training
    training = train(
        find_system(run.name).hyperparameters,
        dataset.development[: min(n, run.n_images)],
        dataset.development[n:],
        dataset.info.normalization,
        epochs=EPOCHS,
        seed=run.seed,
        device="cpu",
        use_native=run.use_native,
    )
    assert training.is_native == run.use_native
    return 100 * last_epochs_mean(list(training))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--images", type=int, default=60_000, help="the most training images")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--names", nargs="+", default=["v36", "step-lr", "three-step-1"])
    options = parser.parse_args()
    runs = [
        Run(name, seed, use_native, options.data_dir, options.images)
        for name in options.names
        for use_native in (True, False)
        for seed in range(options.seeds)
    ]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        accuracies = dict(zip(runs, pool.map(accuracy, runs), strict=True))
    print("| system | native | PyTorch | difference, standard error |")
    print("| --- | ---: | ---: | ---: |")
    for name in options.names:
        ways = []
        for use_native in (True, False):
            ways.append(
                [
                    value
                    for run, value in accuracies.items()
                    if run.name == name and run.use_native == use_native
                ]
            )
        native, reference = (
            f"{statistics.fmean(way):.3f} ({', '.join(f'{value:.2f}' for value in way)})"
            for way in ways
        )
        difference = statistics.fmean(ways[0]) - statistics.fmean(ways[1])
        error = sum(statistics.variance(way) / len(way) for way in ways) ** 0.5
        print(f"| {name} | {native} | {reference} | {difference:+.3f} ± {error:.3f} |")


if __name__ == "__main__":
    main()
