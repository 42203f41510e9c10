"""Values of one space taken over into another: ranges, choices and the cap may differ."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from optuna.distributions import BaseDistribution

from search.space.distributions import first_value, highest, nearest
from search.space.file_space import FileSpace
from search.space.limits import OF_TRAINING
from search.space.space import Space
from search_models.layers import SpecError


def transfer_values(
    values: Mapping[str, Any],
    source: Space,
    target: Space,
    *,
    left_out: Collection[str] = (),
    largest_batch: int | None = None,
) -> dict[str, Any] | None:
    """The values in `target` that come nearest to `values` of `source`.

    What the source fixes counts like what it searches. A number is taken to the end of the
    target's range, or to the nearest choice; a text that is no choice there is left out, for a
    sampler to choose; what the target fixes stays so. The widths are those of the network, scaled
    down where it is over the target's cap.

    Args:
        left_out: names whose values say nothing of the target's images: they are those with which
            it begins, or open where it does not say.
        largest_batch: of the target's images.

    Returns:
        None where the topology is not in the target, or not to be had under its cap.
    """
    given, values = values, {**source.table, **values}
    values |= {name: _first(target.table[name]) for name in left_out}
    sizes = target.distributions.get("batch_size")
    if sizes is not None and largest_batch is not None:
        near = nearest(sizes, values["batch_size"])
        if near is not None and near > largest_batch:
            values["batch_size"] = highest(sizes, largest_batch)
    if isinstance(target, FileSpace):
        return _file_values(given, values, source, target)
    if isinstance(source, FileSpace):
        return None
    if source.is_design or target.is_design:
        return _design_values(values, source, target)
    theirs = _as_meant_by(target, source, values)
    topology = next((t for t in target.topologies() if _is_same(t, theirs["topology"])), None)
    if topology is None:
        return None
    found: dict[str, Any] = {name: target.lowest_width(name) for name in target.searched_widths()}
    for name, distribution in target.distributions.items():
        value = nearest(distribution, theirs.get(name))
        if value is not None:
            found[name] = value
    if "topology" in target.distributions:
        found["topology"] = topology
    try:
        found = target.shrink(found, keep=("topology",))
        return found if target.fits(target.spec(found)) else None
    except SpecError:  # for images or classes that it was not made for
        return None


def _first(entry: Any) -> Any:
    """The value with which a search begins, of what a table has; None where that is open."""
    return entry.get("first") if isinstance(entry, dict) else None


def _design_values(
    values: Mapping[str, Any], source: Space, target: Space
) -> dict[str, Any] | None:
    """Those of a design; None where the other space has none, or its network is over the cap."""
    if not (source.is_design and target.is_design):
        return None
    near = {name: nearest(kind, values.get(name)) for name, kind in target.distributions.items()}
    found = {name: value for name, value in near.items() if value is not None}
    is_whole = found.keys() == target.distributions.keys()  # what is open may be anything
    return None if is_whole and not target.fits(target.spec(found)) else found


def _file_values(
    given: Mapping[str, Any], values: Mapping[str, Any], source: Space, target: FileSpace
) -> dict[str, Any] | None:
    """Those of the training and, of what a file suggested, those that the target's does, too.

    None where that is all, and its network is over the cap or cannot be.
    """
    near = {name: nearest(kind, values.get(name)) for name, kind in target.distributions.items()}
    found = {name: value for name, value in near.items() if value is not None}
    if not isinstance(source, FileSpace):
        return found
    open_names = set(near.keys() - found.keys())

    def draw(name: str, kind: BaseDistribution) -> Any:
        open_names.add(name)
        return first_value(kind)

    own = {name: value for name, value in given.items() if name not in OF_TRAINING}
    suggested = target.complete(own, draw)
    found |= {name: value for name, value in own.items() if suggested.get(name) == value}
    try:
        return found if open_names or target.fits(target.spec({**suggested, **found})) else None
    except SpecError:  # for images or classes that it was not made for
        return None


def _as_meant_by(target: Space, source: Space, values: Mapping[str, Any]) -> dict[str, Any]:
    """Each name's value, searched or fixed, with the widths as the target means them."""
    value = dict(values)
    if source.scales_widths and not target.scales_widths:  # there they are channels
        widths = enumerate(source.widths(value), start=1)
        value.update({f"width_{i}": width for i, width in widths})
    cap = target.parameter_cap
    if cap is not None and target.scales_widths and not source.scales_widths:
        # There they are proportions.
        value["budget_share"] = (source.spec(values).parameter_count + 1) / cap
    return value


def _is_same(topology: str, other: str) -> bool:
    """Whether two notations differ in nothing but blanks."""
    return "".join(topology.split()) == "".join(other.split())
