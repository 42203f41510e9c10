"""What this machine trains with: which step serves, why, and how fast each is here."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from search.data.dataset import Examples
from search.data.normalization import Normalization
from search.space.baselines import BASELINES
from search.space.hyperparameters import Hyperparameters
from search.training.train import train
from search_models import native

_N_IMAGES = 512
_N_ROUNDS = 3
_NETWORKS = ("v36", "three-step-3")


@dataclass(frozen=True, slots=True)
class Speed:
    """Training images a second on one thread, as a median over rounds."""

    network: str
    native: float | None
    pytorch: float


def measure_speeds() -> Iterator[Speed]:
    """How fast each step trains two of the baselines, whole steps with augmentation.

    The two take turns, so that a machine that changes its speed does not favour one.
    """
    generator = torch.Generator().manual_seed(0)
    examples = Examples(
        torch.randint(0, 256, (_N_IMAGES, 1, 28, 28), generator=generator, dtype=torch.uint8),
        torch.randint(0, 10, (_N_IMAGES,), generator=generator),
    )
    previous = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name in _NETWORKS:
            hyperparameters = BASELINES[name].hyperparameters
            by_native, by_pytorch = [], []
            for _ in range(_N_ROUNDS):
                if native.kernel() is not None:
                    by_native.append(_images_per_second(hyperparameters, examples, use_native=True))
                by_pytorch.append(_images_per_second(hyperparameters, examples, use_native=False))
            yield Speed(
                name,
                statistics.median(by_native) if by_native else None,
                statistics.median(by_pytorch),
            )
    finally:
        torch.set_num_threads(previous)


def _images_per_second(
    hyperparameters: Hyperparameters, examples: Examples, *, use_native: bool
) -> float:
    run = train(
        hyperparameters,
        examples,
        examples[:1],
        Normalization((0.13,), (0.31,)),
        epochs=2,
        device="cpu",
        use_native=use_native,
    )
    epochs = iter(run)
    next(epochs)  # the first one warms up
    started = time.perf_counter()
    next(epochs)
    return len(examples) / (time.perf_counter() - started)
