"""`Dataset`: images as tensors, split into training, validation and test, and their fingerprint.

The split is fixed: the same images validate every trial of every study. Further runs of a trial
are validated on other parts of the data (`search.data.parts`). Loading a data set reads
all of it, for its fingerprint; the files that the workers of a search get are without the test set.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from search.data.names import Split
from search.data.normalization import Normalization

_SPLIT_SEED = 0
_LEVELS_AT_ONCE = 1 << 18  # pixels counted at once, which NumPy copies as numbers of 8 bytes


@dataclass(frozen=True, slots=True)
class Examples:
    """Images (N, C, H, W) as bytes, where 0 is the background, and labels (N,) as int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: slice) -> Examples:
        return Examples(self.images[index], self.labels[index])

    def to(self, device: torch.device) -> Examples:
        return Examples(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """What is known of a data set besides its pixels.

    Args:
        origin: where it came from, for people.
        classes: what people call them, by label.
        class_counts: how many of the validation images are of each class, by label.
        image_counts: how many of all images are of each class, by label.
        n_parts: into how many parts, of which each can validate what the others train, the
            development images fall; 1 where the split was brought along.
        left_out: what there was besides these images, and why it is not among them; empty where
            there was nothing.
        n_training: how many of the development images train during a search; the rest validate.
        fingerprint: SHA-256 of all its pixels and labels, and of the names of its classes where
            it is not built in.
        split_fingerprint: SHA-256 of which images train and which validate, in order.
    """

    name: str
    origin: str
    input_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    class_counts: tuple[int, ...]
    n_training: int
    n_development: int
    n_test: int
    normalization: Normalization
    fingerprint: str
    split_fingerprint: str
    image_counts: tuple[int, ...]
    n_parts: int
    left_out: str = ""

    @property
    def n_classes(self) -> int:
        return len(self.classes)

    @property
    def n_validation(self) -> int:
        return self.n_development - self.n_training

    @property
    def least_training(self) -> int:
        """The fewest images that train where any part validates: the parts differ by one image."""
        others = 0 if self.n_parts == 1 else -(-self.n_training // (self.n_parts - 1))
        return self.n_development - max(self.n_validation, others)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set in memory.

    `development` is what a search may see: first the images that train, then those that
    validate. `test` is sealed for all that searches or chooses.
    """

    info: DatasetInfo
    development: Examples
    test: Examples

    @property
    def training(self) -> Examples:
        return self.development[: self.info.n_training]

    @property
    def validation(self) -> Examples:
        return self.development[self.info.n_training :]


def stratified_split(labels: NDArray[np.int64], n_held_out: int) -> NDArray[np.int64]:
    """An order of all examples in which the last `n_held_out` have each class in proportion.

    The order is always the same for the same labels.
    """
    # RandomState's stream is frozen (NumPy's NEP 19), so the split outlives every upgrade.
    shuffled = np.random.RandomState(_SPLIT_SEED).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    # Evenly spaced through the classes: each gives its share, to within one image.
    is_held_out = np.zeros(len(labels), dtype=bool)
    is_held_out[np.arange(n_held_out) * len(labels) // n_held_out] = True
    held_out = by_class[is_held_out]
    kept = shuffled[~np.isin(shuffled, held_out)]
    return np.concatenate([kept, held_out]).astype(np.int64)


def split_by_class(
    labels: NDArray[np.int64], parts: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Which examples train, validate and test: of each class a fifth, but at least one, for both.

    The same for the same labels; each class must have three examples or more.

    Args:
        parts: a split that is there, (N,), as 0, 1 and 2 for the three; what nothing validates or
            tests in it, a fifth of those that train does.
    """
    shuffled = np.random.RandomState(_SPLIT_SEED).permutation(len(labels))
    part = np.zeros(len(labels), dtype=np.int64) if parts is None else parts.copy()
    missing = [number for number in (2, 1) if not (part == number).any()]
    for label in np.unique(labels):
        members = shuffled[(labels[shuffled] == label) & (part[shuffled] == 0)]
        fifth = max(1, round(len(members) / 5))
        for place, number in enumerate(missing):
            part[members[place * fifth : (place + 1) * fifth]] = number
    training, validation, test = (shuffled[part[shuffled] == number] for number in range(3))
    return training, validation, test


def first_of_each(
    images: NDArray[np.uint8], labels: NDArray[np.int64], parts: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """The places of images, (N, ...), without those whose pixels their class has already, in order.

    Of copies it is the first, or with parts, as for `split_by_class`, the first of those that test,
    validate, train.

    Raises:
        SameImageError: if two classes have the same pixels.
    """
    order = np.arange(len(labels)) if parts is None else np.argsort(-parts, kind="stable")
    seen: dict[bytes, int] = {}
    for place in order.tolist():
        pixels = hashlib.sha256(np.ascontiguousarray(images[place]).data).digest()
        first = seen.setdefault(pixels, place)
        if labels[first] != labels[place]:
            raise SameImageError(*sorted((first, place)))
    return np.sort(np.fromiter(seen.values(), dtype=np.int64))


class SameImageError(Exception):
    """Two classes have the same pixels; `places` says where."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__(one, other)
        self.places = one, other


@dataclass(frozen=True, slots=True)
class Parts:
    """Images, (N, C, H, W), labels, (N,), and the places of those that train and validate."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    training: NDArray[np.int64]
    validation: NDArray[np.int64]


def assemble(
    parts: Parts,
    test: tuple[NDArray[np.uint8], NDArray[np.int64]],
    *,
    name: str,
    origin: str,
    classes: tuple[str, ...],
    fingerprint: str,
    left_out: str = "",
    is_split: bool = False,
) -> Dataset:
    """A data set of these parts, in which `is_split` says that what validates was brought along."""
    images, labels = parts.images, parts.labels
    order = np.concatenate([parts.training, parts.validation])
    development = images[order]
    counts = np.bincount(labels[parts.validation], minlength=len(classes))
    all_counts = np.bincount(np.concatenate([labels[order], test[1]]), minlength=len(classes))
    split = Split(len(parts.training), len(parts.validation), len(test[1]))
    info = DatasetInfo(
        name=name,
        origin=origin,
        input_shape=(images.shape[1], images.shape[2], images.shape[3]),
        classes=classes,
        class_counts=tuple(counts.tolist()),
        n_training=split.n_training,
        n_development=len(order),
        n_test=split.n_test,
        normalization=channel_statistics(development[: len(parts.training)]),
        fingerprint=fingerprint,
        split_fingerprint=sha256(parts.training, parts.validation),
        image_counts=tuple(all_counts.tolist()),
        n_parts=1 if is_split else split.n_parts,
        left_out=left_out,
    )
    return Dataset(
        info,
        Examples(torch.from_numpy(development), torch.from_numpy(labels[order])),
        Examples(torch.from_numpy(test[0]), torch.from_numpy(test[1])),
    )


def channel_statistics(images: NDArray[np.uint8]) -> Normalization:
    """Mean and standard deviation of each channel of images, (N, C, H, W), to four digits.

    They follow from how often each of the 256 levels is there, which is counted in pieces: as
    floats, images would take eight times their memory.
    """
    n, n_channels = images.shape[:2]
    counts = np.zeros((n_channels, 256), dtype=np.int64)
    n_at_once = max(1, _LEVELS_AT_ONCE // int(np.prod(images.shape[2:])))
    for channel in range(n_channels):
        for start in range(0, n, n_at_once):
            piece = images[start : start + n_at_once, channel].ravel()
            counts[channel] += np.bincount(piece, minlength=256)
    levels = np.arange(256) / 255
    mean = counts @ levels / counts.sum(axis=1)
    variance = (counts * (levels - mean[:, np.newaxis]) ** 2).sum(axis=1) / counts.sum(axis=1)
    # A channel that is the same everywhere has nothing to be scaled by.
    deviations = [std or 1.0 for std in np.sqrt(variance).round(4).tolist()]
    return Normalization(mean=tuple(mean.round(4).tolist()), std=tuple(deviations))


def sha256(*arrays: NDArray[np.uint8] | NDArray[np.int64]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(str(array.shape).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
