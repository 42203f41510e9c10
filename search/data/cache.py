"""The user's cache, mostly of images: private, swept of what is old, too much or half written."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from search.folders import user_cache

try:  # there is none on Windows, where a file that is open cannot be deleted anyway
    import fcntl
except ImportError:  # pragma: no cover
    fcntl = None  # type: ignore[assignment]

# Pixels of folders of images; what worker processes map; users' networks as PyTorch compiles them.
FOLDERS, MAPPED, COMPILED = KINDS = ("folders", "mapped", "compiled")
LONGEST_DAYS = 30  # that a file is kept which nobody uses
LARGEST_BYTES = 4_000_000_000  # of all files together; those used last are kept
_WRITING_SECONDS = 3600  # after which what has a temporary name is no longer being written
# What is opened is a file of its own; there are no such flags on Windows.
_NO_OTHER = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}")  # as `whole_file` calls what it writes
_OURS = re.compile(rf"[0-9a-f]{{16,}}(-.+)?\.safetensors|{_TEMPORARY.pattern}")


@dataclass(frozen=True, slots=True)
class CachedFile:
    """A file of the cache.

    Args:
        used: when it was used last, in seconds since 1970.
        is_leftover: whether it was left by a process that was killed while it wrote.
    """

    path: Path
    n_bytes: int
    used: float
    is_leftover: bool


def cache_folder(kind: str) -> Path:
    """The folder of the cache that has files of that kind, `FOLDERS` or `MAPPED`."""
    return user_cache() / kind


def private_folder(kind: str) -> Path:
    """The same, made where it is missing, and closed to others: it has images of the user's.

    Raises:
        OSError: if it cannot be made, or belongs to somebody else.
    """
    folder = cache_folder(kind)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)  # one of an earlier version may be open
    return folder


def cached_files() -> list[CachedFile]:
    """All files of the cache, the one that was used last first."""
    found = []
    for kind in KINDS:
        for folder, _, names in os.walk(cache_folder(kind)):
            # What PyTorch compiles has any name. A file of images with another is the user's.
            ours = names if kind == COMPILED else filter(_OURS.fullmatch, names)
            for path in (Path(folder, name) for name in ours):
                with contextlib.suppress(OSError):  # which has gone meanwhile
                    status = path.lstat()
                    if stat.S_ISREG(status.st_mode):
                        is_leftover = _TEMPORARY.fullmatch(path.name) is not None
                        found.append(CachedFile(path, status.st_size, status.st_mtime, is_leftover))
    return sorted(found, key=lambda file: -file.used)


def sweep() -> None:
    """Deletes what is old, what is too much, and leftovers; never what a process uses."""
    now, total = time.time(), 0
    for file in cached_files():
        if file.is_leftover:
            if now - file.used > _WRITING_SECONDS:
                _delete(file.path)
            continue
        total += file.n_bytes
        is_old = now - file.used > 86400 * LONGEST_DAYS
        is_too_much = total > LARGEST_BYTES and total > file.n_bytes  # the last one may be large
        if (is_old or is_too_much) and _delete(file.path):
            total -= file.n_bytes


def sweep_former(path: Path, pattern: str) -> None:
    """Deletes the other files of that folder whose names match, but what a process uses."""
    for other in path.parent.glob(pattern):
        if other != path:
            _delete(other)


def clear() -> int:
    """Deletes all that no process uses; returns how many files that were."""
    now = time.time()
    return sum(
        _delete(file.path)
        for file in cached_files()
        if not file.is_leftover or now - file.used > _WRITING_SECONDS
    )


def _delete(path: Path) -> bool:
    """Whether a file could be deleted, which no process may be using."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | _NO_OTHER)
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
            return True
        finally:
            os.close(descriptor)
    return False


@contextlib.contextmanager
def in_use(path: Path) -> Iterator[bool]:
    """Keeps a file from being swept as long as the context lasts; whether it is there.

    It counts as used now. A link or a pipe in its place is none, and neither followed nor waited
    for.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | _NO_OTHER)
    except OSError:
        yield False
        return
    try:
        with contextlib.suppress(OSError):  # a file system without locks, or of somebody else
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_SH)
            os.utime(path)
        # It may have been deleted before it was locked.
        status = os.fstat(descriptor)
        is_file = stat.S_ISREG(status.st_mode)
        yield is_file and os.path.lexists(path) and os.path.samestat(status, path.lstat())
    finally:
        os.close(descriptor)
