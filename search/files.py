"""Files that are either whole or not there: written under another name, then renamed."""

from __future__ import annotations

import os
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")


def write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Writes tensors as safetensors, copied first: the format knows no shared memory.

    Raises:
        OSError: if they cannot be written; nothing is left behind then.
    """
    temporary = _temporary(path)
    try:
        save_file({name: tensor.clone() for name, tensor in tensors.items()}, temporary)
        temporary.replace(path)
    except SafetensorError as error:  # its own kind, for a full disk, say
        temporary.unlink(missing_ok=True)
        raise OSError(str(error)) from error


def write_text(text: str, path: Path) -> None:
    """Writes a text as UTF-8.

    Raises:
        OSError: if it cannot be written.
    """
    temporary = _temporary(path)
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
