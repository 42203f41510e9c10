"""A candidate over the cap scaled down to fit, and the smallest designs there are."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from optuna.distributions import CategoricalDistribution

from search.space.design import DESIGN_NAMES
from search.space.limits import as_choices, is_range

if TYPE_CHECKING:
    from search.space.space import Space


def shrunk(space: Space, values: Mapping[str, Any], keep: Collection[str]) -> dict[str, Any]:
    """As `Space.shrink` says."""

    def fits(candidate: Mapping[str, Any]) -> bool:
        return space.fits(space.spec(candidate))

    values = dict(values)
    is_open = "topology" in space.distributions and "topology" not in keep
    if is_open and not fits(space.smallest(values, keep=keep)):
        values["topology"] = min(
            space.topologies(), key=lambda text: space.smallest_count_of({"topology": text})
        )
    if space.scales_widths:  # they are as small as they can be
        return values
    for thousandths in range(1000, 0, -1):
        scaled = _scale_widths(space, values, thousandths / 1000, keep)
        if fits(scaled):
            return scaled
    return space.smallest(values, keep=keep)


def _scale_widths(
    space: Space, values: Mapping[str, Any], factor: float, keep: Collection[str]
) -> dict[str, Any]:
    scaled = dict(values)
    for name in space.searched_widths():
        if name in keep:
            continue
        target = max(round(values[name] * factor), space.lowest_width(name))
        distribution = space.distributions[name]
        if isinstance(distribution, CategoricalDistribution):
            choices = cast(tuple[int, ...], distribution.choices)
            target = max(choice for choice in choices if choice <= target)
        scaled[name] = target
    return scaled


def smallest_designs(table: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Of each kind of block, and number of pools, the design with the fewest blocks."""
    least = {
        name: value["low"] if is_range(value) else min(as_choices(value))
        for name in DESIGN_NAMES
        if name not in ("block", "pools")
        for value in [table[name]]
    }
    pools = table["pools"]
    counts = range(pools["low"], pools["high"] + 1) if is_range(pools) else as_choices(pools)
    for block, n_pools in itertools.product(as_choices(table["block"]), counts):
        yield {"block": block, "pools": n_pools, **least}
