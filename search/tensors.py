"""Tensors in files: safetensors, which hold numbers and nothing that is run when they are read."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from search.files import write_bytes


def write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Writes tensors by name, copied first: the format knows no shared memory.

    Raises:
        OSError: if they cannot be written; nothing is left behind then.
    """
    write_bytes(save({name: tensor.clone() for name, tensor in tensors.items()}), path)
