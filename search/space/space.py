"""The search space: which hyperparameters are fixed, which are searched, and how far.

A space is a table of names, each fixed to a value, a choice from a list, or a range. It is
written as TOML, in a file or in code (`STANDARD`, `WIDE`)::

    batch_size = 128                                            # fixed
    optimizer = ["nesterov", "adamw"]                           # a choice
    learning_rate = { low = 0.02, high = 0.3, log = true }      # a range

A range may say with which value a search begins, as `first = 0.1`: the first trial has these, and
what other ranges and choices leave open is drawn.

A file states only what differs from `standard`, or from `wide` where it says `base = "wide"`.

The space is flat: each trial suggests every name that is searched, in the same order and with
the same distribution, and a width that its topology has no convolution for is ignored. So a
sampler can model all of them together.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol, cast, get_args

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from search.exceptions import SpaceError
from search.space.hyperparameters import (
    Augmentation,
    Constant,
    Cosine,
    Hyperparameters,
    OneCycle,
    OptimizerName,
    Schedule,
    StepDecay,
)
from search_models.size import parameter_count
from search_models.spec import Activation, ModelSpec, SpecError, Topology

Scalar = str | int | float
MAX_WIDTHS = 12
_AUGMENTATIONS = tuple(field.name for field in fields(Augmentation))
_OPEN_SHARE = {"low": 0.1, "high": 1.0, "log": True}
_LINE_WIDTH = 80  # columns of a space file, beyond which what a line is stands above it
_DROPOUT_DECIMALS = 4  # so that a network stays readable where it is written down


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a hyperparameter may be: its type, its limits (both allowed), and what it is.

    `silent` is its value in a table that does not name it, which one stored by an earlier version
    may not.
    """

    type: type[str] | type[int] | type[float]
    about: str
    low: float = -math.inf
    high: float = math.inf
    names: tuple[str, ...] = ()
    silent: str | float | None = None


_BELOW_ONE = math.nextafter(1.0, 0.0)
_KINDS: dict[str, _Kind] = {
    "topology": _Kind(str, "layers, with the searched widths and dropout rates left out"),
    **{
        f"width_{i}": _Kind(int, f"channels of open convolution {i}", 1, 4096)
        for i in range(1, MAX_WIDTHS + 1)
    },
    "budget_share": _Kind(
        float, "the widths are scaled to this share of the budget; 0: as drawn", 0, 1, silent=0.0
    ),
    "learning_rate": _Kind(float, "the peak of the schedule", 1e-8, 100),
    "momentum": _Kind(float, "of SGD; beta1 of Adam and AdamW", 0, _BELOW_ONE),
    "weight_decay": _Kind(float, "L2 penalty; decoupled for AdamW", 0, 10),
    "dropout": _Kind(float, "rate wherever the topology has an open drop", 0, 0.9),
    "rotation_degrees": _Kind(float, "augmentation: rotation by ± this", 0, 180),
    "translation": _Kind(float, "augmentation: shift by ± this share of the side", 0, 0.5),
    "scale": _Kind(float, "augmentation: change of size by ± this share", 0, 0.9),
    "shear_degrees": _Kind(float, "augmentation: shear by ± this", 0, 60),
    "elastic": _Kind(
        float,
        "augmentation: elastic distortion, standard deviation as a share of the side",
        0,
        0.25,
        silent=0.0,
    ),
    "optimizer": _Kind(str, "", names=("sgd", "nesterov", "adam", "adamw")),
    "schedule": _Kind(
        str, "of the learning rate", names=("one-cycle", "step", "cosine", "constant")
    ),
    "warmup_share": _Kind(float, "one-cycle: share of the steps with a rising rate", 0.01, 0.9),
    "step_share": _Kind(float, "step: share of the epochs between two drops", 0.01, 1),
    "step_gamma": _Kind(float, "step: factor of each drop", 1e-4, _BELOW_ONE),
    "batch_size": _Kind(int, "images a step", 1, 65536),
    "label_smoothing": _Kind(
        float, "share of each label spread over all classes", 0, _BELOW_ONE, silent=0.0
    ),
    "ema_epochs": _Kind(
        float, "epochs over which the weights are averaged; 0: not at all", 0, 1000, silent=0.0
    ),
    "final_augmentation": _Kind(
        float, "share of the augmentation's ranges that is left at the end", 0, 1, silent=1.0
    ),
    "activation": _Kind(
        str, "of each convolution that names none", names=get_args(Activation), silent="relu"
    ),
}

