"""Folders of images: which files differ, and their pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, MutableSequence, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import PIL
from numpy.typing import NDArray

from search.data.folder_layout import FolderLayout, check_counts, folder_layout
from search.data.names import ImageSize
from search.data.pictures import READS_LIKE, read_fitted, read_size
from search.exceptions import DataError, InputError
from search.files import check_has_contents

_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """The images of a folder, by class and then by content, whatever their files are called.

    Args:
        paths: N files; of several with the same content in one class, the first.
        labels: the place in the layout's classes of each, (N,).
        parts: `TRAINING`, `VALIDATION` or `TEST` for each, (N,); all train where the folder brings
            no split.
        digests: the SHA-256 of each file's bytes, (N,).
        n_copies: files that were left out, because their class has their content already.
    """

    layout: FolderLayout
    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    parts: tuple[int, ...]
    digests: tuple[str, ...]
    n_copies: int

    def pixels_key(self, size: ImageSize) -> str:
        """SHA-256 of what `pixels` depends on: the files, the size, and who reads and scales."""
        parts = (PIL.__version__, READS_LIKE, size, self.digests)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def pixels(self, size: ImageSize, remarks: MutableSequence[str]) -> NDArray[np.uint8]:
        """All images as `read_fitted` gives them, (N, C, H, W); C is 1 where all are grey.

        Args:
            remarks: takes the names of files that have something that their decoders complained of.

        Raises:
            DataError: if a file cannot be read.
        """
        images = np.stack(_read(partial(read_fitted, size=size, remarks=remarks), self.paths))
        is_grey = (images == images[:, :1]).all()
        return images[:, :1].copy() if is_grey else images


def find_images(folder: Path) -> ImageFolder:
    """The images of a folder, as `folder_layout` finds them, without copies.

    Of a picture that is in two parts of a split, the copy is kept that tests, or else validates.

    Raises:
        DataError: as `folder_layout` does, for what is left; or if two classes have the same file,
            or a file cannot be read.
    """
    layout = folder_layout(folder)
    rows: list[tuple[int, str, int, Path]] = []  # label, digest, part
    places: dict[str, tuple[int, Path]] = {}
    for label in range(len(layout.classes)):
        found: dict[str, tuple[int, Path]] = {}
        for part in sorted({part for _, part in layout.files}, reverse=True):
            files = layout.files[label, part]
            for digest, path in zip(_in_threads(_digest, files), files, strict=True):
                found.setdefault(digest, (part, path))
        for digest, (part, path) in sorted(found.items()):
            there, elsewhere = places.setdefault(digest, (label, path))
            if there != label:
                raise in_two_classes(elsewhere, path)
            rows.append((label, digest, part, path))
    counts = dict.fromkeys(layout.files, 0)
    for label, _, part, _ in rows:
        counts[label, part] += 1
    check_counts(layout, counts)
    return ImageFolder(
        layout=layout,
        paths=tuple(path for *_, path in rows),
        labels=tuple(label for label, *_ in rows),
        parts=tuple(part for _, _, part, _ in rows),
        digests=tuple(digest for _, digest, *_ in rows),
        n_copies=sum(map(len, layout.files.values())) - len(rows),
    )


def in_two_classes(one: object, other: object) -> DataError:
    """What to raise where two classes have the same picture."""
    return DataError(
        "Each image must belong to one class, as it could both train and test otherwise, but "
        f"{one} and {other} are the same, pixel for pixel; take one of them away."
    )


def _digest(path: Path) -> str:
    try:
        check_has_contents(path)
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(
            f"Each image must be a file that can be read, but {path} is not ({error.strerror}); "
            "mend it, or take it out of the folder."
        ) from error


def image_sizes(layout: FolderLayout) -> list[ImageSize]:
    """Height and width of each image, copies among them, by its file's header.

    Raises:
        DataError: if a file cannot be read.
    """
    return _read(read_size, [path for files in layout.files.values() for path in files])


def _read(read: Callable[[Path], _R], paths: Sequence[Path]) -> list[_R]:
    try:
        return _in_threads(read, paths)
    except InputError as error:
        raise DataError(f"{error} Mend it, or take it out of the folder.") from error


def _in_threads(work: Callable[[_T], _R], items: Sequence[_T]) -> list[_R]:
    """The results in order; hashing and decoding release Python's lock."""
    with ThreadPoolExecutor() as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:  # a first error, or Ctrl-C, does not wait for thousands of files
            pool.shutdown(cancel_futures=True)
            raise
