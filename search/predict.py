"""What a network takes images for, and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from search.dataset_names import TENSORS, folder_of, short_name
from search.exceptions import InputError
from search.picture_files import read_square
from search.predict_image import SIDE, read_digit
from search.weights import Card, Classifier


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a network says of one image.

    Args:
        label, runner_up: the likeliest class and the next.
        probabilities: of all classes, by label; they add up to 1.
    """

    label: int
    runner_up: int
    probabilities: tuple[float, ...]

    @property
    def probability(self) -> float:
        return self.probabilities[self.label]


def read_images(paths: Sequence[Path], card: Card) -> Tensor:
    """Picture files as a card's network takes them, bytes (N, C, H, W).

    Where it learnt from a folder of images, they are scaled as those were; else they are pictures
    of digits, and are made like MNIST's.

    Raises:
        InputError: if a file is no picture, or the network takes other images.
    """
    channels, *sides = card.hyperparameters.spec.input_shape
    if folder_of(card.dataset) is not None:
        colours = torch.from_numpy(np.stack([read_square(path, sides[0]) for path in paths]))
        return colours if channels == 3 else _grey(colours)
    if card.dataset.startswith(TENSORS) or (channels, *sides) != (1, SIDE, SIDE):
        raise InputError(
            f"Pictures are read for networks that learnt digits of 1×{SIDE}×{SIDE} grey pixels, or "
            f"from a folder of images, but this one takes {channels}×{'×'.join(map(str, sides))} "
            f"and learnt from {short_name(card.dataset)}; give it tensors in Python, with "
            "search.load."
        )
    return torch.from_numpy(np.stack([read_digit(path) for path in paths])[:, np.newaxis])


def _grey(colours: Tensor) -> Tensor:
    """The brightness of colours, by ITU-R BT.601 as in Pillow: (N, 3, H, W) to (N, 1, H, W)."""
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (colours * weights).sum(dim=1, keepdim=True).round().to(torch.uint8)


@torch.inference_mode()
def predict(network: Classifier, images: Tensor) -> list[Prediction]:
    """One prediction an image.

    Args:
        network: of two classes or more.
        images: bytes (N, C, H, W).
    """
    probabilities = network(images).double().softmax(dim=1)  # (N, n_classes)
    best = probabilities.topk(2).indices
    return [
        Prediction(label, runner_up, tuple(shares))
        for (label, runner_up), shares in zip(best.tolist(), probabilities.tolist(), strict=True)
    ]
