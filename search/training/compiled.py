"""A user's network, compiled by PyTorch where a training is long enough for that.

`torch.compile` writes C++ for a network's forward and backward pass, and has it compiled (Ansel et
al., "PyTorch 2: Faster Machine Learning Through Dynamic Python Bytecode Transformation and Graph
Compilation", ASPLOS 2024). That lies in the user's private cache: by default it would be run from a
folder of a known name that all users of the machine share.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search.data.cache import COMPILED, private_folder

LEAST_IMAGES = 300_000  # that a training sees; fewer it sees about as soon without


def compiled(network: nn.Module, batch_shape: tuple[int, ...]) -> Callable[[Tensor], Tensor] | None:
    """`network` in training, faster for batches of one shape; None where it cannot be compiled.

    The network, its weights and the global random numbers are as before.

    Args:
        network: on a CPU.
        batch_shape: (N, C, H, W); a batch of another N, as the last one, goes through `network`.
    """
    try:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(private_folder(COMPILED))
    except OSError:
        return None
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # more would be processes of its own
    torch.compiler.reset()  # of networks before this one, which count against a limit
    with torch.random.fork_rng(devices=[]), _unchanged(network), _silence():
        try:
            network.train()
            fast = torch.compile(network, dynamic=False)
            labels = torch.zeros(batch_shape[0], dtype=torch.long)
            loss = F.cross_entropy(fast(torch.randn(batch_shape)), labels)
            loss.backward()  # type: ignore[no-untyped-call]
        except Exception:  # whatever a compiler meets: PyTorch trains the network as it stands
            return None

    def forward(images: Tensor) -> Tensor:
        return cast(Tensor, (fast if len(images) == batch_shape[0] else network)(images))

    return forward


@contextmanager
def _silence() -> Iterator[None]:
    """Keeps what PyTorch warns of as it compiles from the user, who can do nothing about it."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


@contextmanager
def _unchanged(network: nn.Module) -> Iterator[None]:
    """Gives a network back the weights and statistics that it has now, without gradients."""
    tensors = [*network.parameters(), *network.buffers()]
    before = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    finally:
        network.zero_grad()
        with torch.no_grad():
            for tensor, values in zip(tensors, before, strict=True):
                tensor.copy_(values)