STANDARD = """\
topology = "c3, c3, drop, pool, c3, drop, pool, c3, c3, out+bias, gap"
width_1 = { low = 4, high = 20, first = 8 }
width_2 = { low = 4, high = 28, first = 12 }
width_3 = { low = 4, high = 32, first = 14 }
width_4 = { low = 4, high = 32, first = 16 }
width_5 = { low = 4, high = 32, first = 18 }
budget_share = 1.0
learning_rate = { low = 0.02, high = 0.3, log = true, first = 0.1 }
momentum = { low = 0.8, high = 0.98, first = 0.9 }
weight_decay = { low = 1e-6, high = 1e-3, log = true, first = 1e-4 }
dropout = { low = 0.0, high = 0.1, first = 0.02 }
rotation_degrees = { low = 0.0, high = 15.0, first = 7.0 }
translation = { low = 0.0, high = 0.1, first = 0.04 }
scale = { low = 0.0, high = 0.15, first = 0.08 }
shear_degrees = { low = 0.0, high = 10.0, first = 5.0 }
optimizer = "nesterov"
schedule = "one-cycle"
warmup_share = 0.2
step_share = 0.4
step_gamma = 0.1
batch_size = 128
"""

WIDE = """\
topology = [
    "c3, c3, drop, pool, c3, drop, pool, c3, c3, out+bias, gap",
    "c3, c3, c3, drop, pool, c3, c3, drop, c3, c3, gap, out",
    "c3p1, c3, drop, pool, c3p1, c3, drop, pool, c3p1, c3, gap, out",
    "c3p1, c3p1, drop, pool, c3p1, c3p1, drop, pool, c3p1, c3p1 10, gap",
    "c3p1, c3, drop, pool, c3, c3, c1, drop, pool, c3, c1, gap, out",
]
width_1 = { low = 4, high = 20 }
width_2 = { low = 4, high = 24 }
width_3 = { low = 4, high = 32 }
width_4 = { low = 4, high = 32 }
width_5 = { low = 4, high = 32 }
width_6 = { low = 4, high = 32 }
width_7 = { low = 4, high = 32 }
budget_share = 1.0
learning_rate = { low = 0.0005, high = 0.5, log = true }
momentum = { low = 0.5, high = 0.99 }
weight_decay = { low = 1e-7, high = 1e-2, log = true }
dropout = { low = 0.0, high = 0.3 }
rotation_degrees = { low = 0.0, high = 25.0 }
translation = { low = 0.0, high = 0.2 }
scale = { low = 0.0, high = 0.25 }
shear_degrees = { low = 0.0, high = 20.0 }
optimizer = ["nesterov", "adamw"]
schedule = ["one-cycle", "step", "cosine", "constant"]
warmup_share = { low = 0.05, high = 0.4 }
step_share = { low = 0.2, high = 0.8 }
step_gamma = { low = 0.05, high = 0.5, log = true }
batch_size = [32, 64, 128, 256, 512]
"""


