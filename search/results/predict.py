"""What a network takes images for, and how sure it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from search.data.digit_photos import SIDE, read_digit, shows_several
from search.data.names import TENSORS, ImageSize, folder_of, short_name
from search.data.pictures import read_fitted
from search.exceptions import InputError
from search.training.weights import Card, Classifier

_SURE = 0.9


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

    @property
    def is_sure(self) -> bool:
        """Whether to rely on it.

        On MNIST's test images `best-1-epoch` gives 59 of its 72 wrong answers without being sure,
        and 1.7 % of its right ones.
        """
        return self.probability >= _SURE


def image_reader(card: Card) -> Callable[[Path], Tensor]:
    """What makes of a picture file an image as a card's network takes it, bytes (C, H, W).

    Where the network learnt from a folder of images, pictures are scaled as those were; else they
    are pictures of digits, and are made like MNIST's. It raises InputError for what is no picture.

    Raises:
        InputError: if the network takes images that no picture is made into.
    """
    shape = card.hyperparameters.spec.input_shape
    if folder_of(card.dataset) is not None:
        return lambda path: _fitted(path, shape[0], shape[1:])
    if card.dataset.startswith(TENSORS) or shape != (1, SIDE, SIDE):
        raise InputError(
            f"Pictures are read for networks that learnt digits of 1×{SIDE}×{SIDE} grey pixels, or "
            f"from a folder of images, but this one takes {'×'.join(map(str, shape))} "
            f"and learnt from {short_name(card.dataset)}; give it tensors in Python, with "
            "search.load."
        )
    return lambda path: torch.from_numpy(read_digit(path)).unsqueeze(0)


def several_seer(card: Card) -> Callable[[Path], bool]:
    """What says whether a picture seems to show more than the one digit that a network is asked of.

    Of a network that learnt from a folder of images nobody knows what is one.
    """
    return shows_several if folder_of(card.dataset) is None else lambda path: False


def _fitted(path: Path, channels: int, size: ImageSize) -> Tensor:
    """A picture as an image of that size, (C, H, W)."""
    colours = torch.from_numpy(read_fitted(path, size))
    if channels == 3:
        return colours
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)  # ITU-R BT.601, as in Pillow
    return (colours * weights).sum(dim=0, keepdim=True).round().to(torch.uint8)


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
