"""`NativeNetwork`: a `ConvNet` trained and evaluated by the compiled step.

`kernel()` is the compiled code for the best instruction set of this machine, or None where the
package was built without a compiler. `NativeNetwork` trains and evaluates a `ConvNet` with it, on
`Batch`es that the sampler fills straight from images of bytes::

    network = NativeNetwork(ConvNet(spec), kernel, max_batch=128)
    optimizer = torch.optim.SGD([network.parameters], lr=0.05)
    batch = Batch(kernel, spec.input_shape, max_batch=128, mean=(0.1307,), std=(0.3081,))
    batch.fill(images, labels, index, matrices)
    loss_sum, n_correct = network.step(batch)
    optimizer.step()

The compiled calls release the GIL. Neither class may be used by two threads at once.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from search_models.convnet import ConvNet
from search_models.layers import Conv, DepthwiseConv
from search_models.native.batch import Batch
from search_models.native.library import (
    Kernel,
    LayerCode,
    check,
    layer_code,
    uncovered,
)

# What the compiled code books time under, in its order.
_STOPWATCHES = ("forward", "input_gradient", "weight_gradient", "elementwise", "head")


class NativeNetwork:
    """A `ConvNet` that trains and evaluates in the kernel.

    The module's parameters and running statistics become views of flat tensors, so its
    `state_dict`, and loading one, go on to work; moving or converting the module would part it
    from them.

    Args:
        network: on the CPU, in float32.
        kernel: the compiled code to use.
        max_batch: the most images a step takes.
        seed: of dropout; each step draws anew from it.

    Attributes:
        parameters: (n_parameters,), float32, with `.grad` set by `step`: what to optimise.
        statistics: (n_statistics,), float32: the running means and variances.

    Raises:
        ValueError: for a network that `uncovered` names, or one that is not on the CPU in float32.
        MemoryError: where the working memory cannot be had.
    """

    def __init__(self, network: ConvNet, kernel: Kernel, max_batch: int, *, seed: int = 0) -> None:
        spec = network.spec
        missing = uncovered(spec)
        if missing is not None:
            raise ValueError(f"The native step does not cover {missing}.")
        if max_batch < 1:
            raise ValueError(f"max_batch >= 1 must hold, but got max_batch={max_batch}.")
        self.network = network
        self.kernel = kernel
        self.max_batch = max_batch
        self._seed = seed
        self._steps = 0
        self.parameters = nn.Parameter(_flatten(list(network.parameters()), "parameters"))
        self._gradient = torch.zeros_like(self.parameters, requires_grad=False)
        _view_as_parts(self.parameters.detach(), self._gradient, list(network.parameters()))
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        self.statistics, self._n_batches = _flatten_statistics(norms)
        self._smallest_map = min(
            height * width
            for layer, (_, height, width) in zip(spec.layers, spec.output_shapes(), strict=True)
            if isinstance(layer, Conv | DepthwiseConv)
        )
        self._loss_sum, self._n_correct = ctypes.c_double(), ctypes.c_int64()
        layers = (LayerCode * len(spec.layers))(*map(layer_code, spec.layers))
        self._library = kernel.library
        self._handle = self._library.native_create(
            kernel.code, layers, len(layers), *spec.input_shape, spec.n_classes, max_batch
        )
        if not self._handle:
            raise MemoryError(f"No memory for '{spec}' in batches of {max_batch}.")
        assert self._library.native_parameters(self._handle) == len(self.parameters)
        assert self._library.native_statistics(self._handle) == len(self.statistics)

    def __del__(self) -> None:
        handle = getattr(self, "_handle", None)
        if handle:
            self._library.native_destroy(handle)
            self._handle = None

    def step(self, batch: Batch, *, label_smoothing: float = 0.0) -> tuple[float, int]:
        """Forward, mean cross entropy and backward, in training mode.

        Writes the gradient of the mean loss to `parameters.grad` and updates the running
        statistics; the optimiser's step is the caller's.

        Returns:
            The sum of the images' losses, and the number classified correctly.

        Raises:
            ValueError: for a batch that does not fit, a label that is no class, a label smoothing
                outside [0, 1], or, as in PyTorch, a batch that leaves BatchNorm only one value of
                a channel.
        """
        self._check_batch(batch)
        if not 0 <= label_smoothing <= 1:
            raise ValueError(
                f"0 <= label_smoothing <= 1 must hold, but got label_smoothing={label_smoothing}."
            )
        if batch.n * self._smallest_map == 1:
            raise ValueError("BatchNorm needs more than one value a channel to train on.")
        self.parameters.grad = self._gradient
        done = self._library.native_step(
            self._handle,
            batch.blocks.data_ptr(),
            batch.n,
            batch.labels.data_ptr(),
            label_smoothing,
            (self._seed * 0x9E3779B97F4A7C15 + self._steps) % 2**64,
            self.parameters.data_ptr(),
            self._gradient.data_ptr(),
            self.statistics.data_ptr(),
            ctypes.byref(self._loss_sum),
            ctypes.byref(self._n_correct),
        )
        self._require_labels(done, batch)
        self._steps += 1
        self._n_batches += 1
        return self._loss_sum.value, self._n_correct.value

    def evaluate(self, batch: Batch, *, logits: Tensor | None = None) -> tuple[float, int]:
        """Loss and hits of `batch` in evaluation mode; `logits` (n, n_classes) are filled if given.

        Returns:
            The sum of the images' losses, and the number classified correctly.

        Raises:
            ValueError: for a batch or logits that do not fit, or a label that is no class.
        """
        self._check_batch(batch)
        if logits is not None:
            check(logits, "logits", torch.float32, (batch.n, self.network.spec.n_classes))
        done = self._library.native_evaluate(
            self._handle,
            batch.blocks.data_ptr(),
            batch.n,
            batch.labels.data_ptr(),
            self.parameters.data_ptr(),
            self.statistics.data_ptr(),
            None if logits is None else logits.data_ptr(),
            ctypes.byref(self._loss_sum),
            ctypes.byref(self._n_correct),
        )
        self._require_labels(done, batch)
        return self._loss_sum.value, self._n_correct.value

    def evaluate_images(self, images: Tensor, labels: Tensor, batch: Batch) -> tuple[float, int]:
        """The same for images (M, C, H, W), uint8, and labels (M,), int64, by way of `batch`.

        Raises:
            ValueError: for tensors of another type, shape or device, or a label that is no class.
        """
        loss_sum, n_correct = 0.0, 0
        size = min(batch.max_batch, self.max_batch)
        for index in torch.split(torch.arange(len(images)), size):
            batch.fill(images, labels, index)
            loss, correct = self.evaluate(batch)
            loss_sum, n_correct = loss_sum + loss, n_correct + correct
        return loss_sum, n_correct

    @contextmanager
    def profile(self) -> Iterator[dict[str, float]]:
        """Where the time goes: seconds by kind of work, in the dictionary once the block ends.

        `forward`, `input_gradient` and `weight_gradient` are the convolutions, `elementwise` is
        BatchNorm, activation, dropout and pooling, and `head` is all behind the last convolution.
        """
        seconds = (ctypes.c_double * len(_STOPWATCHES))()
        named: dict[str, float] = {}
        self._library.native_profile(self._handle, ctypes.addressof(seconds))
        try:
            yield named
        finally:
            self._library.native_profile(self._handle, None)
            named.update(zip(_STOPWATCHES, seconds, strict=True))

    def _check_batch(self, batch: Batch) -> None:
        if batch.kernel.isa != self.kernel.isa or batch.shape != self.network.spec.input_shape:
            raise ValueError(
                f"A batch must be made for {self.kernel.isa} and {self.network.spec.input_shape}, "
                f"but got {batch.kernel.isa} and {batch.shape}."
            )
        if not 1 <= batch.n <= self.max_batch:
            raise ValueError(f"A step takes 1 to {self.max_batch} images, but got {batch.n}.")

    def _require_labels(self, done: int, batch: Batch) -> None:
        if not done:
            raise ValueError(
                f"Each label must be in [0, {self.network.spec.n_classes}), but got "
                f"{batch.labels[: batch.n].tolist()}."
            )


def _flatten(tensors: Sequence[Tensor], name: str) -> Tensor:
    for tensor in tensors:
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
            raise ValueError(
                f"The network's {name} must be float32 on the CPU, but got {tensor.dtype} on "
                f"{tensor.device}."
            )
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def _view_as_parts(flat: Tensor, gradient: Tensor, parameters: Sequence[nn.Parameter]) -> None:
    """Make `parameters` views of `flat`, and their gradients views of `gradient`."""
    sizes = [parameter.numel() for parameter in parameters]
    parts = zip(parameters, torch.split(flat, sizes), torch.split(gradient, sizes), strict=True)
    for parameter, values, slopes in parts:
        parameter.data = values.view_as(parameter)
        parameter.grad = slopes.view_as(parameter)


def _flatten_statistics(norms: Sequence[nn.BatchNorm2d]) -> tuple[Tensor, Tensor]:
    """Running means and variances as views of one tensor, and the counts of batches of another."""
    names = ("running_mean", "running_var")
    buffers = [getattr(norm, name) for norm in norms for name in names]
    flat = _flatten(buffers, "running statistics")
    counts = torch.stack([norm.get_buffer("num_batches_tracked") for norm in norms])
    parts = iter(torch.split(flat, [buffer.numel() for buffer in buffers]))
    for norm, count in zip(norms, counts, strict=True):
        for name in names:
            norm.register_buffer(name, next(parts))
        norm.register_buffer("num_batches_tracked", count)
    return flat, counts
