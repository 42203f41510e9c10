"""How often `predict` takes one digit for several, and several for one.

    python -m scripts.experiments.several_digits --data-dir DIR    # real MNIST

Writes pictures of training images on white paper: one digit each; two beside each other with room
between them; two moved together until they touch. It opens no test image. Prints how many of each
are taken for several, and of all training images how many are wider than `shows_several` lets one
digit be.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from search.data.digit_photos import WIDEST, shows_several
from search.data.load import load_dataset

SCALE, MARGIN, GAP = (
    8,
    6,
    4,
)  # of a picture; its margin, and room between digits, in pixels of MNIST
_INK = 64  # the least of a pixel that belongs to a stroke

Bytes = NDArray[np.uint8]


def cropped(image: Bytes) -> Bytes:
    """The digit without what is empty around it."""
    rows, columns = (np.flatnonzero((image >= _INK).any(axis=axis)) for axis in (1, 0))
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def beside(first: Bytes, second: Bytes, gap: int) -> Bytes:
    """Two digits on one line; a gap below zero lays one over the other."""
    height = max(len(first), len(second))
    width = first.shape[1] + gap + second.shape[1]
    both = np.zeros((height, width), dtype=np.uint8)
    for digit, left in ((first, 0), (second, first.shape[1] + gap)):
        place = both[height - len(digit) :, left : left + digit.shape[1]]
        np.maximum(place, digit, out=place)
    return both


def touching(first: Bytes, second: Bytes) -> Bytes:
    """Two digits on one line, the second moved to the left until their strokes meet."""
    height = max(len(first), len(second))
    own, other = (
        np.pad(digit, ((height - len(digit), 0), (0, 0))) >= _INK for digit in (first, second)
    )
    distances = [
        own.shape[1] - 1 - np.flatnonzero(a)[-1] + np.flatnonzero(b)[0]
        for a, b in zip(own, other, strict=True)
        if a.any() and b.any()
    ]
    return beside(first, second, -int(min(distances)))


def count_several(pictures: Iterator[Bytes], path: Path) -> tuple[int, int]:
    """Of so many pictures, how many are taken for several digits."""
    answers = []
    for digits in pictures:
        paper = 255 - np.pad(digits, MARGIN)
        size = (SCALE * paper.shape[1], SCALE * paper.shape[0])
        Image.fromarray(paper).resize(size, Image.Resampling.BICUBIC).save(path)
        answers.append(shows_several(path))
    return sum(answers), len(answers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=400)
    arguments = parser.parse_args()
    images = load_dataset("mnist", arguments.data_dir).training.images[:, 0].numpy()
    digits = [cropped(image) for image in images]
    pairs = list(zip(digits[::2], digits[1::2], strict=True))[: arguments.pictures]
    kinds = {
        "one digit": iter(digits[: arguments.pictures]),
        "two with room between them": (beside(*pair, GAP) for pair in pairs),
        "two that touch": (touching(*pair) for pair in pairs),
    }
    with tempfile.TemporaryDirectory() as folder:
        for kind, pictures in kinds.items():
            n_several, n = count_several(pictures, Path(folder) / "digits.png")
            print(f"{kind}: {n_several:,} of {n:,} taken for several")
    n_wide = sum(digit.shape[1] > WIDEST * digit.shape[0] for digit in digits)
    print(f"wider than {WIDEST} times their height: {n_wide:,} of {len(digits):,}")


if __name__ == "__main__":
    main()
