"""The ways to do a training step: in PyTorch, the reference; natively on a CPU; as a CUDA graph;
of a user's network, as PyTorch compiles it.

All do the same arithmetic on a batch named by its indices: gather, warp, normalise, forward, loss,
backward. Optimiser and schedule are PyTorch on any one's parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search.data.dataset import Examples
from search.data.normalization import Normalization
from search.training.augment import Warps, warp
from search.training.compiled import LEAST_IMAGES, compiled
from search.training.metrics import Metric, score
from search_models import native
from search_models.convnet import ConvNet

_EVALUATION_BATCH = 500
_WARM_UP_RUNS = 3  # what PyTorch's notes on CUDA graphs ask for before a recording


class Engine(Protocol):
    """One network, one set of training images, and a way to train on them.

    `network` holds the weights; `parameters` is what an optimiser is to change, with their
    gradients set by `backward`. `state` is all floating-point tensors that training changes in the
    network, the running statistics included; they may be changed in place.
    """

    @property
    def network(self) -> nn.Module: ...
    @property
    def parameters(self) -> Sequence[nn.Parameter]: ...
    @property
    def state(self) -> Sequence[Tensor]: ...

    def backward(self, index: Tensor, warps: Warps | None) -> None:
        """Sets the gradient of the mean loss of the images at `index`, (N,).

        Args:
            warps: how each of them is moved first; None leaves them as they are. In one run it is
                the same kind of them at each step.
        """

    def take_totals(self) -> tuple[float, int]:
        """Sum of losses, as they are minimised, and number of hits since the last call."""

    def evaluate(self, examples: Examples, metric: Metric) -> tuple[float, float]:
        """Mean cross-entropy and the metric on `examples`, which are on the engine's device."""


def make_engine(
    network: nn.Module,
    training: Examples,
    normalization: Normalization,
    *,
    batch_size: int,
    label_smoothing: float,
    seed: int,
    device: torch.device,
    use_native: bool,
    n_images: int,
) -> Engine:
    """The fastest engine that serves `network` on `device`.

    Args:
        n_images: that the training sees, in all its epochs.
    """
    # Of a network that is not ours, a replay may leave out what Python decides at each step.
    if device.type == "cuda" and isinstance(network, ConvNet):
        return GraphEngine(
            network,
            training,
            normalization,
            device,
            batch_size=batch_size,
            label_smoothing=label_smoothing,
        )
    kernel = native.kernel() if use_native else None
    if kernel is not None and isinstance(network, ConvNet) and not native.uncovered(network.spec):
        return NativeEngine(
            network,
            training,
            normalization,
            kernel,
            batch_size=batch_size,
            seed=seed,
            label_smoothing=label_smoothing,
        )
    forward = None
    if device.type == "cpu" and not isinstance(network, ConvNet) and n_images >= LEAST_IMAGES:
        forward = compiled(network, (batch_size, *training.images.shape[1:]))
    return TorchEngine(
        network,
        training,
        normalization,
        device,
        label_smoothing=label_smoothing,
        forward=forward,
    )


