"""What data sets are called: built in, a folder of images, or tensors that a program gave."""

from __future__ import annotations

from pathlib import Path

FOLDER, TENSORS = "folder:", "tensors:"


def folder_of(name: str) -> Path | None:
    """The folder of images that a data set's name names; None for any other data set."""
    return Path(name.removeprefix(FOLDER)) if name.startswith(FOLDER) else None


def short_name(name: str) -> str:
    """What a data set is called in the name of a study: the folder's own name, without its path."""
    folder = folder_of(name)
    return name.removeprefix(TENSORS) if folder is None else folder.name or "images"


def find_data_words(name: str) -> str:
    """What to do where a data set's images are not those that they were."""
    if folder_of(name) is not None:
        return "make the folder what it was, or search it as another study"
    if name.startswith(TENSORS):
        return "give the same tensors, with the same names of classes"
    return "name their folder with --data-dir"
