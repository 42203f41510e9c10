"""The data sets that come by name: MNIST and its kin, and the digits of scikit-learn."""

from __future__ import annotations

import contextlib
import socket
import urllib.error
from pathlib import Path

import numpy as np
import torch

from search.data.dataset import sha256, stratified_split
from search.data.idx_files import (
    TORCHVISION,
    Arrays,
    check_obtainable,
    find_idx_files,
    mend_words,
    read_idx_files,
    unavailable,
)
from search.data.names import SPLITS, DatasetName
from search.exceptions import DataError

_DOWNLOAD_TIMEOUT_SECONDS = 20
# SHA-256 of pixels and labels, training set before test set. The IDX files have no checksum of
# their own, and a file of the right length may still be another one: those of all three data sets
# are called the same. Of KMNIST, only checksums of the compressed files are published.
_FINGERPRINTS: dict[DatasetName, str] = {
    "mnist": "35914650c8beaeed4429263376775b71ac05b224ab7d958a603bb5feac95afaf",
    "fashion-mnist": "c2df23e9d135ade7af62bf6273886728f606f79e67e066d2485f52ee9d597534",
}


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


def read_mnist(name: DatasetName, data_dir: Path) -> tuple[Arrays, str, Path]:
    """A data set of MNIST's kind, downloaded where it is missing; its fingerprint, and its folder.

    Raises:
        DataError: if its files are damaged, or another data set's.
        DataUnavailableError: if it is neither there nor to be downloaded.
    """
    files = find_idx_files(name, data_dir)
    if files is None:
        _download(name, data_dir)
        files = find_idx_files(name, data_dir)
    if files is None:
        raise unavailable(name, data_dir, "what was downloaded is not all of it")
    arrays = read_idx_files(name, files)
    fingerprint = sha256(*arrays)
    is_of = {known: other for other, known in _FINGERPRINTS.items()}.get(fingerprint)
    if is_of != name and (is_of is not None or name in _FINGERPRINTS):
        raise DataError(
            f"The files of {name} in {files.folder} are not those of {name}: "
            + (
                f"they are those of {is_of}. Take --dataset {is_of}, or name another folder with "
                "--data-dir."
                if is_of
                else f"the checksum of their contents differs. {mend_words(files.folder)}"
            )
        )
    return arrays, fingerprint, files.folder


def _download(name: DatasetName, data_dir: Path) -> None:
    check_obtainable(name, data_dir)
    import torchvision.datasets

    cls = getattr(torchvision.datasets, TORCHVISION[name])
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT_SECONDS)
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        cls(root=data_dir, train=True, download=True)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        _remove_empty_folders(data_dir / TORCHVISION[name] / "raw", above=data_dir.parent)
        raise unavailable(name, data_dir, _reason(error)) from error
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
