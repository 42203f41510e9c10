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
        return count_with(topology, scaled(factor), input_shape, n_classes) <= limit

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
        return count_with(topology, wider, input_shape, n_classes) <= limit

    while True:
        places = sorted(range(len(found)), key=lambda place: found[place] / widths[place])
        place = next(filter(fits, places), None)
        if place is None:
            return tuple(found)
        found[place] += 1


def count_with(
    topology: Topology,
    widths: Sequence[int],
    input_shape: tuple[int, int, int],
    n_classes: int,
) -> int:
    """How many parameters the network with these widths has.

    Raises:
        SpecError: if there is no such network.
    """
    pairs, singles, count = _polynomial(topology, input_shape, n_classes)
    for factor, width in zip(singles, widths, strict=True):
        count += factor * width
    for factor, width, following in zip(pairs, widths[:-1], widths[1:], strict=True):
        count += factor * width * following
    return count


@functools.lru_cache(maxsize=4096)
def _polynomial(
    topology: Topology, input_shape: tuple[int, int, int], n_classes: int
) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """What multiplies two widths that follow each other, a single one, and what is there anyway.

    A layer's parameters are products of its channels and those before it, so that a few networks
    tell those of all.
    """
    n = topology.n_widths

    def count(*wider: int) -> int:
        widths = [1 + (place in wider) for place in range(n)]
        spec = topology.spec(widths, 0.0, input_shape=input_shape, n_classes=n_classes)
        return parameter_count(spec)

    least = count()
    more = [count(place) - least for place in range(n)]
    pairs = [
        count(place, place + 1) - least - more[place] - more[place + 1] for place in range(n - 1)
    ]
    neighbours = [sum(pairs[max(0, place - 1) : place + 1]) for place in range(n)]
    singles = [each - others for each, others in zip(more, neighbours, strict=True)]
    return tuple(pairs), tuple(singles), least - sum(singles) - sum(pairs)
