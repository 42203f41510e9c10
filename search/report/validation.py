"""A trial's network trained once more as the search did, and its answers on validation images.

A search keeps the weights of its best few trials at most. With the trial's own seed, on the same
machine, its network comes back to the digit; elsewhere one very much like it. The test set is not
touched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from search.data.dataset import Dataset, Examples
from search.exceptions import CardError
from search.folders import training_folder
from search.report.facts import Report
from search.report.weights_figures import confusion_matrix, find_mistakes, probabilities_of
from search.training.card import weights_name
from search.training.epochs import EpochResult
from search.training.weights import load_weights
from search.workers.jobs import WorkerPool
from search.workers.repeats import train_repeats


@dataclass(frozen=True, slots=True)
class Validated:
    """What a network makes of the validation images.

    Args:
        seed: of its training run.
        classes: their names, by label.
        examples: N images, (N, C, H, W), and their labels.
        probabilities: of each class for each image, (N, n_classes).
        counts: how many images of each class (row) were taken for each class (column).
        mistakes: the indices of the images that it takes for a wrong class, the surest first, (M,).
    """

    seed: int
    classes: list[str]
    examples: Examples
    probabilities: Tensor
    counts: NDArray[np.int64]
    mistakes: Tensor

    @property
    def accuracy(self) -> float:
        """As a share from 0 to 1."""
        return float(np.trace(self.counts) / self.counts.sum())


def train_again(
    pool: WorkerPool,
    report: Report,
    path: Path,
    *,
    device: str,
    listener: Callable[[int, EpochResult], None],
) -> None:
    """Trains the chosen trial as the search did, and writes its weights to `path`.

    Raises:
        TrainingError: if the run cannot be finished.
    """
    assert report.hyperparameters is not None
    assert report.training_seed is not None
    with training_folder(path.parent) as folder:
        train_repeats(
            pool,
            report.hyperparameters,
            seeds=[report.training_seed],
            epochs=report.settings.epochs,
            training="train",
            evaluation="validation",
            device=device,
            listener=listener,
            folder=folder,
            metric=report.settings.metric,
        )
        (folder / weights_name(report.training_seed)).replace(path)


def validate(dataset: Dataset, report: Report, path: Path) -> Validated:
    """What the network whose weights `train_again` wrote makes of the validation images.

    Raises:
        CardError: if the weights cannot be read.
    """
    assert report.hyperparameters is not None
    assert report.training_seed is not None
    try:
        classifier = load_weights(report.hyperparameters.spec, dataset.info.normalization, path)
    except CardError as error:
        raise CardError(f"{error} Delete the file, and give the command again with --train.") from (
            error
        )
    examples = dataset.validation
    probabilities = probabilities_of(classifier, examples)
    return Validated(
        seed=report.training_seed,
        classes=list(dataset.info.classes),
        examples=examples,
        probabilities=probabilities,
        counts=confusion_matrix(probabilities, examples.labels),
        mistakes=find_mistakes(probabilities, examples.labels),
    )
