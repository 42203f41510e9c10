"""The data sets that come by name: MNIST and its kin, and the digits of scikit-learn."""

from __future__ import annotations

import contextlib
import socket
import urllib.error
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from search.data.dataset import stratified_split, user_cache
from search.data.names import (
    SPLITS,
    TENSORS,
    DatasetName,
    folder_of,
)
from search.exceptions import DataError, DataUnavailableError

_TORCHVISION = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST"}
_CLASS_NAMES: dict[DatasetName, str] = {
    "mnist": "0 1 2 3 4 5 6 7 8 9",
    "digits": "0 1 2 3 4 5 6 7 8 9",
    "fashion-mnist": "T-shirt Trousers Pullover Dress Coat Sandal Shirt Sneaker Bag Boot",
    # The hiragana, romanised: few fonts have them.
    "kmnist": "o ki su tsu na ha ma ya re wo",
}
_DOWNLOAD_TIMEOUT_SECONDS = 20
# SHA-256 of MNIST's pixels and labels, training set before test set. The IDX files have no
# checksum of their own, and a file of the right length may still be another one.
MNIST_FINGERPRINT = "35914650c8beaeed4429263376775b71ac05b224ab7d958a603bb5feac95afaf"


def default_data_dir() -> Path:
    """Where data sets are downloaded to unless a user says otherwise."""
    return user_cache() / "data"


def class_names(name: DatasetName) -> list[str]:
    """What people call the classes of a data set, by label."""
    return _CLASS_NAMES[name].split()


Arrays = tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]


def read_digits() -> Arrays:
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


def read_idx_files(name: DatasetName, data_dir: Path) -> Arrays:
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
