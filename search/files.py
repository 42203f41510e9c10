"""Files that are either whole or not there: written under another name, then renamed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")


def write_bytes(data: bytes, path: Path) -> None:
    """Writes bytes as they are.

    Raises:
        OSError: if they cannot be written; nothing is left behind then.
    """
    temporary = _temporary(path)
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):  # an error while writing names no file
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Writes tensors as safetensors, copied first: the format knows no shared memory.

    Raises:
        OSError: if they cannot be written; nothing is left behind then.
    """
    from safetensors.torch import save  # it imports torch, which files of other kinds do not need

    write_bytes(save({name: tensor.clone() for name, tensor in tensors.items()}), path)


def write_text(text: str, path: Path) -> None:
    """Writes a text as UTF-8.

    Raises:
        OSError: if it cannot be written; nothing is left behind then.
    """
    write_bytes(text.encode(), path)
