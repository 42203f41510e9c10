"""What data sets are called: built in, a folder of images, or tensors that a program gave."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from search.exceptions import DataError
from search.wording import meant

DatasetName = Literal["mnist", "fashion-mnist", "kmnist", "digits"]
FOLDER, TENSORS = "folder:", "tensors:"
ImageSize = tuple[int, int]  # height and width, in pixels
# Along a side. Above 128 a network of some thousand parameters sees too small a part of the image.
SMALLEST_SIDE, LARGEST_SIDE = 8, 128
BUILT_IN_SIDE = 28  # of the images of every data set that is built in


_CLASS_NAMES: dict[DatasetName, str] = {
    "mnist": "0 1 2 3 4 5 6 7 8 9",
    "digits": "0 1 2 3 4 5 6 7 8 9",
    "fashion-mnist": "T-shirt Trousers Pullover Dress Coat Sandal Shirt Sneaker Bag Boot",
    # The hiragana, romanised: few fonts have them.
    "kmnist": "o ki su tsu na ha ma ya re wo",
}


def check_text(name: str, what: str) -> str:
    """A name, if databases, pictures, terminals and programs can have it in them.

    Args:
        what: the name is of, as the beginning of a sentence.

    Raises:
        DataError: if it has control characters or is not UTF-8, as the name of a file need not be.
    """
    # Zl and Zp end a line; Cs is what Python makes of bytes that are not UTF-8.
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name):
        raise DataError(
            f"{what} must be UTF-8 without control characters, but got {name!r}; rename it."
        )
    return name


def look_alike(names: Sequence[str]) -> list[str]:
    """Those of some names that are blank, or that nobody can tell from another one on a screen.

    They differ by their blanks alone, by joiners without a width, or by whether a letter and its
    accent are one character or two.
    """
    shown = [" ".join(unicodedata.normalize("NFC", name).split()) for name in names]
    shown = [look.replace("\u200c", "").replace("\u200d", "") for look in shown]
    counts = Counter(shown)
    return [name for name, look in zip(names, shown, strict=True) if not look or counts[look] > 1]


def folder_of(name: str) -> Path | None:
    """The folder of images that a data set's name names; None for any other data set."""
    return Path(name.removeprefix(FOLDER)) if name.startswith(FOLDER) else None


def check_folder(folder: Path) -> Path:
    """The folder of images, as an absolute path, if it is there.

    Raises:
        DataError: if it is not.
    """
    if folder == Path():
        raise DataError("A folder of images must have a name, as folder:photos, but got none.")
    # A link that stands for the folder stays one: it may point elsewhere tomorrow.
    folder = Path(os.path.abspath(os.path.expanduser(folder)))  # noqa: PTH100, PTH111 - no error
    check_text(str(folder), "The path of a folder of images")
    if not folder.is_dir():
        raise DataError(
            f"A folder of images must be there, but {folder} is no folder; name one that has a "
            "sub-folder for each class, or make a link to where it lies now."
        )
    return folder


def check_dataset_name(name: str, *, besides: Sequence[str] = ()) -> DatasetName:
    """The name, if it is that of a data set that is built in.

    Args:
        besides: other names that may stand in its place.

    Raises:
        DataError: if there is none of that name.
    """
    if name not in get_args(DatasetName):
        names = (*besides, *get_args(DatasetName))
        hint = meant(name, names)
        if os.path.isdir(os.path.expanduser(name)):  # noqa: PTH111, PTH112 - raise for no name
            hint = f"; the folder of that name can be searched as {FOLDER}{name}."
        raise DataError(f"A data set must be one of {', '.join(names)}, but got {name!r}{hint}")
    return cast(DatasetName, name)


def check_image_size(size: int | ImageSize) -> ImageSize:
    """The height and width to which the images of a folder are scaled, if they can be that.

    Args:
        size: both, or one number that stands for both.

    Raises:
        DataError: if it cannot.
    """
    sides: object = size if isinstance(size, tuple) else (size, size)
    given = repr(size)
    match sides:
        case int(height), int(width):
            if all(SMALLEST_SIDE <= side <= LARGEST_SIDE for side in (height, width)):
                return height, width
            given = size_option((height, width))
    raise DataError(
        f"An image size must be {SMALLEST_SIDE} to {LARGEST_SIDE} pixels along each side, but got "
        f"{given}; give one for both, as 32, or height and width, as 20x60 (in Python (20, 60))."
    )


def check_own_size(name: str, size: int | ImageSize) -> None:
    """Sees that the images of a built-in data set are of a size that they shall have.

    Raises:
        DataError: if they are not: only those of a folder are scaled.
    """
    if check_image_size(size) != (BUILT_IN_SIDE, BUILT_IN_SIDE):
        raise DataError(
            f"An image size must be for a folder of images, but {name} has its own, "
            f"{BUILT_IN_SIDE}; leave it out."
        )


def size_words(size: ImageSize) -> str:
    """A height and a width, for people."""
    return "×".join(map(str, size))


def size_option(size: ImageSize) -> str:
    """The same as `--image-size` takes it."""
    return str(size[0]) if size[0] == size[1] else "x".join(map(str, size))


def short_name(name: str) -> str:
    """What a data set is called in the name of a study: the folder's own name, without its path."""
    folder = folder_of(name)
    return name.removeprefix(TENSORS) if folder is None else folder.name or "images"


def class_names(name: DatasetName) -> list[str]:
    """What people call the classes of a data set, by label."""
    return _CLASS_NAMES[name].split()


def find_data_words(name: str) -> str:
    """What to do where a data set's images are not those that they were."""
    if folder_of(name) is not None:
        return "make the folder what it was, or search it as another study"
    if name.startswith(TENSORS):
        return "give the same tensors, with the same names of classes"
    return "name their folder with --data-dir"


@dataclass(frozen=True, slots=True)
class Split:
    """Numbers of images; a network is retrained on those that train and validate together."""

    n_training: int
    n_validation: int
    n_test: int

    @property
    def n_parts(self) -> int:
        """How many parts, each as large as what validates, training and validation images make."""
        return max(2, round((self.n_training + self.n_validation) / self.n_validation))


_OF_TORCHVISION = Split(50_000, 10_000, 10_000)


SPLITS = {
    "mnist": _OF_TORCHVISION,
    "fashion-mnist": _OF_TORCHVISION,
    "kmnist": _OF_TORCHVISION,
    "digits": Split(1_079, 359, 359),
}
