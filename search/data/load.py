"""`load_dataset`: a data set by its name, built in or a folder of pictures."""

from __future__ import annotations

import os

from search.data.at_hand import given_as_tensors
from search.data.built_in import read_digits, read_mnist
from search.data.dataset import Dataset, Parts, assemble, sha256, stratified_split
from search.data.idx_files import default_data_dir
from search.data.names import (
    FOLDER,
    SPLITS,
    TENSORS,
    ImageSize,
    check_dataset_name,
    check_image_size,
    check_own_size,
    class_names,
    folder_of,
)
from search.data.own import folder_dataset
from search.exceptions import DataError
from search.folders import as_path


def load_dataset(
    name: str | os.PathLike[str],
    data_dir: str | os.PathLike[str] | None = None,
    *,
    image_size: int | ImageSize | None = None,
    n_held_out: int | None = None,
) -> Dataset:
    """The data set of that name, downloaded into `data_dir` where it is not there yet.

    Args:
        name: `mnist`, `fashion-mnist`, `kmnist`, `digits`, or `folder:PATH` for a folder with a
            sub-folder of images for each class, which may also be given as a `pathlib.Path`.
        data_dir: by default a folder in the user's cache.
        image_size: the height and width to which the images of a folder are scaled, or one number
            for both; by default what suits them. They keep their proportions, and what they leave
            free is black.
        n_held_out: how many development images of a built-in data set validate; by default
            10,000, or a fifth of the embedded digits.

    Raises:
        DataError: if it is neither there nor to be had, its files are broken, or the images of a
            folder are too few.
    """
    if not isinstance(name, str):
        name = f"{FOLDER}{as_path(name, 'name')}"
    folder = folder_of(name)
    if folder is not None:
        return folder_dataset(folder, None if image_size is None else check_image_size(image_size))
    if name.startswith(TENSORS):
        raise given_as_tensors(name)
    built_in = check_dataset_name(name)
    if image_size is not None:
        check_own_size(name, image_size)
    data_dir = default_data_dir() if data_dir is None else as_path(data_dir, "data_dir")
    if name == "digits":
        origin = "embedded in scikit-learn"
        images, labels, test_images, test_labels = arrays = read_digits()
        fingerprint = sha256(*arrays)
    else:
        arrays, fingerprint, place = read_mnist(built_in, data_dir)
        origin = str(place)
        images, labels, test_images, test_labels = arrays
    n_held_out = SPLITS[name].n_validation if n_held_out is None else n_held_out
    if not 0 < n_held_out < len(labels):
        raise DataError(
            f"The images held out for validation must be fewer than the {len(labels):,} that "
            f"{name} has besides its test set, but {n_held_out:,} are asked for; take another "
            "data set."
        )
    order = stratified_split(labels, n_held_out)
    return assemble(
        Parts(images, labels, order[:-n_held_out], order[-n_held_out:]),
        (test_images, test_labels),
        name=name,
        origin=origin,
        classes=tuple(class_names(built_in)),
        fingerprint=fingerprint,
    )
