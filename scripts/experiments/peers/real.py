"""Real searches by ours and by peers, in turn, at equal training seconds.

    python -m scripts.experiments.peers.real --task mnist-5000 --data-dir DIR --environments FOLDER
    python -m scripts.experiments.peers.real --task mnist-5000 --data-dir DIR --table

Each way has the default space, its first configuration and the same training step, and trains one
network at a time; `version 0.1.0` has the space `standard` and what that begins with. A search may
cost as many seconds of the processor as given. Its best three whole trainings then race over two
folds of the development images with fresh seeds; the winner is trained once more on each fold. What
is raced and confirmed is kept in docs/choices/yardstick.jsonl, and each search is a line in
docs/choices/real-peers.jsonl: neither is trained again. The test set is not looked at.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import optuna
import torch

from scripts.experiments import yardstick
from scripts.experiments.peers.client import play_peer
from scripts.experiments.peers.trainer import Trained, Trainer
from scripts.experiments.peers.ways import WAYS
from scripts.experiments.trainings import Run, Trainings, built_in_space
from search.data.dataset import Dataset
from search.data.load import load_dataset
from search.results.race import mean_interval
from search.space.hyperparameters import Hyperparameters
from search.training.train import train

KEPT = Path("docs/choices/real-peers.jsonl")
OURS, OLD = "ours", "version 0.1.0"
N_RACES = 2  # folds, of each that is raced
SECONDS = {"mnist-5000": 360.0, "digits-8000": 60.0}


class RealTrainer(Trainer):
    """Trains on the images that a search trains on, and validates on the others."""

    def __init__(self, task: str, way: str, dataset: Dataset, *, seed: int) -> None:
        _, cap, epochs, _, _ = yardstick.TASKS[task]
        space = built_in_space("standard" if way == OLD else "adaptive", dataset.info, cap, epochs)
        super().__init__(space, epochs, seed=seed, seconds=SECONDS[task])
        self._dataset = dataset
        self.steps: list[tuple[float, str]] = []  # when a whole training had the highest value

    def train(self, key: str, values: Any, epoch: int) -> list[float]:
        found = super().train(key, values, epoch)
        is_best = [self.trained[key]] == self.best()[:1] and len(found) == self.epochs
        if is_best and (not self.steps or self.steps[-1][1] != key):
            self.steps.append((round(self.spent, 1), key))
        return found

    def _begin(self, recipe: Hyperparameters, number: int) -> Iterator[tuple[float, float]]:
        images, n_training = self._dataset.development, self._dataset.info.n_training
        results = iter(
            train(
                recipe,
                images[:n_training],
                images[n_training:],
                self._dataset.info.normalization,
                epochs=self.epochs,
                seed=1000 * self.seed + number,
                device="cpu",
            )
        )
        accuracy = 0.0
        while True:
            began = time.process_time()
            result = next(results, None)  # none of one that diverged: it stays where it was
            accuracy = accuracy if result is None else result.accuracy
            yield accuracy, time.process_time() - began


class Folds:
    """Trains recipes over the folds of a task, each once."""

    def __init__(self, task: str, dataset: Dataset) -> None:
        self._task, self._dataset = task, dataset
        self._trainings = Trainings(yardstick.KEPT)
        _, _, self._epochs, self.n_folds, _ = yardstick.TASKS[task]

    def mean(self, recipe: Hyperparameters, folds: Sequence[int], seed: int) -> float:
        """The mean accuracy over some folds, as a share.

        Args:
            seed: of the first fold's training; each fold has another.
        """
        values = [
            self._trainings.value(
                self._dataset,
                Run(recipe, self._epochs, fold, seed + fold),
                n_folds=self.n_folds,
                task=self._task,
                recipe="of a real search",
            )
            for fold in folds
        ]
        return statistics.fmean(values)

    def winner(self, best: Sequence[Trained]) -> Trained:
        """Which of some wins a race."""
        return max(best, key=lambda one: self.mean(one.recipe, range(N_RACES), 301))


def search(way: str, trainer: RealTrainer, environments: Path) -> None:
    """Has a way search until its seconds are over."""
    if way == OLD:
        WAYS["ours, even first draws"](trainer)
    elif way in WAYS:
        WAYS[way](trainer)
    else:
        play_peer(way, environments, trainer)


def rows_of(task: str) -> list[dict[str, Any]]:
    """The searches of a task that are kept."""
    lines = KEPT.read_text().splitlines() if KEPT.exists() else []
    return [row for row in map(json.loads, lines) if row["task"] == task]


def print_table(task: str) -> None:
    """A row a way: what its searches found, in percent, and by how much that is more than ours."""
    found: dict[str, dict[int, float]] = {}
    for row in rows_of(task):
        found.setdefault(row["way"], {})[row["seed"]] = 100 * row["found"]
    print("| search | found | its seeds | beside ours |\n| --- | ---: | ---: | ---: |")
    for way, values in sorted(found.items(), key=lambda item: -statistics.fmean(item[1].values())):
        ours = found.get(OURS, {})
        differences = [values[seed] - ours[seed] for seed in values if seed in ours]
        interval = mean_interval(differences) if way != OURS and len(differences) > 1 else None
        beside = (
            ""
            if interval is None
            else f"{statistics.fmean(differences):+.3f} ({interval[0]:+.3f} to {interval[1]:+.3f})"
        )
        seeds = ", ".join(f"{values[seed]:.3f}" for seed in sorted(values))
        print(f"| {way} | {statistics.fmean(values.values()):.3f} | {seeds} | {beside} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=SECONDS, required=True)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--environments", type=Path, default=Path())
    parser.add_argument("--ways", nargs="*", default=[OURS, OLD, "optuna", "neps", "syne-asha"])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--table", action="store_true", help="of what is kept; trains nothing")
    options = parser.parse_args()
    if options.table:
        print_table(options.task)
        return
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    dataset = load_dataset(yardstick.TASKS[options.task][0], options.data_dir)
    folds = Folds(options.task, dataset)
    for seed in options.seeds:
        for way in options.ways:
            if any((row["way"], row["seed"]) == (way, seed) for row in rows_of(options.task)):
                continue
            trainer = RealTrainer(options.task, way, dataset, seed=seed)
            search(way, trainer, options.environments.resolve())
            winner = folds.winner(trainer.best())
            row = {
                "task": options.task,
                "way": way,
                "seed": seed,
                "seconds": round(trainer.spent, 1),
                "trainings": len(trainer.trained),
                "steps": trainer.steps,
                "winner": next(k for k, one in trainer.trained.items() if one is winner),
                "value": round(winner.value, 5),
                "found": round(folds.mean(winner.recipe, range(folds.n_folds), 201), 6),
            }
            with KEPT.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
