"""Data sets of a user's own: tensors, and folders of pictures."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from search.data.dataset import APPLICATION, Dataset, Parts, assemble, sha256, split_by_class
from search.data.image_folders import LEAST_OF_CLASS, ImageFolder, find_images
from search.data.names import (
    FOLDER,
    TENSORS,
    check_folder,
)
from search.data.tensors import write_tensors
from search.exceptions import DataError


def from_tensors(
    images: Tensor | NDArray[Any],
    labels: Tensor | NDArray[Any],
    *,
    name: str = "tensors",
    classes: Sequence[str] | None = None,
) -> Dataset:
    """A data set of your own: three fifths of each class train, a fifth validates, a fifth tests.

    The split is fixed: the same tensors are always split in the same way.

    Args:
        images: (N, H, W) or (N, C, H, W), as bytes from 0 to 255 or as floats from 0 to 1.
        labels: (N,), whole numbers from 0 up, without gaps.
        name: what a study that searches on it is named after.
        classes: what people call the classes, by label; by default their numbers.

    Raises:
        DataError: if images or labels are of another shape, type or range, or a class has fewer
            than five images.
    """
    pixels = _as_pixels(torch.as_tensor(images))
    numbers = _as_labels(torch.as_tensor(labels), len(pixels))
    counts = np.bincount(numbers)
    if len(counts) < 2 or counts.min() < LEAST_OF_CLASS:
        raise DataError(
            f"There must be two classes or more, each with {LEAST_OF_CLASS} images or more, but "
            f"the labels from 0 to {len(counts) - 1} come {counts.tolist()} times; add images, or "
            "number the classes without gaps."
        )
    names = tuple(map(str, range(len(counts)) if classes is None else classes))
    if len(names) != len(counts):
        raise DataError(
            f"Each class must have a name, but there are {len(counts)} classes and {len(names)} "
            "names; give as many."
        )
    return _split_dataset(
        pixels,
        numbers,
        name=f"{TENSORS}{name}",
        origin="given in Python",
        classes=names,
    )


def _as_pixels(images: Tensor) -> NDArray[np.uint8]:
    """As bytes, (N, C, H, W)."""
    if images.dim() == 3:
        images = images.unsqueeze(1)
    if images.dim() != 4 or 0 in images.shape:
        raise DataError(
            "Images must have the shape (N, H, W) or (N, C, H, W), but got "
            f"{tuple(images.shape)}; reshape them."
        )
    images = images.detach().cpu()
    if images.is_floating_point():
        if not (images.min() >= 0 and images.max() <= 1):  # also where one is not a number
            raise DataError(
                f"Images of floats must be from 0 to 1, but got {images.min():g} to "
                f"{images.max():g}; scale them, or give bytes from 0 to 255."
            )
        images = (images.float() * 255).round().to(torch.uint8)
    if images.dtype != torch.uint8:
        raise DataError(
            f"Images must be bytes (uint8) or floats, but got {images.dtype}; convert them."
        )
    return images.contiguous().numpy()


def _as_labels(labels: Tensor, n: int) -> NDArray[np.int64]:
    if labels.shape != (n,) or labels.is_floating_point() or labels.is_complex():
        raise DataError(
            f"Labels must be {n} whole numbers, one for each image, but got {labels.dtype} "
            f"{tuple(labels.shape)}; convert them."
        )
    if labels.min() < 0:
        raise DataError(
            f"Labels must be 0 or more, but got {int(labels.min())}; number the classes from 0."
        )
    return labels.cpu().long().numpy()


def folder_dataset(folder: Path, image_size: int) -> Dataset:
    found = find_images(check_folder(folder))
    copies = f", {found.n_copies:,} copies left out" if found.n_copies else ""
    return _split_dataset(
        _folder_pixels(found, image_size),
        np.array(found.labels, dtype=np.int64),
        name=f"{FOLDER}{found.folder}",
        origin=f"{found.folder}, {len(found.classes)} classes{copies}",
        classes=found.classes,
    )


def _folder_pixels(found: ImageFolder, image_size: int) -> NDArray[np.uint8]:
    """The images of a folder, (N, C, H, W), from the user's cache where they were read before."""
    cache = platformdirs.user_cache_path(APPLICATION) / "folders"
    path = cache / f"{found.pixels_key(image_size)[:32]}.safetensors"
    with contextlib.suppress(OSError, SafetensorError), safe_open(path, framework="np") as file:
        cached: NDArray[np.uint8] = file.get_tensor("images")
        return cached
    images = found.pixels(image_size)
    with contextlib.suppress(OSError):  # the next start reads them again
        cache.mkdir(parents=True, exist_ok=True)
        write_tensors({"images": torch.from_numpy(images)}, path)
    return images


def _split_dataset(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    *,
    name: str,
    origin: str,
    classes: tuple[str, ...],
) -> Dataset:
    """A data set that comes without a test set of its own."""
    contents = sha256(images, labels)
    training, validation, test = split_by_class(labels)
    return assemble(
        Parts(images, labels, training, validation),
        (images[test], labels[test]),
        name=name,
        origin=origin,
        classes=classes,
        fingerprint=hashlib.sha256(repr((contents, classes)).encode()).hexdigest(),
    )
