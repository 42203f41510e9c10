"""Data sets in files that worker processes map, and how one is sealed."""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open

from search.data.cache import MAPPED, cache_folder, in_use, private_folder, sweep, sweep_former
from search.data.dataset import Dataset, DatasetInfo, Examples
from search.data.tensors import write_tensors
from search.exceptions import DataError


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
    return DataError("The test set is sealed for all that searches or chooses.")


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


# Each process maps a file once: what it trains on stays, whoever deletes the cache meanwhile.
@functools.lru_cache(maxsize=2)
def _map(path: Path) -> Examples:
    with safe_open(path, framework="pt") as file:  # tensors are views of the mapped file
        return Examples(file.get_tensor("images"), file.get_tensor("labels"))


def _holds(path: Path, examples: Examples) -> bool:
    """Whether a file has these images and labels, each of their bytes."""
    try:
        with safe_open(path, framework="pt") as file:
            return torch.equal(file.get_tensor("images"), examples.images) and torch.equal(
                file.get_tensor("labels"), examples.labels
            )
    except (SafetensorError, OSError):
        return False


@contextmanager
def dataset_files(dataset: Dataset, *, with_test: bool) -> Iterator[DatasetFiles]:
    """The data set in files that many processes can map.

    Without `with_test` there is no file of the test set: who searches cannot look at it. The files
    lie in the user's cache, where the next run finds them again; where that cannot be written, in
    a temporary folder for as long as the context lasts.

    Raises:
        DataError: if there is no room for them.
    """
    with ExitStack() as stack:
        try:
            files = _write_files(dataset, None, stack, with_test=with_test)
        except _CannotWriteError:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="budget-search-"))
            try:
                files = _write_files(dataset, Path(folder), stack, with_test=with_test)
            except _CannotWriteError as error:
                n_megabytes = dataset.development.images.nbytes // 1_000_000 + 1
                raise DataError(
                    f"The data set needs about {n_megabytes} MB of disk that worker processes "
                    f"share, but neither {cache_folder(MAPPED)} nor {folder} can be written "
                    f"({error}). Make room, or point XDG_CACHE_HOME or TMPDIR to a folder that has "
                    "it."
                ) from error
        yield files


class _CannotWriteError(Exception):
    """A folder that cannot be written."""


def _write_files(
    dataset: Dataset, folder: Path | None, stack: ExitStack, *, with_test: bool
) -> DatasetFiles:
    """The files, in a folder or, where there is none, in the cache; in use as long as the stack."""
    info = dataset.info
    parts = {"development": dataset.development}
    if with_test:
        parts["test"] = dataset.test
    paths: dict[str, Path] = {}
    shape = dataset.development.images.shape[1:]
    of_dataset = hashlib.sha256(os.fsencode(f"{info.name} {tuple(shape)}")).hexdigest()[:16]
    for part, examples in parts.items():
        # The name holds what decides the contents, but a disk may have lost them since.
        contents = f"{info.fingerprint[:32]}-{info.split_fingerprint[:32]}"
        name = f"{of_dataset}-{contents}-{part}.safetensors"
        try:
            path = (private_folder(MAPPED) if folder is None else folder) / name
            is_new = False
            while not (stack.enter_context(in_use(path)) and _holds(path, examples)):
                if is_new and path.exists():
                    raise OSError(0, f"{path} cannot be read")
                write_tensors({"images": examples.images, "labels": examples.labels}, path)
                path.chmod(0o600)
                is_new = True
        except OSError as error:
            raise _CannotWriteError(str(error)) from error
        if is_new and folder is None:
            # With an image more a folder has another file, and the former is of no use.
            sweep_former(path, f"{of_dataset}-*-{part}.safetensors")
            sweep()
        paths[part] = path
    return DatasetFiles(info, paths["development"], paths.get("test"))
