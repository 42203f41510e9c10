"""The size that a folder's images are given where none is asked for: theirs, within reason."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import median

from search.data.names import LARGEST_SIDE, SMALLEST_SIDE, ImageSize, size_words
from search.wording import percent

_NEARLY_ALL = 0.95  # of the images: a few may have come from elsewhere
# Pixels along the longer side of images that must be scaled anyway, photographs as a rule: an epoch
# takes a quarter of the time that it would at the most that images of one size may keep.
_LARGEST_SCALED = 64
_STEP = 4  # two pools halve such a side without a rest


def common_size(
    sizes: Sequence[ImageSize], *, least_side: int = SMALLEST_SIDE
) -> tuple[ImageSize, str]:
    """One height and width for images of these sizes, and why, for people.

    The size that nearly all have, if it is at most 128 along the longer side; else the medians of
    heights and widths, scaled down together to at most 64 along the longer side.

    Args:
        least_side: pixels that both sides get at least.
    """
    usual, n_usual = Counter(sizes).most_common(1)[0]
    share = n_usual / len(sizes)
    if share >= _NEARLY_ALL and max(usual) <= LARGEST_SIDE:
        height, width = usual
        why = f"as {'they' if share == 1 else f'{percent(share)} of them'} are"
    else:
        heights, widths = zip(*sizes, strict=True)
        middle = round(median(heights)), round(median(widths))
        factor = min(1.0, _LARGEST_SCALED / max(middle))
        height, width = (_in_steps(factor * side) for side in middle)
        why = f"their median is {size_words(middle)}"
        why += f", scaled to {_LARGEST_SCALED} along the longer side" if factor < 1 else ""
    size = max(height, least_side), max(width, least_side)
    if size != (height, width):
        why += f", {size_words((height, width))}, but at least {least_side} along each side"
    return size, f"{why}; another size with --image-size"


def _in_steps(side: float) -> int:
    """A side, above 16 pixels the nearest multiple of four."""
    return _STEP * math.floor(side / _STEP + 0.5) if side > _STEP**2 else round(side)
