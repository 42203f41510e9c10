"""Data sets of a user's own: tensors, and folders of pictures."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import MutableSequence, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from search.data.cache import FOLDERS, cache_folder, in_use, private_folder, sweep
from search.data.dataset import (
    Dataset,
    Parts,
    SameImageError,
    assemble,
    first_of_each,
    sha256,
    split_by_class,
)
from search.data.folder_layout import LEAST_OF_CLASS, check_counts
from search.data.image_folders import ImageFolder, find_images, image_sizes, in_two_classes
from search.data.image_sizes import common_size
from search.data.names import (
    FOLDER,
    TENSORS,
    ImageSize,
    check_folder,
    check_text,
    look_alike,
    size_option,
    size_words,
)
from search.data.split_names import VALIDATION
from search.data.tensors import write_tensors
from search.exceptions import DataError

_MOST_CHANNELS = 4  # that an image has whose channels come last


def from_tensors(
    images: Tensor | NDArray[Any],
    labels: Tensor | NDArray[Any],
    *,
    name: str = "tensors",
    classes: Sequence[str] | None = None,
) -> Dataset:
    """A data set of your own: three fifths of each class train, a fifth validates, a fifth tests.

    The split is fixed: the same tensors are always split in the same way. Images of the same pixels
    are one image.

    Args:
        images: (N, H, W) or (N, C, H, W), as bytes from 0 to 255 or as floats from 0 to 1.
        labels: (N,), whole numbers from 0 up, without gaps.
        name: what a study that searches on it is named after.
        classes: what people call the classes, by label; by default their numbers.

    Raises:
        DataError: if images or labels are of another shape, type or range, or a class has fewer
            than five images, two classes have the same image, or a name has control characters.
    """
    check_text(name, "The name of a data set")
    pixels = _as_pixels(_as_tensor(images, "Images"))
    numbers = _as_labels(_as_tensor(labels, "Labels"), len(pixels))
    try:
        kept = first_of_each(pixels, numbers)
    except SameImageError as error:
        raise in_two_classes(*(f"image {place}" for place in error.places)) from None
    n_copies = len(pixels) - len(kept)
    if n_copies:
        pixels, numbers = pixels[kept], numbers[kept]
    counts = np.bincount(numbers)
    if len(counts) < 2 or counts.min() < LEAST_OF_CLASS:
        raise DataError(
            f"There must be two classes or more, each with {LEAST_OF_CLASS} different images or "
            f"more, but the labels from 0 to {len(counts) - 1} come {counts.tolist()} times; add "
            "images, or number the classes without gaps."
        )
    names = tuple(map(str, range(len(counts)) if classes is None else classes))
    if len(names) != len(counts):
        raise DataError(
            f"Each class must have a name, but there are {len(counts)} classes and {len(names)} "
            "names; give as many."
        )
    for each in names:
        check_text(each, "The name of a class")
    if alike := look_alike(names):
        raise DataError(
            f"Each class must have a name of its own, but got {', '.join(map(ascii, alike[:9]))}; "
            "give others."
        )
    return _split_dataset(
        pixels,
        numbers,
        None,
        name=f"{TENSORS}{name}",
        origin="given in Python",
        classes=names,
        left_out="1 copy" if n_copies == 1 else f"{n_copies:,} copies" if n_copies else "",
    )


def _as_tensor(values: Tensor | NDArray[Any], what: str) -> Tensor:
    """Values in this process's memory, however they are kept.

    Args:
        what: they are, as the beginning of a sentence.
    """
    try:
        if isinstance(values, np.ndarray):  # of which PyTorch takes one order of bytes, forwards
            values = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
        tensor = torch.as_tensor(values).detach().cpu()
        return tensor.to_dense() if tensor.layout != torch.strided else tensor
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{what} must be a tensor or an array of numbers, but got "
            f"{type(values).__name__} ({str(error).splitlines()[0]}); convert them."
        ) from error


def _as_pixels(images: Tensor) -> NDArray[np.uint8]:
    """As bytes, (N, C, H, W)."""
    if images.dim() == 3:
        images = images.unsqueeze(1)
    if images.dim() != 4 or 0 in images.shape:
        raise DataError(
            "Images must have the shape (N, H, W) or (N, C, H, W), but got "
            f"{tuple(images.shape)}; reshape them."
        )
    if images.shape[-1] <= _MOST_CHANNELS < images.shape[1]:
        raise DataError(
            "Images must have their channels before their height, (N, C, H, W), but got "
            f"{tuple(images.shape)}, as where they come last; put them there, in PyTorch by "
            "images.permute(0, 3, 1, 2), in NumPy by images.transpose(0, 3, 1, 2)."
        )
    if images.is_floating_point():
        images = images.float()
        if not (images.min() >= 0 and images.max() <= 1):  # also where one is not a number
            raise DataError(
                f"Images of floats must be from 0 to 1, but got {images.min():g} to "
                f"{images.max():g}; scale them, or give bytes from 0 to 255."
            )
        images = (images * 255).round().to(torch.uint8)
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
    labels = labels.long()
    if labels.min() < 0:
        raise DataError(
            f"Labels must be 0 or more, but got {int(labels.min())}; number the classes from 0."
        )
    if labels.max() >= n:  # identifiers, perhaps, which are not to be counted one by one
        raise DataError(
            f"Labels must be numbers of classes, of which {n} images can have {n}, but got "
            f"{int(labels.max())}; number the classes from 0, without gaps."
        )
    return labels.numpy()


def folder_dataset(folder: Path, image_size: ImageSize | None = None) -> Dataset:
    """The images of a folder, scaled to a height and a width, or to those that suit them."""
    found = find_images(check_folder(folder))
    if image_size is None:
        image_size, _ = common_size(image_sizes(found.layout))
    layout, remarks = found.layout, list[str]()
    pixels = _folder_pixels(found, image_size, remarks)
    labels, parts = (np.array(each, dtype=np.int64) for each in (found.labels, found.parts))
    try:
        kept = first_of_each(pixels, labels, parts)
    except SameImageError as error:
        raise in_two_classes(*(found.paths[place] for place in error.places)) from None
    if len(kept) < len(pixels):
        pixels, labels, parts = pixels[kept], labels[kept], parts[kept]
        counts = {
            (label, part): int(((labels == label) & (parts == part)).sum())
            for label, part in layout.files
        }
        differing = f" that differ at {size_words(image_size)} pixels"
        check_counts(layout, counts, differing=differing)
    return _split_dataset(
        pixels,
        labels,
        parts if layout.is_split else None,
        name=f"{FOLDER}{layout.folder}",
        origin=f"{layout.folder}, {len(layout.classes)} classes"
        f"{', split in folders' if layout.is_split else ''}",
        classes=layout.classes,
        left_out=_left_out(found, found.n_copies + len(found.paths) - len(kept), remarks),
    )


def _left_out(found: ImageFolder, n_copies: int, remarks: Sequence[str]) -> str:
    words = [found.layout.left_out.words()]
    if n_copies:
        words.append("1 copy" if n_copies == 1 else f"{n_copies:,} copies")
    if remarks:
        more = f" and {len(remarks) - 1:,} others" if len(remarks) > 1 else ""
        words.append(f"metadata that cannot be read, as of {remarks[0]}{more}")
    return ", ".join(filter(None, words))


def _folder_pixels(
    found: ImageFolder, image_size: ImageSize, remarks: MutableSequence[str]
) -> NDArray[np.uint8]:
    """The images of a folder, (N, C, H, W), from the user's cache where they were read before."""
    of_folder = hashlib.sha256(os.fsencode(found.layout.folder)).hexdigest()[:16]
    # One file a folder and size: with an image more, another one takes its place.
    path = cache_folder(FOLDERS) / f"{of_folder}-{size_option(image_size)}.safetensors"
    key = found.pixels_key(image_size)
    with contextlib.suppress(OSError, SafetensorError), in_use(path) as is_there:
        cached = _read_cached(path, key) if is_there else None
        if cached is not None:
            return cached
    images = found.pixels(image_size, remarks)
    with contextlib.suppress(OSError):  # the next start reads them again
        private_folder(FOLDERS)
        metadata = {"key": key, "sha256": sha256(images)}
        write_tensors({"images": torch.from_numpy(images)}, path, metadata=metadata)
        path.chmod(0o600)
        sweep()
    return images


def _read_cached(path: Path, key: str) -> NDArray[np.uint8] | None:
    """The images of a file in the cache; None if it has others, or its disk lost some of them."""
    with safe_open(path, framework="np") as file:
        known = file.metadata() or {}
        if known.get("key") != key:
            return None
        images: NDArray[np.uint8] = file.get_tensor("images")
    return images if sha256(images) == known.get("sha256") else None


def _split_dataset(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    parts: NDArray[np.int64] | None,
    *,
    name: str,
    origin: str,
    classes: tuple[str, ...],
    left_out: str,
) -> Dataset:
    """A data set that comes without a test set of its own, or as `parts`, (N,), split it."""
    contents = sha256(images, labels)
    training, validation, test = split_by_class(labels, parts)
    return assemble(
        Parts(images, labels, training, validation),
        (images[test], labels[test]),
        name=name,
        origin=origin,
        classes=classes,
        fingerprint=hashlib.sha256(repr((contents, classes)).encode()).hexdigest(),
        is_split=parts is not None and bool((parts == VALIDATION).any()),
        left_out=left_out,
    )
