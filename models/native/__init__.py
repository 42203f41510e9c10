"""The compiled training step for a CPU: its library, batches for it, networks trained by it.

- `native.cpp`, `kernel/`: the step itself, compiled for several instruction sets at installation
- `library.py`: the compiled library, found and loaded, and asked what it can do
- `batch.py`: `Batch`, images gathered, warped and normalised straight from bytes
- `network.py`: `NativeNetwork`, which trains and evaluates a `ConvNet`

The names below load when they are asked for, as they bring PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search_models.native.batch import Batch
    from search_models.native.library import (
        Isa,
        Kernel,
        available_isas,
        kernel,
        unavailable_reason,
        uncovered,
    )
    from search_models.native.network import NativeNetwork

__all__ = [
    "Batch",
    "Isa",
    "Kernel",
    "NativeNetwork",
    "available_isas",
    "kernel",
    "unavailable_reason",
    "uncovered",
]

_MODULES = {"Batch": "batch", "NativeNetwork": "network"}  # all others: library


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _MODULES.get(name, "library")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
