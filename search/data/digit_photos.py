"""Picture files of single digits, made like the images of MNIST.

As http://yann.lecun.com/exdb/mnist/ describes those: the digit is scaled to fit a box of 20×20
pixels with its aspect ratio kept, its grey levels come from anti-aliasing, and the box lies in an
image of 28×28 pixels so that the digit's centre of mass is in the centre.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from search.data.pictures import read_picture
from search.exceptions import InputError

SIDE, _BOX = 28, 20
_LARGEST_SIDE = 300  # of a photograph while a digit is looked for in it; more shows nothing more
_PAPER_STEP = 7  # each seventh pixel tells how bright the paper is as well as all of them
_PAPER_FITS = 5  # each leaves out more of the ink
_LEAST_CONTRAST = 0.15  # by how much ink is darker than paper; less is a shadow
_LEAST_EXTENT = 0.1  # of a digit, as a share of the picture's shorter side
_LEAST_SHARE = 0.1  # of a detached stroke's area in that of the largest one; dust has less
_TALL = 0.5  # of the tallest part's height: what stands beside it and is as tall is a digit, too
WIDEST = 1.5  # times as wide as they are high are 255 of the 50,000 training digits of MNIST
_LEAST_STROKE = 2.0  # pixels of the box; one in twenty of 600 digits of MNIST has thinner ones
_STROKE = 2.5  # pixels of the box, what a thinner stroke becomes

Floats = NDArray[np.float64]


def read_digit(path: Path) -> NDArray[np.uint8]:
    """The digit in a PNG or JPEG file, (28, 28), white on black, centred.

    A picture of 28×28 pixels with a dark margin is taken as it is. In any other, paper of even or
    slowly changing brightness with one digit on it is expected, either of which may be the darker.

    Raises:
        InputError: if the file is no such picture, or there is no digit in it.
    """
    grey = _read_grey(path)
    if grey.shape == (SIDE, SIDE) and np.median(_margin(grey)) < 64:
        digit = grey
    else:
        digit = _normalise(grey)
    if digit.max() - digit.min() < 255 * _LEAST_CONTRAST:
        raise InputError(
            f"Each picture must show a digit that stands out from its paper, but {path} shows "
            "none; take one in more even light, of one digit that fills more of the picture."
        )
    return digit.round().astype(np.uint8)


def shows_several(path: Path) -> bool:
    """Whether a picture seems to show more than one digit, of which `read_digit` makes one.

    Digits that touch are seen by the shape of all of them, wider than a digit is written: nearly
    half of them, as `scripts/experiments/several_digits.py` measures.

    Raises:
        InputError: if the file is no picture.
    """
    grey = _read_grey(path)
    ink = _ink(grey)
    strokes = _strokes(ink > _otsu(ink))
    if not strokes.any():
        return False
    labels, _ = ndimage.label(strokes, np.ones((3, 3)))
    parts = ndimage.find_objects(labels)
    tallest = max(rows.stop - rows.start for rows, _ in parts)
    tall = [part for part in parts if part[0].stop - part[0].start >= _TALL * tallest]
    is_apart = any(
        later[axis].start >= earlier[axis].stop
        for axis in (0, 1)  # one below the other, one beside the other
        for earlier, later in pairwise(sorted(tall, key=lambda part: part[axis].start))
    )
    height, width = (np.ptp(np.flatnonzero(strokes.any(axis=axis))) + 1 for axis in (1, 0))
    return is_apart or bool(width > WIDEST * height)


def _read_grey(path: Path) -> Floats:
    """The grey levels of a picture, (H, W), from 0 to 255; what is transparent is white."""
    picture = read_picture(path, within=(_LARGEST_SIDE, _LARGEST_SIDE), formats=("PNG", "JPEG"))
    return np.asarray(picture.convert("L"), dtype=np.float64)


def _margin(grey: Floats) -> Floats:
    """The pixels along the four edges."""
    return np.concatenate([grey[0], grey[-1], grey[1:-1, 0], grey[1:-1, -1]])


def _normalise(grey: Floats) -> Floats:
    """The digit in a picture as in MNIST, (28, 28); all 0 where there is none."""
    ink = _ink(grey)
    threshold = _otsu(ink)
    strokes = _strokes(ink > threshold)
    if not strokes.any() or ink[strokes].mean() < _LEAST_CONTRAST:
        return np.zeros((SIDE, SIDE))
    # Anti-aliased edges lie outside of what is darker than the threshold.
    edges = ndimage.binary_dilation(strokes, iterations=2)
    digit = np.where(edges, np.clip(ink / np.median(ink[strokes]), 0, 1), 0)
    return _centre(_fit_box(_thicken(digit, strokes)))


def _ink(grey: Floats) -> Floats:
    """How much darker than the paper each pixel is, as a share, or brighter on dark paper."""
    grey = ndimage.gaussian_filter(grey, min(grey.shape) / 250)
    level = np.median(_margin(grey))
    if grey.max() - level > level - grey.min():
        grey = 255 - grey
    return np.clip(1 - grey / _paper(grey), 0, 1)


def _paper(grey: Floats) -> Floats:
    """The brightness that the paper has at each pixel: a quadratic fitted to all but the ink."""
    height, width = grey.shape
    y, x = (axis.ravel() / max(height, width) for axis in np.indices(grey.shape))
    every = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)
    terms, values = every[::_PAPER_STEP], grey.ravel()[::_PAPER_STEP]
    is_paper = values >= np.median(values) - values.std()
    for _ in range(_PAPER_FITS):
        weights, *_ = np.linalg.lstsq(terms[is_paper], values[is_paper])
        residuals = values - terms @ weights
        # A grey level less is no ink, also where the paper is perfectly even.
        is_paper = residuals >= -2 * residuals[is_paper].std() - 1
    paper: Floats = (every @ weights).reshape(grey.shape)
    return np.maximum(paper, 1)


def _otsu(values: Floats) -> float:
    """The threshold that parts values best in two: Otsu (1979), doi.org/10.1109/TSMC.1979.4310076.

    It maximises the variance between the two parts.
    """
    counts, edges = np.histogram(values, bins=256)
    centres = (edges[1:] + edges[:-1]) / 2
    below = counts.cumsum()
    sums = (counts * centres).cumsum()
    share = below / below[-1]
    between = (sums[-1] * share - sums) ** 2 / np.maximum(share * (1 - share), 1e-12)
    return float(centres[between.argmax()])


def _strokes(dark: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The part of what is dark that is the digit: without dust and what reaches in."""
    labels, n = ndimage.label(dark, np.ones((3, 3)))
    if n == 0:
        return dark
    areas = np.bincount(labels.ravel(), minlength=n + 1)
    areas[0] = 0
    extents = [max(s.stop - s.start for s in part) for part in ndimage.find_objects(labels)]
    is_large = np.array([0, *extents]) >= _LEAST_EXTENT * min(dark.shape)
    is_inside = ~np.isin(np.arange(n + 1), _margin(labels))
    if (is_large & is_inside).any():
        areas[~is_inside] = 0
    is_kept = (areas >= _LEAST_SHARE * areas.max()) & (areas > 0)
    strokes: NDArray[np.bool_] = is_kept[labels]
    return strokes


