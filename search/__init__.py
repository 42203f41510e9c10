"""Hyperparameter search for small convolutional networks under a hard cap on parameters.

The names below load when they are asked for, so that importing this package is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search.hyperparameters import Hyperparameters
    from search.training import train
    from search.weights import load

__all__ = ["Hyperparameters", "load", "train"]

_MODULES = {
    "Hyperparameters": "search.hyperparameters",
    "load": "search.weights",
    "train": "search.training",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'search' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
