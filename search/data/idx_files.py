"""The files of MNIST and its kin: where they lie, whether they can be had, and what they hold."""

from __future__ import annotations

import gzip
import http.client
import os
import queue
import re
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from search.data.names import SPLITS, TENSORS, DatasetName, folder_of
from search.exceptions import DataError, DataUnavailableError
from search.folders import has_user_cache, user_cache

# Torchvision's names of the data sets, and of the folders into which it downloads them.
TORCHVISION = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST"}
# What their folders are called, in small letters and without anything else.
_FOLDERS = {
    "mnist": ("mnist",),
    "fashion-mnist": ("fashionmnist", "datasetfashionmnist"),
    "kmnist": ("kmnist", "kuzushijimnist"),
}
# From where torchvision downloads them, which takes seconds to be imported.
_MIRRORS = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "http://yann.lecun.com/exdb/mnist/",
    ),
    "fashion-mnist": ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    "kmnist": ("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
}
_ANSWER_SECONDS = 2.0  # that a mirror has to say whether it is there
# Images and labels that train and validate, then those of the test set.
_STEMS = (
    ("train-images", "idx3-ubyte"),
    ("train-labels", "idx1-ubyte"),
    ("t10k-images", "idx3-ubyte"),
    ("t10k-labels", "idx1-ubyte"),
)
_N_SHOWN = 8  # of what lies in a folder


@dataclass(frozen=True, slots=True)
class IdxFiles:
    """The four files of a data set, images before labels, training before test."""

    folder: Path
    paths: tuple[Path, Path, Path, Path]


def default_data_dir() -> Path:
    """Where data sets are downloaded to unless a user says otherwise."""
    return user_cache() / "data"


def find_idx_files(name: str, data_dir: Path) -> IdxFiles | None:
    """The files of a data set in `data_dir`, or in a folder of its name there; None without all.

    They may be as torchvision downloads them, compressed (.gz), and called with a dot instead of
    the hyphen (`train-images.idx3-ubyte`).

    Raises:
        DataError: if a folder may not be looked into.
    """
    for folder in _places(name, data_dir):
        paths = [_find_file(folder, *stem) for stem in _STEMS]
        images, labels, test_images, test_labels = paths
        if images and labels and test_images and test_labels:
            return IdxFiles(folder, (images, labels, test_images, test_labels))
    return None


def _find_file(folder: Path, stem: str, kind: str) -> Path | None:
    for ending in ("", ".gz"):
        for joint in "-.":
            path = folder / f"{stem}{joint}{kind}{ending}"
            try:
                if path.is_file():
                    return path
            except PermissionError as error:
                raise DataError(
                    f"A data folder must be readable, but {folder} is not ({error.strerror}); give "
                    "yourself the right, or name another folder with --data-dir."
                ) from error
    return None


def _places(name: str, data_dir: Path) -> list[Path]:
    """The folders to look in, those that have the data set's name first."""
    own = [data_dir / TORCHVISION[name]]
    own += [data_dir / each for each in _entries(data_dir) if _plain(each) in _FOLDERS[name]]
    places = [place for folder in dict.fromkeys(own) for place in (folder / "raw", folder)]
    # In a folder of another one's name lie that one's files, which are called the same.
    others = {each for other, names in _FOLDERS.items() if other != name for each in names}
    absolute = Path(os.path.abspath(data_dir))  # noqa: PTH100 - not where a link leads
    if not {_plain(absolute.name), _plain(absolute.parent.name)} & others:
        places += [data_dir / "raw", data_dir]
    return places


def _plain(name: str) -> str:
    return re.sub("[^a-z]", "", name.lower())


