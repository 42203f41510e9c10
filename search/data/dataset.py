"""Data sets as tensors, split into train, validation and test: built in, from a folder, or given.

The split is fixed: the same images validate every trial of every study. Loading a data set reads
all of it, for its fingerprint; the files that the workers of a search get are without the test set.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import tempfile
import urllib.error
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import platformdirs
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from search.data.image_folders import LEAST_OF_CLASS, ImageFolder, find_images
from search.data.names import (
    DEFAULT_IMAGE_SIZE,
    FOLDER,
    TENSORS,
    DatasetName,
    check_dataset_name,
    check_folder,
    check_image_size,
    folder_of,
)
from search.data.tensors import write_tensors
from search.exceptions import DataError, DataUnavailableError
from search.splits import SPLITS

_TORCHVISION = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST"}
_CLASS_NAMES: dict[DatasetName, str] = {
    "mnist": "0 1 2 3 4 5 6 7 8 9",
    "digits": "0 1 2 3 4 5 6 7 8 9",
    "fashion-mnist": "T-shirt Trousers Pullover Dress Coat Sandal Shirt Sneaker Bag Boot",
    # The hiragana, romanised: few fonts have them.
    "kmnist": "o ki su tsu na ha ma ya re wo",
}
_SPLIT_SEED = 0
APPLICATION = "budget-search"  # the name of this package's folder in the user's cache
_DOWNLOAD_TIMEOUT_SECONDS = 20
# SHA-256 of MNIST's pixels and labels, training set before test set. The IDX files have no
# checksum of their own, and a file of the right length may still be another one.
_MNIST_FINGERPRINT = "35914650c8beaeed4429263376775b71ac05b224ab7d958a603bb5feac95afaf"


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
class Normalization:
    """Mean and standard deviation of each channel, for pixels scaled to 0..1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """What is known of a data set besides its pixels.

    Args:
        origin: where it came from, for people.
        classes: what people call them, by label.
        class_counts: how many of the validation images are of each class, by label.
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

    @property
    def n_classes(self) -> int:
        return len(self.classes)

    @property
    def n_validation(self) -> int:
        return self.n_development - self.n_training


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set in memory.

    `development` is what a search may see: first the images that train, then those that
    validate. `test` stays sealed until a network is retrained.
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


class SharedDataset(Protocol):
    """A data set in memory that processes share; one of a search has no test set."""

    @property
    def info(self) -> DatasetInfo: ...

    def development(self) -> Examples:
        """First the images that train, then those that validate."""

    def test(self) -> Examples:
        """The test set.

        Raises:
            DataError: if it is sealed.
        """


def sealed_test() -> DataError:
    """What to raise where a test set is asked for that is sealed."""
    return DataError("The test set is sealed during a search; only retraining opens it.")


@dataclass(frozen=True, slots=True)
class DatasetFiles:
    """A data set in two files, which any number of processes map and none of them copies."""

    info: DatasetInfo
    development_path: Path
    test_path: Path | None

    def development(self) -> Examples:
        """First the images that train, then those that validate."""
        return _map(self.development_path)

    def test(self) -> Examples:
        """The test set.

        Raises:
            DataError: if these files were made without it.
        """
        if self.test_path is None:
            raise sealed_test()
        return _map(self.test_path)


def _map(path: Path) -> Examples:
    with safe_open(path, framework="pt") as file:  # tensors are views of the mapped file
        return Examples(file.get_tensor("images"), file.get_tensor("labels"))


def default_data_dir() -> Path:
    """Where data sets are downloaded to unless a user says otherwise."""
    return platformdirs.user_cache_path(APPLICATION) / "data"


def class_names(name: DatasetName) -> list[str]:
    """What people call the classes of a data set, by label."""
    return _CLASS_NAMES[name].split()


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
    labels: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Which examples train, validate and test: of each class a fifth, but at least one, for both.

    The same for the same labels; each class must have three examples or more.
    """
    shuffled = np.random.RandomState(_SPLIT_SEED).permutation(len(labels))
    part = np.zeros(len(labels), dtype=np.int64)  # 0 trains
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        fifth = max(1, round(len(members) / 5))
        part[members[:fifth]], part[members[fifth : 2 * fifth]] = 2, 1
    training, validation, test = (shuffled[part[shuffled] == number] for number in range(3))
    return training, validation, test


