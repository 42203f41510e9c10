"""Channel widths scaled until a network fills the cap."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from search_models.size import parameter_count
from search_models.spec import Topology


@functools.lru_cache(maxsize=4096)
def scale_to(
    limit: int,
    topology: Topology,
    widths: tuple[int, ...],
    input_shape: tuple[int, int, int],
    n_classes: int,
) -> tuple[int, ...]:
    """`widths` times the largest factor that gives at most `limit` parameters.

    Each is rounded and at least 1; where even ones are too many, the result is ones.
    """

    def scaled(factor: float) -> tuple[int, ...]:
        return tuple(max(1, round(width * factor)) for width in widths)

    def fits(factor: float) -> bool:
        return _count(topology, scaled(factor), input_shape, n_classes) <= limit

    if not widths:
        return widths
    low, high = 0.0, 1.0
    while fits(high) and max(scaled(high)) < limit:  # a convolution has more weights than channels
        low, high = high, 2 * high
    while (high - low) * max(widths, default=1) > 1e-3:
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return scaled(low)


@functools.lru_cache(maxsize=4096)
def fill_to(
    limit: int,
    topology: Topology,
    widths: tuple[int, ...],
    input_shape: tuple[int, int, int],
    n_classes: int,
) -> tuple[int, ...]:
    """`scale_to`, and then one channel more at a time, as long as there is room for one.

    The next is always of the convolution that is narrowest for its proportion: of few channels,
    one more or less is a large part.
    """
    found = list(scale_to(limit, topology, widths, input_shape, n_classes))

    def fits(place: int) -> bool:
        wider = [width + (i == place) for i, width in enumerate(found)]
        return _count(topology, wider, input_shape, n_classes) <= limit

    while True:
        places = sorted(range(len(found)), key=lambda place: found[place] / widths[place])
        place = next(filter(fits, places), None)
        if place is None:
            return tuple(found)
        found[place] += 1


def _count(
    topology: Topology,
    widths: Sequence[int],
    input_shape: tuple[int, int, int],
    n_classes: int,
) -> int:
    return parameter_count(topology.spec(widths, 0.0, input_shape=input_shape, n_classes=n_classes))
