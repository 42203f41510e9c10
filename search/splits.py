"""How many images of each data set train, validate and test in a search."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Split:
    """Numbers of images; a network is retrained on those that train and validate together."""

    n_training: int
    n_validation: int
    n_test: int


_OF_TORCHVISION = Split(50_000, 10_000, 10_000)
SPLITS = {
    "mnist": _OF_TORCHVISION,
    "fashion-mnist": _OF_TORCHVISION,
    "kmnist": _OF_TORCHVISION,
    "digits": Split(1_079, 359, 359),
}
