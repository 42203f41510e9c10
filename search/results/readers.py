"""What makes of picture files the images that a network is asked about. Without PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from search.data.digit_photos import SIDE, read_digit, shows_several
from search.data.names import TENSORS, ImageSize, folder_of, short_name
from search.data.pictures import read_fitted
from search.exceptions import InputError
from search.training.card import Card


def image_reader(card: Card) -> Callable[[Path], NDArray[np.uint8]]:
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
    return lambda path: read_digit(path)[np.newaxis]


def several_seer(card: Card) -> Callable[[Path], bool]:
    """What says whether a picture seems to show more than the one digit that a network is asked of.

    Of a network that learnt from a folder of images nobody knows what is one.
    """
    return shows_several if folder_of(card.dataset) is None else lambda path: False


def _fitted(path: Path, channels: int, size: ImageSize) -> NDArray[np.uint8]:
    """A picture as an image of that size, (C, H, W)."""
    colours = read_fitted(path, size)
    if channels == 3:
        return colours
    weights = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as in Pillow
    grey: NDArray[np.uint8]
    grey = (colours * weights.reshape(3, 1, 1)).sum(axis=0, keepdims=True).round().astype(np.uint8)
    return grey
