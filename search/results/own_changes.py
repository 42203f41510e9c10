"""What an ablation changes of a network that a user's file builds: one suggestion at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from search.space.file_runs import distribution_of
from search_models.layers import SpecError
from search_models.own import OwnSpec, Value, named_file, value_text
from search_models.suggestions import Ask

_MOST_CHOICES = 4  # of one suggestion, besides the one that was drawn


def own_changes(spec: OwnSpec) -> Iterator[tuple[str, OwnSpec]]:
    """The network with another value of one suggestion, and what that is.

    A choice is each of the others, a number the two ends of its range. All widths that are scaled
    to the cap are halved together. What a change makes the file suggest besides has its lowest, or
    its first, value; a network that cannot be built is left out.

    Raises:
        FileNotNamedError: if the user has not named the file in this process.
    """
    values = dict(spec.values)
    asks = _asks(spec)
    for name, ask in asks.items():
        for value in _others(ask, values[name]):
            with suppress(SpecError):
                yield f"{name} {value_text(value)}", _with(spec, {**values, name: value})
    widths = {name: values[name] for name, ask in asks.items() if ask.is_width}
    if widths:
        half = {n: max(1, value // 2) for n, value in widths.items() if isinstance(value, int)}
        with suppress(SpecError):
            yield "half the width", _with(spec, {**values, **half})


def _asks(spec: OwnSpec) -> Mapping[str, Ask]:
    spec.build()  # tells where the file is not named, or builds another network
    file = named_file(spec.fingerprint)
    assert file is not None
    return file.asks_of(spec)


def _with(spec: OwnSpec, values: Mapping[str, Value]) -> OwnSpec:
    file = named_file(spec.fingerprint)
    assert file is not None
    return file.respecified(spec, values)


def _others(ask: Ask, value: Value) -> list[Value]:
    """The other values that are tried of a suggestion."""
    if ask.is_width:
        return []
    match distribution_of(ask):
        case CategoricalDistribution(choices=choices):
            return [choice for choice in choices if choice != value][:_MOST_CHOICES]
        case IntDistribution(low=low, high=high) | FloatDistribution(low=low, high=high):
            return [end for end in (low, high) if end != value]  # the last that a step meets
    return []