class TorchEngine:
    """The step in plain PyTorch, on any device.

    Args:
        forward: what gives the logits (N, n_classes) in training; by default the network itself.
    """

    def __init__(
        self,
        network: nn.Module,
        training: Examples,
        normalization: Normalization,
        device: torch.device,
        *,
        label_smoothing: float = 0.0,
        forward: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.network = network.to(device)
        self._forward = forward or self.network
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.state = [
            tensor for tensor in network.state_dict().values() if tensor.is_floating_point()
        ]
        self._training = training.to(device)
        self._label_smoothing = label_smoothing
        self._mean = torch.tensor(normalization.mean, device=device).view(1, -1, 1, 1)
        self._std = torch.tensor(normalization.std, device=device).view(1, -1, 1, 1)
        self._loss_sum = torch.zeros((), device=device)
        self._n_correct = torch.zeros((), dtype=torch.int64, device=device)

    def backward(self, index: Tensor, warps: Warps | None) -> None:
        self.network.train()
        self.network.zero_grad()
        images = self._training.images[index].float().div_(255)  # (N, C, H, W)
        if warps is not None:
            images = warp(images, warps.matrices, warps.displacements)
        labels = self._training.labels[index]  # (N,)
        logits = self._forward(self._normalize(images))  # (N, n_classes)
        loss = F.cross_entropy(logits, labels, label_smoothing=self._label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        for parameter in self.parameters:
            if parameter.grad is None:  # no image has passed it, which a user's network may decide
                parameter.grad = torch.zeros_like(parameter)
        # Added up on the device: reading a value would wait for it at each step.
        self._loss_sum += loss.detach() * len(index)
        self._n_correct += (logits.detach().argmax(dim=1) == labels).sum()

    def take_totals(self) -> tuple[float, int]:
        totals = self._loss_sum.item(), int(self._n_correct.item())
        self._loss_sum.zero_()
        self._n_correct.zero_()
        return totals

    @torch.inference_mode()
    def evaluate(self, examples: Examples, metric: Metric) -> tuple[float, float]:
        self.network.eval()
        loss_sum = torch.zeros((), dtype=torch.float64, device=examples.labels.device)
        right = []
        for start in range(0, len(examples), _EVALUATION_BATCH):
            batch = examples[start : start + _EVALUATION_BATCH]
            logits = self.network(self._normalize(batch.images.float().div_(255)))
            loss_sum += F.cross_entropy(logits, batch.labels, reduction="sum")
            right.append(logits.argmax(dim=1) == batch.labels)
        return loss_sum.item() / len(examples), score(metric, torch.cat(right), examples.labels)

    def _normalize(self, images: Tensor) -> Tensor:
        return (images - self._mean) / self._std


def record_cuda_graph(work: Callable[[], None]) -> Callable[[], None]:
    """Runs `work` a few times, then records it; what comes back does it again, on the same memory.

    By PyTorch's notes, https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.
    """
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP_RUNS):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        work()
    return graph.replay


class GraphEngine(TorchEngine):
    """PyTorch's step on a GPU, recorded once for each training run and replayed.

    A small network's kernels end sooner than Python can start the next; a replay starts all of
    them at once. A last batch that is not full runs unrecorded.

    Args:
        record: makes a replay of the step, by running it as often as it likes first.
    """

    def __init__(
        self,
        network: nn.Module,
        training: Examples,
        normalization: Normalization,
        device: torch.device,
        *,
        batch_size: int,
        label_smoothing: float = 0.0,
        record: Callable[[Callable[[], None]], Callable[[], None]] = record_cuda_graph,
    ) -> None:
        if device.type == "cuda":
            torch.cuda.set_device(device)  # a graph is recorded on the current device
        super().__init__(network, training, normalization, device, label_smoothing=label_smoothing)
        self._record = record
        self._index = torch.zeros(batch_size, dtype=torch.int64, device=device)
        self._warps: Warps | None = None
        self._replay: Callable[[], None] | None = None
        self._gradients: list[Tensor | None] = []

    def backward(self, index: Tensor, warps: Warps | None) -> None:
        if len(index) != len(self._index):
            super().backward(index, warps)
            return
        self._index.copy_(index)
        if self._replay is None:
            self._warps = None if warps is None else warps.clone()
            self._replay = self._recorded()
        elif self._warps is not None and warps is not None:
            self._warps.copy_(warps)
        self._replay()
        # A batch that was not full, or the recording, left other gradients in their place.
        for parameter, gradient in zip(self.parameters, self._gradients, strict=True):
            parameter.grad = gradient

    def _recorded(self) -> Callable[[], None]:
        def step() -> None:
            super(GraphEngine, self).backward(self._index, self._warps)
            self._gradients = [parameter.grad for parameter in self.parameters]

        device = self._index.device
        before = [buffer.clone() for buffer in self.network.buffers()]
        totals = self._loss_sum.clone(), self._n_correct.clone()
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            replay = self._record(step)
        for buffer, value in zip(self.network.buffers(), before, strict=True):
            buffer.copy_(value)
        self._loss_sum.copy_(totals[0])
        self._n_correct.copy_(totals[1])
        return replay


class NativeEngine:
    """The step in compiled code, on one thread of a CPU; `native` is the network within."""

    def __init__(
        self,
        network: ConvNet,
        training: Examples,
        normalization: Normalization,
        kernel: native.Kernel,
        *,
        batch_size: int,
        seed: int,
        label_smoothing: float = 0.0,
    ) -> None:
        self.network = network
        self.native = native.NativeNetwork(network, kernel, batch_size, seed=seed)
        self.parameters = [self.native.parameters]
        self.state = [self.native.parameters.detach(), self.native.statistics]
        self._training = training
        self._label_smoothing = label_smoothing
        self._batch = native.Batch(
            kernel,
            network.spec.input_shape,
            batch_size,
            mean=normalization.mean,
            std=normalization.std,
        )
        self._loss_sum, self._n_correct = 0.0, 0

    def backward(self, index: Tensor, warps: Warps | None) -> None:
        images, labels = self._training.images, self._training.labels
        if warps is None:
            self._batch.fill(images, labels, index)
        else:
            self._batch.fill(images, labels, index, warps.matrices, warps.displacements)
        loss_sum, n_correct = self.native.step(self._batch, label_smoothing=self._label_smoothing)
        self._loss_sum += loss_sum
        self._n_correct += n_correct

    def take_totals(self) -> tuple[float, int]:
        totals = self._loss_sum, self._n_correct
        self._loss_sum, self._n_correct = 0.0, 0
        return totals

    def evaluate(self, examples: Examples, metric: Metric) -> tuple[float, float]:
        if metric == "accuracy":  # which the compiled code counts by itself
            loss_sum, n_correct = self.native.evaluate_images(
                examples.images, examples.labels, self._batch
            )
            return loss_sum / len(examples), n_correct / len(examples)
        loss_sum, right = 0.0, []
        for index in torch.split(torch.arange(len(examples)), self._batch.max_batch):
            self._batch.fill(examples.images, examples.labels, index)
            logits = torch.empty(len(index), self.network.spec.n_classes)
            loss_sum += self.native.evaluate(self._batch, logits=logits)[0]
            right.append(logits.argmax(dim=1) == examples.labels[index])
        return loss_sum / len(examples), score(metric, torch.cat(right), examples.labels)
