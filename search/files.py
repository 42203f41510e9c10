"""Files: written whole or not at all, under another name that is changed then; and read.

What is read is a file and nothing else: a pipe would be waited for, and has what it has but once.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def check_has_contents(path: Path) -> None:
    """Sees that a path leads to no pipe, socket or device.

    Raises:
        OSError: if it does, or leads nowhere.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # a folder is refused as it is opened
        raise OSError(0, "it is no file with contents")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """The name under which to write what becomes `path` where the context ends without an error.

    It is on the disk before it is renamed, so that a power cut leaves no empty file either. Nobody
    else can have the name, or foresee it: process numbers are the same in all containers.

    Raises:
        OSError: if it cannot be written; nothing is left behind then.
    """
    temporary = path.with_name(f"{_begun(path.name)}{secrets.token_hex(8)}")
    try:
        temporary.touch(exist_ok=False)  # which follows no link either
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):  # an error while writing names no file
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _begun(name: str) -> str:
    """With what a name begins under which a file of that name is written."""
    # A name may have 255 bytes, and a character several of them.
    return f".{name.encode(errors='replace')[:200].decode(errors='ignore')}."


def remove_halves(folder: Path, names: Iterable[str]) -> None:
    """Deletes what processes that were killed left of files of these names, that nobody writes."""
    begun = {_begun(name) for name in names}
    for path in folder.iterdir():
        if re.fullmatch("[0-9a-f]{16}", path.name[-16:]) and path.name[:-16] in begun:
            with suppress(OSError):  # it stays, and is in nobody's way
                if stat.S_ISREG(path.lstat().st_mode):
                    path.unlink()


def write_bytes(data: bytes, path: Path) -> None:
    """Writes bytes as they are.

    Raises:
        OSError: if they cannot be written; nothing is left behind then.
    """
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


def write_text(text: str, path: Path) -> None:
    """Writes a text as UTF-8.

    Raises:
        OSError: if it cannot be written; nothing is left behind then.
    """
    write_bytes(text.encode(), path)
