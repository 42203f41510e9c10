"""The compiled library of the training step: found, loaded, and asked what it can do."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from search_models.layers import (
    Activation,
    Conv,
    DepthwiseConv,
    Dropout,
    GlobalAveragePool,
    Layer,
    Output,
    Pool,
)
from search_models.spec import ModelSpec

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
_LIBRARY_VARIABLE = "BUDGET_SEARCH_NATIVE"
# Offsets within one image, and a batch's images, are counted in 32 bits.
MOST_ELEMENTS = 2**24


class LayerCode(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_int32),
        ("channels", ctypes.c_int32),
        ("kernel", ctypes.c_int32),
        ("padding", ctypes.c_int32),
        ("bias", ctypes.c_int32),
        ("activation", ctypes.c_int32),
        ("rate", ctypes.c_float),
    )


class Elastic(ctypes.Structure):
    _fields_ = (
        ("points", ctypes.c_int32),
        ("displacements", ctypes.c_void_p),
        ("rows", ctypes.c_void_p),
        ("columns", ctypes.c_void_p),
        ("field", ctypes.c_void_p),
    )


class Affine(ctypes.Structure):
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
    if largest > MOST_ELEMENTS:
        return f"feature maps of more than {MOST_ELEMENTS} values an image (one has {largest})"
    return None


def layer_code(layer: Layer) -> LayerCode:
    code = LayerCode(kind=_LAYER_CODES[type(layer)])
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


def check(tensor: Tensor, name: str, dtype: torch.dtype, shape: tuple[int | None, ...]) -> None:
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
