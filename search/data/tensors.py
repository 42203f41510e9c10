"""Tensors in files: safetensors, which hold numbers and nothing that is run when they are read."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from search.files import write_bytes


def tensors_as_bytes(
    tensors: dict[str, Tensor], *, metadata: dict[str, str] | None = None
) -> bytes:
    """Tensors by name as a file has them; copied first, as the format knows no shared memory."""
    return save({name: tensor.clone() for name, tensor in tensors.items()}, metadata)


def write_tensors(
    tensors: dict[str, Tensor], path: Path, *, metadata: dict[str, str] | None = None
) -> None:
    """Writes tensors by name, with texts by name that belong to them.

    Raises:
        OSError: if they cannot be written; nothing is left behind then.
    """
    write_bytes(tensors_as_bytes(tensors, metadata=metadata), path)