def _entries(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return []


def is_available(name: str, data_dir: Path) -> bool:
    """Whether a data set is in `data_dir`, needed nowhere, or a folder that is there."""
    folder = folder_of(name)
    if folder is not None:
        return folder.is_dir()
    if name.startswith(TENSORS):
        return False
    return name == "digits" or find_idx_files(name, data_dir) is not None


def check_obtainable(name: DatasetName, data_dir: Path) -> None:
    """Sees, within seconds, that a built-in data set is there or can be downloaded.

    Raises:
        DataUnavailableError: if it is neither.
    """
    if is_available(name, data_dir):
        return
    reason = _why_unreachable([f"{url}{_download_name(0)}" for url in _MIRRORS[name]])
    if reason is not None:
        raise unavailable(name, data_dir, reason)


def _download_name(number: int) -> str:
    return f"{'-'.join(_STEMS[number])}.gz"


def unavailable(name: DatasetName, data_dir: Path, reason: str) -> DataUnavailableError:
    """What to raise where a data set is not there, and cannot be downloaded for that reason."""
    looked = ", ".join(
        str(place.relative_to(data_dir)) for place in _places(name, data_dir) if place != data_dir
    )
    lies = _entries(data_dir)
    there = ", ".join(lies[:_N_SHOWN]) + (", …" if len(lies) > _N_SHOWN else "")
    if not data_dir.is_dir():
        there = "that is no folder" if data_dir.exists() else "that is not there"
    else:
        there = f"in it lies {there}" if lies else "it is empty"
    files = (
        f"{_download_name(0)} and so on, also without .gz or with a dot, train-images.idx3-ubyte"
    )
    if data_dir == default_data_dir() and not has_user_cache():
        lack = "this user has neither a home directory nor a data folder"
        have = f"has its four files ({files})"
    else:
        lack = (
            f"{data_dir} does not have its four files ({files}), neither itself nor in {looked}: "
            f"{there}"
        )
        have = "has them"
    return DataUnavailableError(
        f"The data set {name} must be in the data folder or be downloadable, but the download "
        f"failed ({reason}), and {lack}. Name a folder that {have} with --data-dir (or "
        "SEARCH_DATA_DIR), or take the embedded digits with --dataset digits.",
        reason=reason,
    )


def _why_unreachable(urls: Sequence[str]) -> str | None:
    """Why no file of these can be downloaded; None where one can."""
    answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    for url in urls:  # daemons, as nothing ends the search for an address
        threading.Thread(target=lambda at=url: answers.put(_ask(at)), daemon=True).start()
    deadline = time.monotonic() + _ANSWER_SECONDS
    reason = f"no answer in {_ANSWER_SECONDS:.0f} s"
    for _ in urls:
        try:
            answer = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        if answer is None:
            return None
        reason = answer
    return reason


def _ask(url: str) -> str | None:
    """Why a file cannot be downloaded; None where it can."""
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=_ANSWER_SECONDS):
            return None
    except urllib.error.URLError as error:
        return str(error.reason)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__


Arrays = tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]


def read_idx_files(name: DatasetName, files: IdxFiles) -> Arrays:
    """Images, (N, 1, 28, 28), and labels, (N,), then those of the test set.

    Raises:
        DataError: if a file is damaged or another one.
    """
    split = SPLITS[name]
    n_development = split.n_training + split.n_validation
    parts: list[tuple[NDArray[np.uint8], NDArray[np.int64]]] = []
    for (images, labels), n in (
        (files.paths[:2], n_development),
        (files.paths[2:], split.n_test),
    ):
        try:
            pixels, numbers = _read_idx(images, (n, 28, 28)), _read_idx(labels, (n,))
        except (ValueError, OSError, EOFError, zlib.error) as error:
            raise _broken(name, files, str(error)) from error
        if numbers.max() > 9:
            raise _broken(name, files, f"labels must be 0 to 9, but got {numbers.max()}")
        parts.append((pixels[:, np.newaxis], numbers.astype(np.int64)))
    return (*parts[0], *parts[1])


def _read_idx(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The bytes of an IDX file (http://yann.lecun.com/exdb/mnist/) that must have that shape.

    torchvision reads them too, but takes seconds to be imported.

    Raises:
        ValueError: if the file is something else.
        OSError, EOFError, zlib.error: if it cannot be read.
    """
    n_header = 4 * (1 + len(shape))
    n_bytes = n_header + int(np.prod(shape))
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        data = bytearray(file.read(n_bytes + 1))  # so that the array may be written to
    header = np.frombuffer(data[:n_header], dtype=">u4") if len(data) >= n_header else np.zeros(1)
    if tuple(header) != (0x0800 + len(shape), *shape) or len(data) != n_bytes:
        size = f"{len(data):,} bytes" if len(data) <= n_bytes else "more"
        raise ValueError(
            f"{path.name} must hold {shape[0]:,} items in {n_bytes:,} bytes, but has {size} and "
            f"the header {tuple(map(int, header))}"
        )
    return np.frombuffer(data, dtype=np.uint8, offset=n_header).reshape(shape)


def _broken(name: str, files: IdxFiles, why: str) -> DataError:
    return DataError(
        f"The files of {name} in {files.folder} are damaged: {why}. {mend_words(files.folder)}"
    )


def mend_words(folder: Path) -> str:
    """What to do about files of a data set that are wrong, by whose folder they lie in."""
    if default_data_dir() in folder.parents:  # only a download has put them there
        return "Delete them, and they are downloaded again."
    return "Put the right ones there, or name another folder with --data-dir (or SEARCH_DATA_DIR)."