def _thicken(digit: Floats, strokes: NDArray[np.bool_]) -> Floats:
    """The part of the picture that the digit fills, its strokes not thinner than those of MNIST."""
    rows, columns = (np.flatnonzero(strokes.any(axis=axis)) for axis in (1, 0))
    pixel = (max(np.ptp(rows), np.ptp(columns)) + 1) / _BOX  # of the box, in those of the picture
    # Across a stroke the distance to its edge is a quarter of its width on average.
    width = 4 * ndimage.distance_transform_edt(np.pad(strokes, 1)).sum() / strokes.sum()
    growth = 0
    if width < _LEAST_STROKE * pixel:
        growth = round((_STROKE * pixel - width) / 2)
        digit = np.pad(digit, growth)
        digit = ndimage.grey_dilation(digit, (2 * growth + 1, 2 * growth + 1))
    end = 2 * growth + 1
    filled: Floats = digit[rows[0] : rows[-1] + end, columns[0] : columns[-1] + end]
    return filled


def _fit_box(digit: Floats) -> Floats:
    """The digit scaled so that its longer side is that of the box, and its darkest ink 255."""
    scale = _BOX / max(digit.shape)
    height, width = (max(1, round(scale * side)) for side in digit.shape)
    picture = Image.fromarray(digit.astype(np.float32))
    resized = picture.resize((width, height), Image.Resampling.BICUBIC)  # anti-aliased
    scaled: Floats = np.asarray(resized, dtype=np.float64)
    return np.clip(scaled * (255 / float(scaled.max())), 0, 255)


def _centre(digit: Floats) -> Floats:
    """The digit in an image of 28×28 pixels, its centre of mass in row and column 14.

    That is where it is in MNIST, within half a pixel.
    """
    image = np.zeros((SIDE, SIDE))
    top, left = (
        min(max(round(SIDE / 2 - place), 0), SIDE - side)
        for place, side in zip(ndimage.center_of_mass(digit), digit.shape, strict=True)
    )
    image[top : top + digit.shape[0], left : left + digit.shape[1]] = digit
    return image
