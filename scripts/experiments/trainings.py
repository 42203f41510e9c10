"""Trainings that are kept: any experiment may read what another has trained.

Each is a line of JSON in a file: the data set, recipe, epochs, fold and seed, and the accuracy
after each epoch. The file is read whole at the start, and a line is added as soon as a training
ends: an experiment that is stopped goes on where it was.

A fold holds out every n-th image of each class of the development images.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from search.data.dataset import Dataset, DatasetInfo, Examples
from search.data.load import load_dataset
from search.space.hyperparameters import Hyperparameters
from search.space.space import Space
from search.training.train import train

# By which the default is not judged: data set, cap, epochs, folds.
TASKS = {
    "digits": ("digits", 3_000, 15, 5),
    "mnist-small": ("mnist", 2_000, 8, 6),
    "mnist-large": ("mnist", 12_000, 8, 6),
    "mnist-one": ("mnist", 12_000, 1, 6),
    "fashion": ("fashion-mnist", 4_000, 8, 6),
    "letters": ("letters", 3_000, 15, 5),
    "coloured": ("coloured", 5_000, 15, 5),
    "icons": ("icons", 8_000, 15, 5),
}


@dataclass(frozen=True)
class Run:
    """One training: what is trained, on which part of which data, from which seed."""

    recipe: Hyperparameters
    epochs: int
    fold: int
    seed: int

    def key(self, dataset: Dataset, n_folds: int) -> str:
        """What tells it from all others, over sessions and machines."""
        told = {
            "data": dataset.info.fingerprint,
            "recipe": self.recipe.to_dict(),
            "run": [self.epochs, self.fold, n_folds, self.seed],
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:20]


def load_data(name: str, data_dir: Path | None, folder: Path | None) -> Dataset:
    """A built-in data set, or the folder of that name in one that `varied_images` wrote."""
    return load_dataset(name if folder is None else f"folder:{folder / name}", data_dir)


def built_in_space(name: str, info: DatasetInfo, cap: int, epochs: int) -> Space:
    """A built-in space as a search of these images would have it."""
    return Space.load(
        name,
        input_shape=info.input_shape,
        n_classes=info.n_classes,
        parameter_cap=cap,
        n_training=info.n_training,
        epochs=epochs,
    )


def fold_of(examples: Examples, fold: int, n_folds: int) -> tuple[Examples, Examples]:
    """The images that train and those that validate, in their order."""
    order = torch.argsort(examples.labels, stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    held_out = place % n_folds == fold
    parts = [
        Examples(examples.images[mask], examples.labels[mask]) for mask in (~held_out, held_out)
    ]
    return parts[0], parts[1]


class Trainings:
    """The trainings in one file.

    Args:
        path: made with the first training.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self._known: dict[str, list[float]] = {
            row["key"]: row["accuracies"] for row in map(json.loads, lines)
        }

    def accuracies(self, dataset: Dataset, run: Run, *, n_folds: int, **about: Any) -> list[float]:
        """Those on the images held out, after each epoch; trained where they are not known.

        Args:
            about: what a reader of the file should know of it.
        """
        key = run.key(dataset, n_folds)
        if key not in self._known:
            training, validation = fold_of(dataset.development, run.fold, n_folds)
            results = train(
                run.recipe,
                training,
                validation,
                dataset.info.normalization,
                epochs=run.epochs,
                seed=run.seed,
                device="cpu",
            )
            found = [round(result.accuracy, 6) for result in results]
            row = {"key": key, **about, "fold": run.fold, "seed": run.seed, "accuracies": found}
            with self._path.open("a") as file:
                file.write(json.dumps(row) + "\n")
                file.flush()
                os.fsync(file.fileno())
            self._known[key] = found
        return self._known[key]

    def value(self, dataset: Dataset, run: Run, *, n_folds: int, **about: Any) -> float:
        """The mean of the last three epochs, as a trial's value is."""
        last = self.accuracies(dataset, run, n_folds=n_folds, **about)[-3:]
        return sum(last) / len(last)
