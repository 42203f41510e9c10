"""Hyperparameter search for small convolutional networks under a hard cap on parameters.

A search goes from `cli` (or `api.py`) to `tuner`, which hands trials to `workers`; `training`
trains the networks of `search_models` on `data`, drawn from a `space`. `study` and `storage` are
its memory; `results`, `report` and `export` are for what follows.

The names below load when they are asked for, so that importing this package is quick.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search.api import open_study, retrain_trial, run_search
    from search.data.dataset import Dataset
    from search.data.load import load_dataset
    from search.data.own import from_tensors
    from search.exceptions import SearchError
    from search.service.client import Client
    from search.space.hyperparameters import Hyperparameters
    from search.study.open import open_trial, rebuild
    from search.training.train import train
    from search.training.weights import load
    from search.tuner.options import SearchRequest
    from search_models.network_file import width
    from search_models.spec import ModelSpec

__all__ = [
    "Client",
    "Dataset",
    "Hyperparameters",
    "ModelSpec",
    "SearchError",
    "SearchRequest",
    "from_tensors",
    "load",
    "load_dataset",
    "open_study",
    "open_trial",
    "rebuild",
    "retrain_trial",
    "run_search",
    "train",
    "width",
]

_MODULES = {
    "Client": "search.service.client",
    "Dataset": "search.data.dataset",
    "Hyperparameters": "search.space.hyperparameters",
    "ModelSpec": "search_models.spec",
    "SearchError": "search.exceptions",
    "SearchRequest": "search.tuner.options",
    "from_tensors": "search.data.own",
    "load": "search.training.weights",
    "load_dataset": "search.data.load",
    "open_study": "search.api",
    "open_trial": "search.study.open",
    "rebuild": "search.study.open",
    "retrain_trial": "search.api",
    "run_search": "search.api",
    "train": "search.training.train",
    "width": "search_models.network_file",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'search' has no attribute {name!r}")
    with warnings.catch_warnings():  # what Optuna imports misses a progress bar in notebooks
        warnings.filterwarnings("ignore", message="IProgress not found")
        return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
