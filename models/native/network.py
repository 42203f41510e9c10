"""The fast training step for a CPU: the binding of `native.cpp`.

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
import functools
import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_models.convnet import ConvNet
from search_models.spec import (
    Activation,
    Conv,
    DepthwiseConv,
    Dropout,
    GlobalAveragePool,
    Layer,
    ModelSpec,
    Output,
    Pool,
)

Isa = Literal["avx512", "avx2", "baseline"]

_ISA_CODES: dict[Isa, int] = {"avx512": 2, "avx2": 1, "baseline": 0}  # best first
_LAYER_CODES: dict[type[Layer], int] = {
    Conv: 0,
    Pool: 1,
    Dropout: 2,
    GlobalAveragePool: 3,
    Output: 4,
    DepthwiseConv: 5,
}
_ACTIVATION_CODES: dict[Activation, int] = {"relu": 1, "hardswish": 2}
# What the compiled code books time under, in its order.
_STOPWATCHES = ("forward", "input_gradient", "weight_gradient", "elementwise", "head")
_LIBRARY_VARIABLE = "BUDGET_SEARCH_NATIVE"

# Offsets within one image, and a batch's images, are counted in 32 bits.
_MOST_ELEMENTS = 2**24


class _LayerCode(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_int32),
        ("channels", ctypes.c_int32),
        ("kernel", ctypes.c_int32),
        ("padding", ctypes.c_int32),
        ("bias", ctypes.c_int32),
        ("activation", ctypes.c_int32),
        ("rate", ctypes.c_float),
    )


class _Elastic(ctypes.Structure):
    _fields_ = (
        ("points", ctypes.c_int32),
        ("displacements", ctypes.c_void_p),
        ("rows", ctypes.c_void_p),
        ("columns", ctypes.c_void_p),
        ("field", ctypes.c_void_p),
    )


class _Affine(ctypes.Structure):
    _fields_ = (
        ("images", ctypes.c_void_p),
        ("n_images", ctypes.c_int64),
        ("channels", ctypes.c_int32),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("n", ctypes.c_int32),
        ("index", ctypes.c_void_p),
        ("matrices", ctypes.c_void_p),
        ("elastic", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
        ("offset", ctypes.c_void_p),
        ("scratch", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
    )


_POINTER, _INT, _LONG = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
_SIGNATURES: dict[str, tuple[type | None, tuple[type, ...]]] = {
    "native_supports": (_INT, (_INT,)),
    "native_lanes": (_INT, (_INT,)),
    "native_create": (_POINTER, (_INT, _POINTER, _INT, _INT, _INT, _INT, _INT, _INT)),
    "native_destroy": (None, (_POINTER,)),
    "native_parameters": (_LONG, (_POINTER,)),
    "native_statistics": (_LONG, (_POINTER,)),
    "native_profile": (None, (_POINTER, _POINTER)),
    "native_step": (
        _INT,
        (
            *(_POINTER, _POINTER, _INT, _POINTER, ctypes.c_float, ctypes.c_uint64),
            *(_POINTER, _POINTER, _POINTER, _POINTER, _POINTER),
        ),
    ),
    "native_evaluate": (
        _INT,
        (_POINTER, _POINTER, _INT, _POINTER, _POINTER, _POINTER, _POINTER, _POINTER, _POINTER),
    ),
    "native_sampler_scratch": (_LONG, (_INT, _INT, _INT, _INT)),
    "native_sample": (_INT, (_INT, _POINTER)),
}


def _library_path() -> Path | None:
    override = os.environ.get(_LIBRARY_VARIABLE)
    if override:
        return Path(override)
    found = importlib.util.find_spec("search_models.native._native")
    return Path(found.origin) if found is not None and found.origin is not None else None


@functools.cache
def _library() -> ctypes.CDLL | str:
    """The compiled library, or why there is none."""
    path = _library_path()
    if path is None:
        return "the package was installed without its compiled part (no C++ compiler was found)"
    try:
        library = ctypes.CDLL(str(path))
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype = result
            function.argtypes = arguments
    except (OSError, AttributeError) as error:
        return f"the compiled part cannot be loaded: {error}"
    return library


def unavailable_reason() -> str | None:
    """Why `kernel()` is None, in words; None where it is not."""
    library = _library()
    return library if isinstance(library, str) else None


@dataclass(frozen=True)
class Kernel:
    """The compiled code for one instruction set.

    `lanes` images are worked on at once.
    """

    isa: Isa
    lanes: int
    library: ctypes.CDLL

    @property
    def code(self) -> int:
        """The number of the instruction set in the compiled code."""
        return _ISA_CODES[self.isa]


def available_isas() -> tuple[Isa, ...]:
    """The instruction sets that this machine and this build have, the best first."""
    library = _library()
    if isinstance(library, str):
        return ()
    return tuple(isa for isa, code in _ISA_CODES.items() if library.native_supports(code))


def kernel(isa: Isa | None = None) -> Kernel | None:
    """The kernel for `isa`, or for the best instruction set of this machine.

    None if there is no compiled code, or not for `isa` on this machine.

    Raises:
        ValueError: for a name that is no instruction set.
    """
    if isa is not None and isa not in _ISA_CODES:
        raise ValueError(f"isa must be one of {', '.join(_ISA_CODES)}, but got {isa!r}.")
    library = _library()
    isas = available_isas()
    if isinstance(library, str) or (isa is not None and isa not in isas):
        return None
    chosen = isa or isas[0]
    return Kernel(chosen, library.native_lanes(_ISA_CODES[chosen]), library)


def uncovered(spec: ModelSpec) -> str | None:
    """What of `spec` the kernel does not cover, in words; None if it covers all of it."""
    largest = max(
        channels * height * width
        for channels, height, width in (spec.input_shape, *spec.output_shapes())
    )
    if largest > _MOST_ELEMENTS:
        return f"feature maps of more than {_MOST_ELEMENTS} values an image (one has {largest})"
    return None


def _layer_code(layer: Layer) -> _LayerCode:
    code = _LayerCode(kind=_LAYER_CODES[type(layer)])
    match layer:
        case Conv():
            code.channels, code.kernel = layer.channels, layer.kernel
            code.padding, code.bias = layer.padding, layer.bias
            code.activation = _ACTIVATION_CODES[layer.activation]
        case DepthwiseConv():
            code.kernel, code.padding = layer.kernel, layer.padding
            code.activation = _ACTIVATION_CODES[layer.activation]
        case Dropout(rate=rate):
            code.rate = rate
        case Output(bias=bias):
            code.bias = bias
    return code


def _check(tensor: Tensor, name: str, dtype: torch.dtype, shape: tuple[int | None, ...]) -> None:
    """Raise unless `tensor` is what the compiled code may be given a pointer to."""
    fits = tensor.dim() == len(shape) and all(
        want is None or have == want for have, want in zip(tensor.shape, shape, strict=True)
    )
    if not fits or tensor.dtype != dtype or tensor.device.type != "cpu":
        wanted = tuple("N" if size is None else size for size in shape)
        raise ValueError(
            f"{name} must be a {dtype} tensor {wanted} on the CPU, but got {tensor.dtype} "
            f"{tuple(tensor.shape)} on {tensor.device}."
        )
    if not tensor.is_contiguous():
        raise ValueError(f"{name} must be contiguous.")


@functools.cache
def _interpolation(points: int, size: int) -> Tensor:
    """The share that each of `points` control points has in each of `size` pixels, (size, points).

    As `torch.nn.functional.interpolate(mode="bicubic", align_corners=True)` has them: it is linear
    and takes the axes one after the other.
    """
    impulses = torch.eye(points).view(points, 1, points, 1)
    shares = F.interpolate(impulses, (size, 1), mode="bicubic", align_corners=True)
    return shares.view(points, size).T.contiguous()


class Batch:
    """Up to `max_batch` images in the kernel's layout, normalised, and their labels.

    Args:
        kernel: whose layout it is.
        shape: channels, height and width of an image.
        max_batch: the most images it holds.
        mean, std: one a channel, for images scaled to [0, 1].

    Raises:
        ValueError: for a mean or std that does not fit the channels, or images too large.
    """

    def __init__(
        self,
        kernel: Kernel,
        shape: tuple[int, int, int],
        max_batch: int,
        *,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        channels, height, width = shape
        if len(mean) != channels or len(std) != channels or min(std, default=0) <= 0:
            raise ValueError(
                f"mean and std must have one value for each of {channels} channels and std must "
                f"be positive, but got mean={tuple(mean)}, std={tuple(std)}."
            )
        if (
            min(shape) < 1
            or max_batch < 1
            or channels * (height + 3) * (width + 3) > _MOST_ELEMENTS
        ):
            raise ValueError(
                f"A batch needs images of 1 to {_MOST_ELEMENTS} values, but got shape={shape}, "
                f"max_batch={max_batch}."
            )
        self.kernel = kernel
        self.shape = shape
        self.max_batch = max_batch
        self.n = 0
        n_blocks = -(-max_batch // kernel.lanes)
        self.blocks = torch.zeros(n_blocks, height, width, channels, kernel.lanes)
        self.labels = torch.zeros(max_batch, dtype=torch.int64)
        self._scale = 1 / (255 * torch.tensor(std, dtype=torch.float64))
        self._offset = (-255 * torch.tensor(mean, dtype=torch.float64) * self._scale).float()
        self._scale = self._scale.float()
        scratch = kernel.library.native_sampler_scratch(kernel.code, channels, height, width)
        self._scratch = torch.zeros(scratch, dtype=torch.uint8)
        # Where displacements are interpolated; made where there are any.
        self._field = torch.zeros(0)
        assert self.blocks.data_ptr() % 64 == 0  # as the kernel's vectors need it

    def fill(
        self,
        images: Tensor,
        labels: Tensor,
        index: Tensor,
        matrices: Tensor | None = None,
        displacements: Tensor | None = None,
    ) -> None:
        """Take the images at `index`, moved by `matrices` and `displacements`, and normalise them.

        Args:
            images: (M, C, H, W), uint8.
            labels: (M,), int64.
            index: (N,), int64, each in [0, M).
            matrices: (N, 2, 3), float32: the maps from output to input coordinates as
                `torch.nn.functional.affine_grid(align_corners=False)` takes them; read with
                `grid_sample(mode="bilinear", padding_mode="zeros")`'s rules from images scaled to
                [0, 1]. None takes the images as they are, which is faster and exactly what an
                identity gives.
            displacements: (N, 2, points, points), float32: of a grid of control points, along x,
                then along y; interpolated as `interpolate(mode="bicubic", align_corners=True)` does
                and added to the input coordinates that the matrices give. None adds nothing.

        Raises:
            ValueError: for a tensor of another type, shape or device, or not contiguous, or
                displacements without matrices.
            IndexError: for an index that is not one of an image.
        """
        n = len(index)
        _check(images, "images", torch.uint8, (None, *self.shape))
        _check(labels, "labels", torch.int64, (len(images),))
        _check(index, "index", torch.int64, (None,))
        if matrices is not None:
            _check(matrices, "matrices", torch.float32, (n, 2, 3))
        if displacements is not None:
            if matrices is None:
                raise ValueError("displacements must come with matrices, but there are none.")
            points = max((1, *displacements.shape[-1:]))
            _check(displacements, "displacements", torch.float32, (n, 2, points, points))
        self._set_length(n)
        elastic = None if displacements is None else self._elastic(displacements)
        affine = _Affine(
            images.data_ptr(),
            len(images),
            *self.shape,
            n,
            index.data_ptr(),
            None if matrices is None else matrices.data_ptr(),
            None if elastic is None else ctypes.addressof(elastic),
            self._scale.data_ptr(),
            self._offset.data_ptr(),
            self._scratch.data_ptr(),
            self.blocks.data_ptr(),
        )
        if not self.kernel.library.native_sample(self.kernel.code, ctypes.byref(affine)):
            self.n = 0
            raise IndexError(f"Each index must be in [0, {len(images)}), but got {index.tolist()}.")
        torch.index_select(labels, 0, index, out=self.labels[:n])

    def _elastic(self, displacements: Tensor) -> _Elastic:
        points = displacements.shape[-1]
        _, height, width = self.shape
        # For each axis the control points of a block, and below them those of the row in work.
        shape = (2, points + 1, points, self.kernel.lanes)
        if self._field.shape != shape:
            self._field = torch.zeros(shape)
            assert self._field.data_ptr() % 64 == 0
        return _Elastic(
            points,
            displacements.data_ptr(),
            _interpolation(points, height).data_ptr(),
            _interpolation(points, width).data_ptr(),
            self._field.data_ptr(),
        )

    def load(self, images: Tensor, labels: Tensor) -> None:
        """Take normalised images (N, C, H, W), float32, and labels (N,), int64, as they are.

        Raises:
            ValueError: for a tensor of another type, shape or device, or not contiguous.
        """
        _check(images, "images", torch.float32, (None, *self.shape))
        _check(labels, "labels", torch.int64, (len(images),))
        self._set_length(len(images))
        self.blocks.zero_()
        lanes = self.kernel.lanes
        for first in range(0, self.n, lanes):
            part = images[first : first + lanes]
            self.blocks[first // lanes, ..., : len(part)] = part.permute(2, 3, 1, 0)
        self.labels[: self.n] = labels

    def images(self) -> Tensor:
        """The normalised images, (n, C, H, W): a copy in PyTorch's layout."""
        return self.blocks.permute(0, 4, 3, 1, 2).flatten(0, 1)[: self.n].contiguous()

    def _set_length(self, n: int) -> None:
        if not 1 <= n <= self.max_batch:
            raise ValueError(f"A batch holds 1 to {self.max_batch} images, but got {n}.")
        self.n = n


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
        layers = (_LayerCode * len(spec.layers))(*map(_layer_code, spec.layers))
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
            _check(logits, "logits", torch.float32, (batch.n, self.network.spec.n_classes))
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
