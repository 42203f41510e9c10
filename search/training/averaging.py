"""The moving average of a network's weights: smoother than the weights that training leaves.

Polyak and Juditsky, "Acceleration of stochastic approximation by averaging" (1992), with
exponential weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


class WeightAverage:
    """The exponential moving average of tensors that training changes in place.

    Step t keeps `exp(-1 / n_steps)` of the average, but at most (1 + t) / (10 + t), so that it soon
    forgets where training began, as in TensorFlow:
    https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage

    PyTorch's `AveragedModel` takes 20 times as long, as it looks for the module's tensors at each
    step.

    Args:
        tensors: none of which needs a gradient.
        n_steps: the horizon.
    """

    def __init__(self, tensors: Sequence[Tensor], n_steps: float) -> None:
        self._tensors = list(tensors)
        self._average = [tensor.clone() for tensor in tensors]
        self._raw: list[Tensor] | None = None
        self._decay = math.exp(-1 / n_steps)
        self._n_updates = 0

    def update(self) -> None:
        """Takes note of the tensors after a step."""
        decay = min(self._decay, (1 + self._n_updates) / (10 + self._n_updates))
        torch._foreach_lerp_(self._average, self._tensors, 1 - decay)
        self._n_updates += 1

    def apply(self) -> None:
        """Puts the average in the place of the tensors' own values, until `restore`."""
        self._raw = [tensor.clone() for tensor in self._tensors]
        _copy(self._average, self._tensors)

    def restore(self) -> None:
        """Puts the values back that `apply` replaced, if it did."""
        if self._raw is not None:
            _copy(self._raw, self._tensors)
            self._raw = None


def _copy(values: Sequence[Tensor], tensors: Sequence[Tensor]) -> None:
    for value, tensor in zip(values, tensors, strict=True):
        tensor.copy_(value)
