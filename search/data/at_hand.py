"""Whether a data set can be had, seen in a second or two, without loading it or PyTorch."""

from __future__ import annotations

from pathlib import Path

from search.data.folder_layout import folder_layout
from search.data.idx_files import check_obtainable, default_data_dir
from search.data.names import TENSORS, check_dataset_name, check_folder, folder_of
from search.exceptions import DataError


def check_at_hand(name: str, data_dir: Path | None = None) -> None:
    """Sees that a data set is there, or that it can be downloaded.

    Args:
        name: as for `load_dataset`.
        data_dir: by default a folder in the user's cache.

    Raises:
        DataError: if it is neither, or no name of a data set.
    """
    folder = folder_of(name)
    if folder is not None:
        folder_layout(check_folder(folder))
    elif name.startswith(TENSORS):
        raise given_as_tensors(name)
    else:
        check_obtainable(check_dataset_name(name), data_dir or default_data_dir())


def given_as_tensors(name: str) -> DataError:
    """What to raise where such data are asked for by their name."""
    return DataError(
        f"Data that were given as tensors are known to the program that has them, but {name!r} "
        "was asked for by name; give the Dataset itself, in Python."
    )
