"""Which classes a network takes for which, counted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_CLASSES = 25  # whose confusions can be read as a matrix; of more, the worst pairs are shown
N_PAIRS = 30


@dataclass(frozen=True, slots=True)
class Pair:
    """Images of one class that were taken for another.

    Args:
        label, answer: the true class and the other, by number.
        n_images: how many there are of the true class.
    """

    label: int
    answer: int
    n_wrong: int
    n_images: int


def off_diagonal(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """What is wrong of a confusion matrix, (n_classes, n_classes)."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    return wrong


def most_confused(counts: NDArray[np.int64], n_pairs: int = N_PAIRS) -> list[Pair]:
    """The pairs of classes that are confused most, the worst first; each is confused at all.

    Args:
        counts: (n_classes, n_classes), true classes in rows.
    """
    wrong, sizes = off_diagonal(counts), counts.sum(axis=1)
    labels, answers = np.nonzero(wrong)
    order = np.argsort(-wrong[labels, answers], kind="stable")[:n_pairs]
    return [
        Pair(label, answer, int(wrong[label, answer]), int(sizes[label]))
        for label, answer in zip(labels[order].tolist(), answers[order].tolist(), strict=True)
    ]
