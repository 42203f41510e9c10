"""Two ways to do a training step: the native one of a CPU, and PyTorch's, which is the reference.

Both do the same arithmetic on a batch named by its indices: gather, move by an affine matrix,
normalise, forward, loss, backward. Optimiser and schedule are PyTorch on either one's parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import native
from models.convnet import ConvNet
from search.augment import warp
from search.data import Examples, Normalization

_EVALUATION_BATCH = 500


class Engine(Protocol):
    """One network, one set of training images, and a way to train on them.

    `network` holds the weights; `parameters` is what an optimiser is to change, with their
    gradients set by `backward`.
    """

    @property
    def network(self) -> ConvNet: ...
    @property
    def parameters(self) -> Sequence[nn.Parameter]: ...

    def backward(self, index: Tensor, matrices: Tensor | None) -> None:
        """Sets the gradient of the mean loss of the images at `index`, (N,).

        Args:
            matrices: (N, 2, 3), as `torch.nn.functional.affine_grid` takes them, or None.
        """

    def take_totals(self) -> tuple[float, int]:
        """Sum of losses and number of hits since the last call."""

    def evaluate(self, examples: Examples) -> tuple[float, float]:
        """Mean cross-entropy and accuracy on `examples`, which are on the engine's device."""


def make_engine(
    network: ConvNet,
    training: Examples,
    normalization: Normalization,
    *,
    batch_size: int,
    seed: int,
    device: torch.device,
    use_native: bool,
) -> Engine:
    """The native engine where it serves `network` on `device`, else PyTorch's."""
    kernel = native.kernel() if use_native and device.type == "cpu" else None
    if kernel is None or native.uncovered(network.spec) is not None:
        return TorchEngine(network, training, normalization, device)
    return NativeEngine(network, training, normalization, kernel, batch_size, seed)


class TorchEngine:
    """The step in plain PyTorch, on any device."""

    def __init__(
        self,
        network: ConvNet,
        training: Examples,
        normalization: Normalization,
        device: torch.device,
    ) -> None:
        self.network = network.to(device)
        self.parameters = list(network.parameters())
        self._training = training.to(device)
        self._mean = torch.tensor(normalization.mean, device=device).view(1, -1, 1, 1)
        self._std = torch.tensor(normalization.std, device=device).view(1, -1, 1, 1)
        self._loss_sum = torch.zeros((), device=device)
        self._n_correct = torch.zeros((), dtype=torch.int64, device=device)

    def backward(self, index: Tensor, matrices: Tensor | None) -> None:
        self.network.train()
        self.network.zero_grad()
        images = self._training.images[index].float().div_(255)  # (N, C, H, W)
        if matrices is not None:
            images = warp(images, matrices)
        labels = self._training.labels[index]  # (N,)
        logits = self.network(self._normalize(images))  # (N, n_classes)
        loss = F.cross_entropy(logits, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        # Added up on the device: reading a value would wait for it at each step.
        self._loss_sum += loss.detach() * len(index)
        self._n_correct += (logits.detach().argmax(dim=1) == labels).sum()

    def take_totals(self) -> tuple[float, int]:
        totals = self._loss_sum.item(), int(self._n_correct.item())
        self._loss_sum.zero_()
        self._n_correct.zero_()
        return totals

    @torch.inference_mode()
    def evaluate(self, examples: Examples) -> tuple[float, float]:
        self.network.eval()
        loss_sum, n_correct = 0.0, 0
        for start in range(0, len(examples), _EVALUATION_BATCH):
            batch = examples[start : start + _EVALUATION_BATCH]
            logits = self.network(self._normalize(batch.images.float().div_(255)))
            loss_sum += F.cross_entropy(logits, batch.labels, reduction="sum").item()
            n_correct += int((logits.argmax(dim=1) == batch.labels).sum())
        return loss_sum / len(examples), n_correct / len(examples)

    def _normalize(self, images: Tensor) -> Tensor:
        return (images - self._mean) / self._std


class NativeEngine:
    """The step in compiled code, on one thread of a CPU."""

    def __init__(
        self,
        network: ConvNet,
        training: Examples,
        normalization: Normalization,
        kernel: native.Kernel,
        batch_size: int,
        seed: int,
    ) -> None:
        self.network = network
        self._native = native.NativeNetwork(network, kernel, batch_size, seed=seed)
        self.parameters = [self._native.parameters]
        self._training = training
        self._batch = native.Batch(
            kernel,
            network.spec.input_shape,
            batch_size,
            mean=normalization.mean,
            std=normalization.std,
        )
        self._loss_sum, self._n_correct = 0.0, 0

    def backward(self, index: Tensor, matrices: Tensor | None) -> None:
        self._batch.fill(self._training.images, self._training.labels, index, matrices)
        loss_sum, n_correct = self._native.step(self._batch)
        self._loss_sum += loss_sum
        self._n_correct += n_correct

    def take_totals(self) -> tuple[float, int]:
        totals = self._loss_sum, self._n_correct
        self._loss_sum, self._n_correct = 0.0, 0
        return totals

    def evaluate(self, examples: Examples) -> tuple[float, float]:
        loss_sum, n_correct = self._native.evaluate_images(
            examples.images, examples.labels, self._batch
        )
        return loss_sum / len(examples), n_correct / len(examples)
