"""A network as a handful of numbers: which blocks, how many at each size of the map, how it widens.

A design begins with one plain convolution. Its blocks follow, and a 2×2 pool behind those of each
size but the last; the map's size halves there. A plain block is a 3×3 convolution. A separable one
is a depthwise 3×3 convolution with a 1×1 convolution behind it (Howard et al., "MobileNets", 2017),
and the last of them has another depthwise convolution behind it, whose 1×1 convolution is the
output. Convolutions widen evenly on a logarithmic scale from the first to the last.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

BLOCKS = ("separable", "plain")
MAX_POOLS = 5
DESIGN_NAMES = (
    "block",
    "pools",
    *(f"blocks_{i}" for i in range(1, MAX_POOLS + 2)),
    "growth",
    "padding",
)
_FIRST_WIDTH = 64  # of which all are multiples: scaled to the cap afterwards
_LEAST_SIDE = 4  # pixels of a map that a convolution without padding still shrinks


def topology_and_widths(
    value: Mapping[str, Any], input_shape: tuple[int, int, int]
) -> tuple[str, tuple[int, ...]]:
    """A design in the notation of `Topology`, and the proportions of its open widths.

    Args:
        value: what each name of the design is; of `blocks_1` and so on, those that its pools make.
            A `dropout` of 0 leaves the layers out that would drop nothing.
        input_shape: channels, height and width of an image. Where that has no room for a pool, or
            for a convolution without padding, there is none.
    """
    pools = value["pools"]
    blocks = tuple(value[f"blocks_{i}"] for i in range(1, pools + 2))
    drops = float(value["dropout"]) > 0
    return _design(value["block"], blocks, value["growth"], value["padding"], drops, input_shape)


@functools.lru_cache(maxsize=4096)
def _design(
    block: str,
    blocks: tuple[int, ...],
    growth: float,
    padding: int,
    drops: bool,
    input_shape: tuple[int, int, int],
) -> tuple[str, tuple[int, ...]]:
    _, *sides = input_shape
    items: list[str] = []

    def convolve(kind: str) -> None:
        if padding or min(sides) < _LEAST_SIDE + 2:
            items.append(f"{kind}p1")
        else:
            items.append(kind)
            sides[:] = [side - 2 for side in sides]

    convolve("c3")
    for size, n_blocks in enumerate(blocks):
        if size > 0 and min(sides) >= 2:
            items.extend(("drop", "pool") if drops else ("pool",))
            sides[:] = [side // 2 for side in sides]
        for _ in range(n_blocks):
            if block == "plain":
                convolve("c3")
            else:
                convolve("d3")
                items.append("c1")
    if block == "separable":
        convolve("d3")
    n_widths = sum(item[0] == "c" for item in items)
    steps = max(1, n_widths - 1)
    widths = tuple(round(_FIRST_WIDTH * growth ** (i / steps)) for i in range(n_widths))
    if drops:
        items.append("drop")
    return ", ".join((*items, "out+bias", "gap")), widths
