"""The parts of a data set's development images: each can validate what the others train.

Part 0 is what validates in a search. The images that train there make the others, each with its
share of every class; which is in which follows from the labels alone. So the split of a search
stays as it is, and a job needs no more than the number of a part.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from search.data.dataset import DatasetInfo, Examples


@dataclass(frozen=True, slots=True)
class Fold:
    """What trains and what validates where one part does.

    Args:
        training: images of which those at `places` train.
        places: (N,), int64; None where all of them do.
    """

    training: Examples
    places: Tensor | None
    validation: Examples


def part_numbers(labels: Tensor, info: DatasetInfo) -> Tensor:
    """The part of each development image, (N,), int64, by their labels, (N,), in the same order."""
    numbers = torch.zeros(info.n_development, dtype=torch.int64)
    if info.n_parts > 1:
        # Training images are shuffled; dealt class by class, each class falls evenly to the parts.
        by_class = torch.argsort(labels[: info.n_training], stable=True)
        numbers[by_class] = 1 + torch.arange(info.n_training) % (info.n_parts - 1)
    return numbers


def fold(development: Examples, info: DatasetInfo, part: int) -> Fold:
    """What a run trains on that this part validates; the images that train are not copied.

    Raises:
        ValueError: if there is no such part.
    """
    if not 0 <= part < info.n_parts:
        raise ValueError(f"A part must be one of {info.n_parts}, from 0, but got {part}.")
    if part == 0:
        n = info.n_training
        return Fold(development[:n], None, development[n:])
    validates = part_numbers(development.labels, info) == part
    validation = Examples(development.images[validates], development.labels[validates])
    return Fold(development, torch.nonzero(~validates).squeeze(1), validation)