def load_dataset(
    name: str,
    data_dir: Path | None = None,
    *,
    image_size: int | None = None,
    n_held_out: int | None = None,
) -> Dataset:
    """The data set of that name, downloaded into `data_dir` where it is not there yet.

    Args:
        name: `mnist`, `fashion-mnist`, `kmnist`, `digits`, or `folder:PATH` for a folder with a
            sub-folder of images for each class.
        data_dir: by default a folder in the user's cache.
        image_size: the side to which the images of a folder are scaled, 28 by default; they keep
            their proportions, and what they leave free of the square is black.
        n_held_out: how many development images of a built-in data set validate; by default
            10,000, or a fifth of the embedded digits.

    Raises:
        DataError: if it is neither there nor to be had, its files are broken, or the images of a
            folder are too few.
    """
    folder = folder_of(name)
    if folder is not None:
        return _folder_dataset(folder, check_image_size(image_size or DEFAULT_IMAGE_SIZE))
    if name.startswith(TENSORS):
        raise DataError(
            f"Data that were given as tensors are known to the program that has them, but {name!r} "
            "was asked for by name; give the Dataset itself, in Python."
        )
    built_in = check_dataset_name(name)
    data_dir = data_dir or default_data_dir()
    if name == "digits":
        origin = "embedded in scikit-learn"
        images, labels, test_images, test_labels = _digits()
    else:
        origin = str(data_dir)
        images, labels, test_images, test_labels = _idx_files(built_in, data_dir)
    if image_size not in (None, images.shape[-1]):
        raise DataError(
            f"An image size must be for a folder of images, but {name} has its own, "
            f"{images.shape[-1]}; leave it out."
        )
    n_held_out = SPLITS[name].n_validation if n_held_out is None else n_held_out
    if not 0 < n_held_out < len(labels):
        raise DataError(
            f"The images held out for validation must be fewer than the {len(labels):,} that "
            f"{name} has besides its test set, but {n_held_out:,} are asked for; take another "
            "data set."
        )
    fingerprint = _sha256(images, labels, test_images, test_labels)
    if name == "mnist" and fingerprint != _MNIST_FINGERPRINT:
        raise DataError(
            f"The files of MNIST in {data_dir} are not those of MNIST: the checksum of their "
            "contents differs. Delete the folder MNIST in it, and they are downloaded again."
        )
    order = stratified_split(labels, n_held_out)
    return _dataset(
        _Parts(images, labels, order[:-n_held_out], order[-n_held_out:]),
        (test_images, test_labels),
        name=name,
        origin=origin,
        classes=tuple(class_names(built_in)),
        fingerprint=fingerprint,
    )


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


def _folder_dataset(folder: Path, image_size: int) -> Dataset:
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
    contents = _sha256(images, labels)
    training, validation, test = split_by_class(labels)
    return _dataset(
        _Parts(images, labels, training, validation),
        (images[test], labels[test]),
        name=name,
        origin=origin,
        classes=classes,
        fingerprint=hashlib.sha256(repr((contents, classes)).encode()).hexdigest(),
    )


