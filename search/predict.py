"""What a network takes images for, and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from search.exceptions import InputError
from search.predict_image import SIDE
from search.weights import Classifier


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


def check_takes_pictures(network: Classifier) -> None:
    """Sees that a network takes what `read_digit` gives.

    Raises:
        InputError: if it takes other images.
    """
    shape = network.network.spec.input_shape
    if shape != (1, SIDE, SIDE):
        raise InputError(
            f"Pictures are read for networks that take 1×{SIDE}×{SIDE} grey pixels, but this one "
            f"takes {'×'.join(map(str, shape))}; take another network."
        )


@torch.inference_mode()
def predict(network: Classifier, images: Tensor) -> list[Prediction]:
    """One prediction an image.

    Args:
        network: of two classes or more.
        images: bytes (N, 1, 28, 28).
    """
    probabilities = network(images).double().softmax(dim=1)  # (N, n_classes)
    best = probabilities.topk(2).indices
    return [
        Prediction(label, runner_up, tuple(shares))
        for (label, runner_up), shares in zip(best.tolist(), probabilities.tolist(), strict=True)
    ]