class TrialLike(Protocol):
    """What `suggest` needs of a trial: Optuna's Trial, FrozenTrial and FixedTrial have it."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = ...) -> float: ...
    def suggest_int(self, name: str, low: int, high: int, *, log: bool = ...) -> int: ...
    def suggest_categorical(self, name: str, choices: Any) -> Any: ...


@dataclass(frozen=True)
class Space:
    """One search space for images of one shape.

    Args:
        name: `standard`, `wide`, or the path of the file it was read from.
        table: the value, choices or range of each hyperparameter, as TOML has them.
        parameter_cap: what `budget_share` is a share of; without it widths stay as they are drawn.

    Raises:
        SpaceError: if the table cannot be used.
    """

    name: str
    table: Mapping[str, Any]
    input_shape: tuple[int, int, int] = (1, 28, 28)
    n_classes: int = 10
    parameter_cap: int | None = None
    distributions: dict[str, BaseDistribution] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        distributions = {}
        silent = {key: kind.silent for key, kind in _KINDS.items() if kind.silent is not None}
        object.__setattr__(self, "table", {**silent, **self.table})
        for key in self.table:
            if key not in _KINDS:
                raise SpaceError(
                    f"{self.name}: unknown hyperparameter {key!r}; it must be one of "
                    f"{', '.join(_KINDS)}."
                )
        for key in _KINDS:  # in one order, whatever the file's
            if key in self.table:
                distribution = _distribution(self.name, key, self.table[key])
                if distribution is not None and self._has_effect(key):
                    distributions[key] = distribution
        object.__setattr__(self, "distributions", distributions)
        self._check_budget_share()
        self._check_topologies()

    @classmethod
    def load(
        cls,
        name: str,
        *,
        input_shape: tuple[int, int, int] = (1, 28, 28),
        n_classes: int = 10,
        parameter_cap: int | None = None,
    ) -> Space:
        """The built-in space of that name, or the one in the TOML file at that path.

        Raises:
            SpaceError: if it is neither, or the file cannot be used.
        """
        table = tomllib.loads(_BUILT_IN[name]) if name in _BUILT_IN else _read_file(name)
        return cls(name, table, input_shape, n_classes, parameter_cap)

    def suggest(self, trial: TrialLike) -> Hyperparameters:
        """The recipe of a trial: of a new one by suggesting, of a stored one by reading it back.

        Raises:
            SpecError: if the trial's network cannot exist.
        """
        values = {
            name: _suggest(trial, name, distribution)
            for name, distribution in self.distributions.items()
        }
        return self.hyperparameters(values)

    def hyperparameters(self, values: Mapping[str, Any]) -> Hyperparameters:
        """The recipe with those values of what is searched, and the fixed values of the rest."""
        value = {**self.table, **values}
        augmentation = Augmentation(
            rotation_degrees=float(value["rotation_degrees"]),
            translation=float(value["translation"]),
            scale=float(value["scale"]),
            shear_degrees=float(value["shear_degrees"]),
            elastic=float(value["elastic"]),
        )
        # Nothing shrinks where there is nothing; one value, so that equal recipes are equal.
        final = 1.0 if augmentation.is_identity else float(value["final_augmentation"])
        return Hyperparameters(
            spec=self.spec(values),
            learning_rate=float(value["learning_rate"]),
            optimizer=cast(OptimizerName, value["optimizer"]),
            momentum=float(value["momentum"]),
            weight_decay=float(value["weight_decay"]),
            schedule=_schedule(value),
            batch_size=value["batch_size"],
            augmentation=augmentation,
            label_smoothing=float(value["label_smoothing"]),
            ema_epochs=float(value["ema_epochs"]),
            final_augmentation=final,
        )

    def spec(self, values: Mapping[str, Any]) -> ModelSpec:
        """The network alone of `hyperparameters(values)`; with ReLU where they leave that open."""
        value = {**self.table, **values}
        topology = _topology(value["topology"])
        activation = value["activation"]
        return topology.spec(
            self._widths(value),
            round(float(value["dropout"]), _DROPOUT_DECIMALS) if topology.has_open_dropout else 0.0,
            input_shape=self.input_shape,
            n_classes=self.n_classes,
            activation=cast(Activation, activation) if isinstance(activation, str) else "relu",
        )

    def _widths(self, value: Mapping[str, Any]) -> tuple[int, ...]:
        """The channels of the open convolutions, from each name's value."""
        topology = _topology(value["topology"])
        widths = tuple(value[f"width_{i + 1}"] for i in range(topology.n_widths))
        limit = self._limit(value)
        if not limit:
            return widths
        return _scale_to(limit, topology, widths, self.input_shape, self.n_classes)

    def recipe(self, values: Mapping[str, Any]) -> Hyperparameters | None:
        """`hyperparameters(values)`, or None where its network cannot exist."""
        try:
            return self.hyperparameters(values)
        except SpecError:  # a topology for larger images, say
            return None

    def with_single(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """`values` with those that Optuna does not sample because they have no alternative."""
        single: dict[str, Any] = {
            name: optuna.distributions._get_single_value(distribution)
            for name, distribution in self.distributions.items()
            if distribution.single()
        }
        return {**single, **values}

    def first(self, parameter_cap: int) -> dict[str, Any]:
        """The values with which a search begins; none where their network is over the cap."""
        values = {
            name: self.table[name]["first"]
            for name in self.distributions
            if isinstance(self.table[name], dict) and "first" in self.table[name]
        }
        if values.keys() == self.distributions.keys():
            recipe = self.recipe(values)
            if recipe is None or parameter_count(recipe.spec) >= parameter_cap:
                return {}
        return values

    def n_combinations(self) -> float:
        """How many combinations there are of what is searched; infinite with a float range."""
        return math.prod(map(_n_values, self.distributions.values()))

    def combinations(self) -> Iterator[dict[str, Any]]:
        """All combinations of what is searched, of which there must be a finite number."""
        for values in itertools.product(*map(_all_values, self.distributions.values())):
            yield dict(zip(self.distributions, values, strict=True))

    @property
    def scales_widths(self) -> bool:
        """Whether every candidate's widths are scaled to a share of the cap."""
        return self.parameter_cap is not None and (
            "budget_share" in self.distributions or self.table["budget_share"] > 0
        )

    def _limit(self, value: Mapping[str, Any]) -> int:
        """The most parameters that the widths are scaled to; 0 where they stay as they are."""
        if not self.scales_widths or self.parameter_cap is None:
            return 0
        return max(1, math.ceil(self.parameter_cap * float(value["budget_share"])) - 1)

    def smallest(self, values: Mapping[str, Any], *, keep: Collection[str] = ()) -> dict[str, Any]:
        """`values` with every searched width at its lower end, besides those to keep."""
        lowest = {
            name: self._lowest_width(name) for name in self._searched_widths() if name not in keep
        }
        return {**values, **lowest}

    def smallest_count(self) -> int:
        """The parameter count of the smallest network in the space."""
        return min(self._smallest_count_of(topology) for topology in self._topologies())

    def shrink(
        self, values: Mapping[str, Any], parameter_cap: int, *, keep: Collection[str] = ()
    ) -> dict[str, Any]:
        """`values` with the widths scaled down, all by one factor, to fit under the cap.

        The factor is the largest that fits, to within a thousandth, and no width leaves its
        range. Where a topology does not fit at all, the smallest of the space takes its place.
        Where nothing fits beside what is to be kept, the result is the smallest there is.

        Args:
            keep: names whose values stay as they are.
        """

        def fits(candidate: Mapping[str, Any]) -> bool:
            return parameter_count(self.spec(candidate)) < parameter_cap

        values = dict(values)
        is_open = "topology" in self.distributions and "topology" not in keep
        if is_open and not fits(self.smallest(values, keep=keep)):
            values["topology"] = min(self._topologies(), key=self._smallest_count_of)
        if self.scales_widths:  # they are as small as they can be
            return values
        for thousandths in range(1000, 0, -1):
            scaled = self._scale_widths(values, thousandths / 1000, keep)
            if fits(scaled):
                return scaled
        return self.smallest(values, keep=keep)

    def nearest(
        self, values: Mapping[str, Any], other: Space, parameter_cap: int
    ) -> dict[str, Any] | None:
        """The values here that come nearest to `values` of another space.

        What the other space fixes counts like what it searches. A number is taken to the end of
        the range here, or to the nearest choice; a text that is no choice here is left out, for a
        sampler to choose; what this space fixes stays so. The widths are those of the network,
        scaled down where it is over the cap.

        Returns:
            None where the topology is not in this space, or not to be had under the cap.
        """
        theirs = other._as_seen_by(self, values, parameter_cap)
        topology = next((t for t in self._topologies() if _is_same(t, theirs["topology"])), None)
        if topology is None:
            return None
        found: dict[str, Any] = {name: self._lowest_width(name) for name in self._searched_widths()}
        for name, distribution in self.distributions.items():
            value = _nearest(distribution, theirs.get(name))
            if value is not None:
                found[name] = value
        if "topology" in self.distributions:
            found["topology"] = topology
        try:
            found = self.shrink(found, parameter_cap, keep=("topology",))
            return found if parameter_count(self.spec(found)) < parameter_cap else None
        except SpecError:  # for images or classes that it was not made for
            return None

    def _as_seen_by(
        self, other: Space, values: Mapping[str, Any], parameter_cap: int
    ) -> dict[str, Any]:
        """Each name's value, searched or fixed, with the widths as the other space means them."""
        value = {**self.table, **values}
        if self.scales_widths and not other.scales_widths:  # there they are channels
            widths = enumerate(self._widths(value), start=1)
            value.update({f"width_{i}": width for i, width in widths})
        if other.scales_widths and not self.scales_widths:  # there they are proportions
            value["budget_share"] = (parameter_count(self.spec(values)) + 1) / parameter_cap
        return value

    def text(self) -> str:
        """A space file with every value of this space."""
        return "".join(f"{name} = {toml_value(value)}\n" for name, value in self.table.items())

    @property
    def is_built_in(self) -> bool:
        """Whether its name alone gives it; a built-in space may change from version to version."""
        if self.name not in _BUILT_IN:
            return False
        built_in = replace(self, table=Space.load(self.name).table)
        return self.table in (built_in.table, built_in.with_open_size().table)

    def with_open_size(self) -> Space:
        """The space with networks of all sizes: a fixed share of the budget becomes a range."""
        if isinstance(self.table["budget_share"], dict | list) or self.table["budget_share"] == 0:
            return self
        return replace(self, table={**self.table, "budget_share": dict(_OPEN_SHARE)})

    def check_fits(self, parameter_cap: int) -> None:
        """Raises SpaceError where even the smallest network has `parameter_cap` parameters."""
        smallest = self.smallest_count()
        if smallest >= parameter_cap:
            raise SpaceError(
                f"A network must have fewer parameters than the budget, but the budget is "
                f"{parameter_cap:,} and the smallest network of the space {self.name} has "
                f"{smallest:,}; take a budget of {smallest + 1:,} or more, or a space with "
                "smaller widths."
            )

    def smallest_batch(self) -> int:
        """The fewest images that a recipe of the space has in a batch."""
        sizes = self.table["batch_size"]
        return int(sizes["low"] if isinstance(sizes, dict) else min(_choices(sizes)))

    def refuse(self, values: Mapping[str, Any]) -> str | None:
        """Why hand-made `values` cannot be tried in this space, or None where they can."""
        for name, value in values.items():
            distribution = self.distributions.get(name)
            if distribution is None:
                return f"{name} is not searched in this space"
            if not _is_inside(distribution, value):
                return f"{name} = {value!r} is outside its range in this space"
        return None

    def _has_effect(self, key: str) -> bool:
        """Whether any recipe of the space can depend on a name: to search it would be a waste."""
        schedules = _choices(self.table.get("schedule"))
        match key.rpartition("_"):
            case ("width", _, number):
                return any(_n_widths(text) >= int(number) for text in self._topologies())
            case ("step", _, _):
                return "step" in schedules
        if key == "warmup_share":
            return "one-cycle" in schedules
        if key == "final_augmentation":
            return any(map(self._can_be_positive, _AUGMENTATIONS))
        if key == "dropout":
            return any(_has_open_dropout(text) for text in self._topologies())
        if key == "activation":
            return any(_has_open_activation(text) for text in self._topologies())
        return True

    def _can_be_positive(self, key: str) -> bool:
        value = self.table.get(key)
        if isinstance(value, dict):
            return value.get("high") != 0
        return any(choice != 0 for choice in _choices(value))

    def _smallest_count_of(self, topology: str) -> int:
        values = self.smallest({"topology": topology, "dropout": 0.0})
        if self.scales_widths:
            values["budget_share"] = 0.0  # down to one channel each
        return parameter_count(self.spec(values))

    def _topologies(self) -> list[str]:
        return [text for text in _choices(self.table.get("topology")) if isinstance(text, str)]

    def _searched_widths(self) -> list[str]:
        return [name for name in self.distributions if name.startswith("width_")]

    def _lowest_width(self, name: str) -> int:
        distribution = self.distributions[name]
        if isinstance(distribution, IntDistribution):
            return distribution.low
        assert isinstance(distribution, CategoricalDistribution)
        return min(cast(tuple[int, ...], distribution.choices))

    def _scale_widths(
        self, values: Mapping[str, Any], factor: float, keep: Collection[str]
    ) -> dict[str, Any]:
        scaled = dict(values)
        for name in self._searched_widths():
            if name in keep:
                continue
            target = max(round(values[name] * factor), self._lowest_width(name))
            distribution = self.distributions[name]
            if isinstance(distribution, CategoricalDistribution):
                choices = cast(tuple[int, ...], distribution.choices)
                target = max(choice for choice in choices if choice <= target)
            scaled[name] = target
        return scaled

    def _check_budget_share(self) -> None:
        share = self.table["budget_share"]
        lowest = share["low"] if isinstance(share, dict) else min(_choices(share))
        if lowest == 0 and "budget_share" in self.distributions:
            raise SpaceError(
                f"{self.name}: budget_share: 0, for widths as they are drawn, must stand alone, "
                f"but got {share!r}."
            )

    def _check_topologies(self) -> None:
        missing = [key for key in _KINDS if not key.startswith("width_") and key not in self.table]
        if missing:
            raise SpaceError(f"{self.name}: {missing[0]} is missing.")
        for text in self._topologies():
            try:
                n_widths = _topology(text).n_widths
                if n_widths > MAX_WIDTHS:
                    raise SpecError(f"a topology has at most {MAX_WIDTHS} open widths")
                for i in range(1, n_widths + 1):
                    if f"width_{i}" not in self.table:
                        raise SpecError(f"width_{i} is missing: '{text}' has {n_widths}")
                self._smallest_count_of(text)
            except SpecError as error:
                raise SpaceError(f"{self.name}: topology: {error}") from error


def _choices(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _n_widths(topology: str) -> int:
    try:
        return _topology(topology).n_widths
    except SpecError:
        return 0  # refused later, with the reason


def _has_open_dropout(topology: str) -> bool:
    try:
        return _topology(topology).has_open_dropout
    except SpecError:
        return False  # refused later, with the reason


def _has_open_activation(topology: str) -> bool:
    try:
        return _topology(topology).has_open_activation
    except SpecError:
        return False  # refused later, with the reason


_topology = functools.lru_cache(maxsize=256)(Topology)


@functools.lru_cache(maxsize=4096)
def _scale_to(
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
        spec = topology.spec(scaled(factor), 0.0, input_shape=input_shape, n_classes=n_classes)
        return parameter_count(spec) <= limit

    if not widths:
        return widths
    low, high = 0.0, 1.0
    while fits(high) and max(scaled(high)) < limit:  # a convolution has more weights than channels
        low, high = high, 2 * high
    while (high - low) * max(widths, default=1) > 1e-3:
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return scaled(low)


_BUILT_IN = {"standard": STANDARD, "wide": WIDE}


def _schedule(value: Mapping[str, Any]) -> Schedule:
    match value["schedule"]:
        case "one-cycle":
            return OneCycle(warmup_share=float(value["warmup_share"]))
        case "step":
            return StepDecay(float(value["step_share"]), gamma=float(value["step_gamma"]))
        case "cosine":
            return Cosine()
        case _:
            return Constant()


def _is_inside(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a value that was made by hand has the type and range of its distribution."""
    match distribution:
        case IntDistribution(low=low, high=high):
            return type(value) is int and low <= value <= high
        case FloatDistribution(low=low, high=high):
            return type(value) in (int, float) and low <= value <= high
        case CategoricalDistribution(choices=choices):
            return any(value == choice and type(value) is type(choice) for choice in choices)
    return False


def _n_values(distribution: BaseDistribution) -> float:
    match distribution:
        case IntDistribution(low=low, high=high):
            return high - low + 1
        case CategoricalDistribution(choices=choices):
            return len(choices)
    return math.inf


def _all_values(distribution: BaseDistribution) -> Sequence[Any]:
    match distribution:
        case IntDistribution(low=low, high=high):
            return range(low, high + 1)
        case CategoricalDistribution(choices=choices):
            return choices
    raise TypeError(distribution)


def _is_same(topology: str, other: str) -> bool:
    """Whether two notations differ in nothing but blanks."""
    return "".join(topology.split()) == "".join(other.split())


def _nearest(distribution: BaseDistribution, value: Any) -> Any:
    """The value of a distribution that is nearest to another one; None where none is near."""
    match distribution:
        case CategoricalDistribution(choices=choices) if isinstance(value, str):
            return value if value in choices else None
        case CategoricalDistribution(choices=choices) if isinstance(value, int | float):
            return min(cast(tuple[float, ...], choices), key=lambda choice: abs(choice - value))
        case FloatDistribution(low=low, high=high) if isinstance(value, int | float):
            return min(max(float(value), low), high)
        case IntDistribution(low=low, high=high) if isinstance(value, int | float):
            return min(max(round(value), low), high)
    return None  # the other space has no value, or a range that none of its recipes depends on


def _suggest(trial: TrialLike, name: str, distribution: BaseDistribution) -> Any:
    match distribution:
        case FloatDistribution(low=low, high=high, log=log):
            return trial.suggest_float(name, low, high, log=log)
        case IntDistribution(low=low, high=high, log=log):
            return trial.suggest_int(name, low, high, log=log)
        case CategoricalDistribution(choices=choices):
            return trial.suggest_categorical(name, choices)
    raise TypeError(distribution)


def _read_file(name: str) -> dict[str, Any]:
    path = Path(name)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SpaceError(
            f"A space must be one of {', '.join(_BUILT_IN)} or a TOML file, but there is no file "
            f"{name!r}; 'search space > my-space.toml' writes one to start from."
        ) from error
    except OSError as error:
        raise SpaceError(f"{name}: the file cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:  # no text, no TOML, no path, or too deep
        raise SpaceError(f"{name}: the file must be TOML, but {error}.") from error
    base = table.pop("base", "standard")
    if not isinstance(base, str) or base not in _BUILT_IN:
        raise SpaceError(f"{name}: base must be one of {', '.join(_BUILT_IN)}, but got {base!r}.")
    return {**tomllib.loads(_BUILT_IN[base]), **table}


def _distribution(space: str, key: str, value: Any) -> BaseDistribution | None:
    """The distribution of what `value` searches; None where it fixes a value."""
    kind = _KINDS[key]

    def fail(why: str) -> SpaceError:
        return SpaceError(f"{space}: {key}: {why}")

    if isinstance(value, dict):
        return _range(kind, value, fail)
    if isinstance(value, list):
        if not value:
            raise fail("a choice must have at least one value, but got [].")
        for choice in value:
            _check_value(kind, choice, fail)
        if len(set(value)) < len(value):
            raise fail(f"a choice must name each value once, but got {value!r}.")
        return CategoricalDistribution(value)
    _check_value(kind, value, fail)
    return None


def _check_value(kind: _Kind, value: Any, fail: Callable[[str], SpaceError]) -> None:
    allowed = (int, float) if kind.type is float else kind.type
    if not isinstance(value, allowed) or isinstance(value, bool):
        names = {str: "text", int: "a whole number", float: "a number"}
        raise fail(f"must be {names[kind.type]}, but got {value!r}.")
    if kind.names and value not in kind.names:
        raise fail(f"must be one of {', '.join(kind.names)}, but got {value!r}.")
    if not isinstance(value, str) and not kind.low <= value <= kind.high:
        raise fail(f"must be in {kind.low:g} to {kind.high:g}, but got {value!r}.")


def _range(
    kind: _Kind, value: dict[str, Any], fail: Callable[[str], SpaceError]
) -> BaseDistribution:
    if kind.type is str:
        raise fail(f"must be a text or a list of texts, but got {value!r}.")
    if not {"low", "high"} <= set(value) <= {"low", "high", "log", "first"}:
        raise fail(f"a range has low, high and, where wanted, log and first, but got {value!r}.")
    low, high, log = value["low"], value["high"], value.get("log", False)
    for bound in (low, high):
        _check_value(kind, bound, fail)
    if not isinstance(log, bool):
        raise fail(f"log must be true or false, but got {log!r}.")
    if not low < high:
        raise fail(f"low < high must hold, but got low = {low!r}, high = {high!r}.")
    if log and low <= 0:
        raise fail(f"low > 0 must hold for a log range, but got low = {low!r}.")
    first = value.get("first", low)
    _check_value(kind, first, fail)
    if not low <= first <= high:
        raise fail(f"low <= first <= high must hold, but got first = {first!r}.")
    if kind.type is int:
        return IntDistribution(low, high, log=log)
    return FloatDistribution(low, high, log=log)


def toml_value(value: Any) -> str:
    """A value as a space file writes it."""
    if isinstance(value, dict):
        pairs = (f"{key} = {toml_value(each)}" for key, each in value.items())
        return f"{{ {', '.join(pairs)} }}"
    return json.dumps(value, ensure_ascii=False)


def to_toml(name: str) -> str:
    """A built-in space as the text of a space file, with what each line is.

    Raises:
        SpaceError: if there is none of that name.
    """
    if name not in _BUILT_IN:
        raise SpaceError(f"A built-in space must be one of {', '.join(_BUILT_IN)}, not {name!r}.")
    head = [
        f'# The search space "{name}". A value fixes a hyperparameter, a list chooses, a table',
        "# { low, high, log } is a range. What is left out is taken from the base.",
        f'base = "{name}"',
    ]
    lines = []
    for line in _BUILT_IN[name].splitlines():
        about = _KINDS[line.split(" = ")[0]].about if " = " in line and line[0] != " " else ""
        if about and len(f"{line}  # {about}") > _LINE_WIDTH:
            lines += [f"# {about}", line]
        else:
            lines.append(f"{line}  # {about}" if about else line)
    return "\n".join(itertools.chain(head, [""], lines)) + "\n"