@dataclass(frozen=True, slots=True)
class _Parts:
    """Images, (N, C, H, W), labels, (N,), and the places of those that train and validate."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    training: NDArray[np.int64]
    validation: NDArray[np.int64]


def _dataset(
    parts: _Parts,
    test: tuple[NDArray[np.uint8], NDArray[np.int64]],
    *,
    name: str,
    origin: str,
    classes: tuple[str, ...],
    fingerprint: str,
) -> Dataset:
    images, labels = parts.images, parts.labels
    order = np.concatenate([parts.training, parts.validation])
    scaled = images[parts.training].astype(np.float64) / 255
    # A channel that is the same everywhere has nothing to be scaled by.
    deviations = [std or 1.0 for std in scaled.std(axis=(0, 2, 3)).round(4).tolist()]
    counts = np.bincount(labels[parts.validation], minlength=len(classes))
    info = DatasetInfo(
        name=name,
        origin=origin,
        input_shape=(images.shape[1], images.shape[2], images.shape[3]),
        classes=classes,
        class_counts=tuple(counts.tolist()),
        n_training=len(parts.training),
        n_development=len(order),
        n_test=len(test[1]),
        normalization=Normalization(
            mean=tuple(scaled.mean(axis=(0, 2, 3)).round(4).tolist()), std=tuple(deviations)
        ),
        fingerprint=fingerprint,
        split_fingerprint=_sha256(parts.training, parts.validation),
    )
    return Dataset(
        info,
        Examples(torch.from_numpy(images[order]), torch.from_numpy(labels[order])),
        Examples(torch.from_numpy(test[0]), torch.from_numpy(test[1])),
    )


Arrays = tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]


def _sha256(*arrays: NDArray[np.uint8] | NDArray[np.int64]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(str(array.shape).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _digits() -> Arrays:
    """1,797 digits of 8×8 pixels, scaled to 28×28; three fifths train, a fifth tests."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    small = torch.from_numpy(pixels).float().view(-1, 1, 8, 8) * (255 / 16)
    large = torch.nn.functional.interpolate(small, size=(28, 28), mode="bilinear")
    images = large.round().clamp(0, 255).to(torch.uint8).numpy()
    labels = labels.astype(np.int64)
    n_test = SPLITS["digits"].n_test
    order = stratified_split(labels, n_test)
    kept, tested = order[:-n_test], order[-n_test:]
    return images[kept], labels[kept], images[tested], labels[tested]


