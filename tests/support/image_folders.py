"""Folders of small pictures that a network can tell apart, drawn with NumPy and Pillow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

SPACE = 'base = "standard"\nbatch_size = 16\n'  # for folders of fewer than 128 training images


def make_folder(
    folder: Path,
    sizes: Mapping[str, int],
    *,
    colour: bool,
    ending: str = ".png",
    seed: int = 0,
    all_of: tuple[int, int] | None = None,
) -> Path:
    """A sub-folder for each class, with so many pictures of different sizes.

    The class decides where the picture is bright: each has a quarter of its own.

    Args:
        all_of: the height and width of all pictures.
    """
    random = np.random.default_rng(seed)
    for label, (name, n) in enumerate(sizes.items()):
        (folder / name).mkdir(parents=True)
        for number in range(n):
            height, width = random.integers(20, 40, size=2) if all_of is None else all_of
            pixels = random.integers(0, 120, size=(height, width, 3 if colour else 1))
            rows = slice(None, height // 2) if label % 2 else slice(height // 2, None)
            columns = slice(None, width // 2) if label // 2 else slice(width // 2, None)
            pixels[rows, columns, label % pixels.shape[2]] += 130
            picture = pixels.astype(np.uint8)
            Image.fromarray(picture if colour else picture[..., 0]).save(
                folder / name / f"{number}{ending}"
            )
    return folder
