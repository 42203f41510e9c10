"""Picture files: one of them, and folders with a sub-folder of them for each class."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import PIL
from numpy.typing import NDArray

from search.data.pictures import IMAGE_ENDINGS, READS_LIKE, read_square
from search.exceptions import DataError, InputError

LEAST_OF_CLASS = 5  # images: three train, one validates, one tests
_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """The images of a folder, by class and then by content, whatever their files are called.

    Args:
        classes: the names of the sub-folders, sorted.
        paths: N files; of several with the same content in one class, the first.
        labels: the place in `classes` of each, (N,).
        digests: the SHA-256 of each file's bytes, (N,).
        n_copies: files that were left out, because their class has their content already.
    """

    folder: Path
    classes: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    digests: tuple[str, ...]
    n_copies: int

    def pixels_key(self, size: int) -> str:
        """SHA-256 of what `pixels` depends on: the files, the size, and who reads and scales."""
        parts = (PIL.__version__, READS_LIKE, size, self.digests)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def pixels(self, size: int) -> NDArray[np.uint8]:
        """All images as `read_square` gives them, (N, C, size, size); C is 1 where all are grey.

        Raises:
            DataError: if a file cannot be read.
        """
        try:
            images = np.stack(_in_threads(lambda path: read_square(path, size), self.paths))
        except InputError as error:
            raise DataError(f"{error} Mend it, or take it out of the folder.") from error
        is_grey = (images == images[:, :1]).all()
        return images[:, :1].copy() if is_grey else images


def find_images(folder: Path) -> ImageFolder:
    """The images in the sub-folders of `folder`, one sub-folder a class; other files are left out.

    Images in folders below those belong to the same class; what begins with a dot is left out.

    Raises:
        DataError: if it has fewer than two classes, a class has fewer than five different images,
            two classes have the same file, or a file cannot be read.
    """
    classes = sorted(
        entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != "."
    )
    if len(classes) < 2:
        raise DataError(
            f"A folder of images must have a sub-folder for each of two classes or more, but "
            f"{folder} has {f'only {classes[0]!r}' if classes else 'no sub-folder'}; sort the "
            "images into sub-folders, as cat/ and dog/."
        )
    paths: list[Path] = []
    labels: list[int] = []
    digests: list[str] = []
    places: dict[str, Path] = {}
    n_files = 0
    for label, name in enumerate(classes):
        files = sorted(_images_below(folder / name))
        by_content: dict[str, Path] = {}
        for digest, path in zip(_in_threads(_digest, files), files, strict=True):
            by_content.setdefault(digest, path)
        if len(by_content) < LEAST_OF_CLASS:
            raise DataError(
                f"Each class must have {LEAST_OF_CLASS} different images or more, as each needs "
                f"some to train, to validate and to test, but {folder / name} has "
                f"{len(by_content)} ({', '.join(sorted(IMAGE_ENDINGS))}); add some, or take the "
                "folder away."
            )
        n_files += len(files)
        for digest in sorted(by_content):
            elsewhere = places.setdefault(digest, by_content[digest])
            if elsewhere != by_content[digest]:
                raise DataError(
                    "Each image must belong to one class, as it could both train and test "
                    f"otherwise, but {elsewhere} and {by_content[digest]} are the same, byte for "
                    "byte; take one of them away."
                )
            paths.append(by_content[digest])
            labels.append(label)
            digests.append(digest)
    return ImageFolder(
        folder=folder,
        classes=tuple(classes),
        paths=tuple(paths),
        labels=tuple(labels),
        digests=tuple(digests),
        n_copies=n_files - len(paths),
    )


def _images_below(folder: Path) -> list[Path]:
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name[0] != "."]  # os.walk leaves those out, too
        found += [
            Path(place) / name
            for name in names
            if name[0] != "." and Path(name).suffix.lower() in IMAGE_ENDINGS
        ]
    return found


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(
            f"Each image must be a file that can be read, but {path} is not ({error.strerror}); "
            "mend it, or take it out of the folder."
        ) from error


def _in_threads(work: Callable[[_T], _R], items: Sequence[_T]) -> list[_R]:
    """The results in order; hashing and decoding release Python's lock."""
    with ThreadPoolExecutor() as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:  # a first error, or Ctrl-C, does not wait for thousands of files
            pool.shutdown(cancel_futures=True)
            raise