def is_available(name: str, data_dir: Path) -> bool:
    """Whether a data set is in `data_dir`, needed nowhere, or a folder that is there."""
    folder = folder_of(name)
    if folder is not None:
        return folder.is_dir()
    if name.startswith(TENSORS):
        return False
    if name == "digits":
        return True
    raw = data_dir / _TORCHVISION[name] / "raw"
    return all(
        (raw / name).is_file()
        for part in ("train", "t10k")
        for name in (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte")
    )


def _idx_files(name: DatasetName, data_dir: Path) -> Arrays:
    if not is_available(name, data_dir):
        _download(name, data_dir)
    raw = data_dir / _TORCHVISION[name] / "raw"
    parts: list[tuple[NDArray[np.uint8], NDArray[np.int64]]] = []
    split = SPLITS[name]
    n_development = split.n_training + split.n_validation
    for part, n in (("train", n_development), ("t10k", split.n_test)):
        try:
            images = _read_idx(raw / f"{part}-images-idx3-ubyte", (n, 28, 28))
            labels = _read_idx(raw / f"{part}-labels-idx1-ubyte", (n,))
        except (ValueError, OSError) as error:
            raise _broken(name, data_dir, str(error)) from error
        if labels.max() > 9:
            raise _broken(name, data_dir, f"labels must be 0 to 9, but got {labels.max()}")
        parts.append((images[:, np.newaxis], labels.astype(np.int64)))
    return (*parts[0], *parts[1])


def _read_idx(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The bytes of an IDX file (http://yann.lecun.com/exdb/mnist/) that must have that shape.

    torchvision reads them too, but takes seconds to be imported.

    Raises:
        ValueError: if the file is something else.
        OSError: if it cannot be read.
    """
    data = bytearray(path.read_bytes())  # so that the array may be written to
    n_bytes = 4 * (1 + len(shape))
    header = np.frombuffer(data[:n_bytes], dtype=">u4") if len(data) >= n_bytes else np.zeros(1)
    expected = (0x0800 + len(shape), *shape)
    if tuple(header) != expected or len(data) != n_bytes + np.prod(shape):
        raise ValueError(
            f"{path.name} must hold {shape[0]:,} items in {n_bytes + np.prod(shape):,} bytes, but "
            f"has {len(data):,} bytes and the header {tuple(map(int, header))}"
        )
    return np.frombuffer(data, dtype=np.uint8, offset=n_bytes).reshape(shape)


def _broken(name: str, data_dir: Path, why: str) -> DataError:
    return DataError(
        f"The files of {name} in {data_dir} are damaged: {why}. Delete the folder "
        f"{_TORCHVISION[name]} in it, and they are downloaded again."
    )


def _download(name: DatasetName, data_dir: Path) -> None:
    import torchvision.datasets

    cls = getattr(torchvision.datasets, _TORCHVISION[name])
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT_SECONDS)
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        cls(root=data_dir, train=True, download=True)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        _remove_empty_folders(data_dir / _TORCHVISION[name] / "raw", above=data_dir.parent)
        reason = _reason(error)
        raise DataUnavailableError(
            f"The data set {name} must be in the data folder or be downloadable, but {data_dir} "
            f"does not have it and the download failed ({reason}). Name a folder that has it with "
            "--data-dir (or SEARCH_DATA_DIR), or take the embedded digits with --dataset digits.",
            reason=reason,
        ) from error
    finally:
        socket.setdefaulttimeout(previous)


def _remove_empty_folders(folder: Path, *, above: Path) -> None:
    """Takes back what a failed download has made: empty folders, up to `above`."""
    while folder != above:
        with contextlib.suppress(OSError):  # not there, or not empty
            folder.rmdir()
        folder = folder.parent


def _reason(error: Exception) -> str:
    """What went wrong, from torchvision's list of all the places that it tried."""
    lines = [line.strip(" <>)(;") for line in str(error).splitlines() if line.strip(" )(;")]
    return lines[-1] if lines else type(error).__name__


@contextmanager
def dataset_files(dataset: Dataset, *, with_test: bool) -> Iterator[DatasetFiles]:
    """The data set in files that many processes can map.

    Without `with_test` there is no file of the test set: who searches cannot look at it. The files
    lie in the user's cache, where the next run finds them again; where that cannot be written, in
    a temporary folder for as long as the context lasts.

    Raises:
        DataError: if there is no room for them.
    """
    cache = platformdirs.user_cache_path(APPLICATION) / "mapped"
    try:
        yield _write_files(dataset, cache, with_test=with_test)
    except _CannotWriteError:
        with tempfile.TemporaryDirectory(prefix="budget-search-") as folder:
            try:
                files = _write_files(dataset, Path(folder), with_test=with_test)
            except _CannotWriteError as error:
                n_megabytes = dataset.development.images.nbytes // 1_000_000 + 1
                raise DataError(
                    f"The data set needs about {n_megabytes} MB of disk that worker processes "
                    f"share, but neither {cache} nor {folder} can be written ({error}). Make "
                    "room, or point XDG_CACHE_HOME or TMPDIR to a folder that has it."
                ) from error
            yield files


class _CannotWriteError(Exception):
    """A folder that cannot be written."""


def _write_files(dataset: Dataset, folder: Path, *, with_test: bool) -> DatasetFiles:
    info = dataset.info
    parts = {"development": dataset.development}
    if with_test:
        parts["test"] = dataset.test
    paths: dict[str, Path] = {}
    for part, examples in parts.items():
        # The name holds what decides the contents, so a file that is there is the right one.
        path = folder / f"{info.fingerprint[:32]}-{info.split_fingerprint[:32]}-{part}.safetensors"
        try:
            if not path.exists():
                folder.mkdir(parents=True, exist_ok=True)
                write_tensors({"images": examples.images, "labels": examples.labels}, path)
        except OSError as error:
            raise _CannotWriteError(str(error)) from error
        paths[part] = path
    return DatasetFiles(info, paths["development"], paths.get("test"))
