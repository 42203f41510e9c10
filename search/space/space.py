"""The search space: which hyperparameters are fixed, which are searched, and how far.

A space is a table of names, each fixed to a value, a choice from a list, or a range. It is
written as TOML, in a file or in `search.space.toml`::

    batch_size = 128                                            # fixed
    optimizer = ["nesterov", "adamw"]                           # a choice
    learning_rate = { low = 0.02, high = 0.3, log = true }      # a range

A range may say with which value a search begins, as `first = 0.1`: the first trial has these, and
what other ranges and choices leave open is drawn.

A file states only what differs from `standard`, or from the built-in space that it names as its
`base`.

The network is one of several topologies, with its widths, or, where a table has no topology, a
design (`search.space.design`), whose widths are always scaled.

The space is flat: each trial suggests every name that is searched, in the same order and with
the same distribution, and a width that its topology has no convolution for is ignored. So a
sampler can model all of them together.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from search.exceptions import SpaceError
from search.space.adaptive import EPOCHS, N_TRAINING, Situation
from search.space.design import topology_and_widths
from search.space.distributions import (
    TrialLike,
    all_values,
    is_inside,
    n_values,
    single_value,
    suggest_value,
)
from search.space.effects import has_effect
from search.space.hyperparameters import (
    Augmentation,
    Hyperparameters,
    OptimizerName,
    schedule_of,
)
from search.space.limits import KINDS, as_choices, is_range, make_distribution
from search.space.shrink import shrunk, smallest_designs
from search.space.table_checks import check_budget_share, check_names, check_topologies
from search.space.toml import ADAPTIVE, BUILT_IN, built_in_table, read_file, toml_value
from search.space.topologies import parse_topology, topologies_of
from search.space.widths import count_with, fill_to, scale_to
from search_models.layers import Activation, SpecError
from search_models.network import Network
from search_models.spec import Topology

_OPEN_SHARE = {"low": 0.1, "high": 1.0, "log": True}
_DROPOUT_DECIMALS = 4  # so that a network stays readable where it is written down


@dataclass(frozen=True)
class Space:
    """One search space for images of one shape.

    Args:
        name: `standard`, `wide`, or the path of the file it was read from.
        table: the value, choices or range of each hyperparameter, as TOML has them.
        parameter_cap: a network must have fewer parameters; `budget_share` is a share of it.
            Without it all networks fit, and widths stay as they are drawn.

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
        silent = {key: kind.silent for key, kind in KINDS.items() if kind.silent is not None}
        object.__setattr__(self, "table", {**silent, **self.table})
        check_names(self.name, self.table)
        for key in KINDS:  # in one order, whatever the file's
            if key in self.table:
                distribution = make_distribution(self.name, key, self.table[key])
                if distribution is not None and has_effect(self.table, key):
                    distributions[key] = distribution
        object.__setattr__(self, "distributions", distributions)
        check_budget_share(self.name, self.table)
        check_topologies(self.name, self.table, self.smallest_count_of)

    @classmethod
    def load(
        cls,
        name: str,
        *,
        input_shape: tuple[int, int, int] = (1, 28, 28),
        n_classes: int = 10,
        parameter_cap: int | None = None,
        n_training: int = N_TRAINING,
        epochs: int = EPOCHS,
    ) -> Space:
        """The built-in space of that name, or the one in the TOML file at that path.

        Args:
            n_training, epochs: what `adaptive` adapts to, besides the images and the cap.

        Raises:
            SpaceError: if it is neither, or the file cannot be used.
        """
        situation = Situation(input_shape, n_training, epochs, parameter_cap)
        read = built_in_table if name in BUILT_IN else read_file
        table = read(name, situation)
        return cls(name, table, input_shape, n_classes, parameter_cap)

    def suggest(self, trial: TrialLike) -> Hyperparameters:
        """The recipe of a trial: of a new one by suggesting, of a stored one by reading it back.

        Raises:
            SpecError: if the trial's network cannot exist.
        """
        values = {
            name: suggest_value(trial, name, distribution)
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
            flip=float(value["flip"]),
        )
        # Nothing shrinks where there is nothing; one value, so that equal recipes are equal.
        final = 1.0 if augmentation.is_identity else float(value["final_augmentation"])
        return Hyperparameters(
            spec=self.spec(values),
            learning_rate=float(value["learning_rate"]),
            optimizer=cast(OptimizerName, value["optimizer"]),
            momentum=float(value["momentum"]),
            weight_decay=float(value["weight_decay"]),
            schedule=schedule_of(value),
            batch_size=value["batch_size"],
            augmentation=augmentation,
            label_smoothing=float(value["label_smoothing"]),
            ema_epochs=float(value["ema_epochs"]),
            final_augmentation=final,
        )

    def spec(self, values: Mapping[str, Any]) -> Network:
        """The network alone of `hyperparameters(values)`; with ReLU where they leave that open."""
        value = {**self.table, **values}
        topology, _ = self._drawn(value)
        activation = value["activation"]
        return topology.spec(
            self.widths(value),
            round(float(value["dropout"]), _DROPOUT_DECIMALS) if topology.has_open_dropout else 0.0,
            input_shape=self.input_shape,
            n_classes=self.n_classes,
            activation=cast(Activation, activation) if isinstance(activation, str) else "relu",
        )

    def widths(self, value: Mapping[str, Any]) -> tuple[int, ...]:
        """The channels of the open convolutions, from each name's value."""
        topology, widths = self._drawn(value)
        limit = self._limit(value)
        if not limit:
            return widths
        scaled = fill_to if self.is_design else scale_to
        return scaled(limit, topology, widths, self.input_shape, self.n_classes)

    @property
    def is_design(self) -> bool:
        """Whether its networks are designs, and not of topologies that it names."""
        return "topology" not in self.table

    def _drawn(self, value: Mapping[str, Any]) -> tuple[Topology, tuple[int, ...]]:
        """The topology that values name or make, and the widths of it as they are drawn."""
        if self.is_design:
            notation, widths = topology_and_widths(value, self.input_shape)
            return parse_topology(notation), widths
        topology = parse_topology(value["topology"])
        return topology, tuple(value[f"width_{i + 1}"] for i in range(topology.n_widths))

    def count(self, values: Mapping[str, Any]) -> int:
        """The parameters of the network of `spec(values)`, which is not built for it."""
        value = {**self.table, **values}
        topology, _ = self._drawn(value)
        return count_with(topology, self.widths(value), self.input_shape, self.n_classes)

    def hyperparameters_or_none(self, values: Mapping[str, Any]) -> Hyperparameters | None:
        """`hyperparameters(values)`, or None where its network cannot exist."""
        try:
            return self.hyperparameters(values)
        except SpecError:  # a topology for larger images, say
            return None

    @property
    def is_open(self) -> bool:
        """Whether a trial may have values of names that are in no distribution."""
        return False

    def complete(
        self, values: Mapping[str, Any], draw: Callable[[str, BaseDistribution], Any]
    ) -> dict[str, Any]:
        """All values of a candidate, from those of the space's distributions.

        Args:
            draw: gives a value where only the candidate itself tells what else it needs.
        """
        return self.with_single(values)

    def recall(self, trial: TrialLike, recipe: Mapping[str, Any] | None) -> Hyperparameters:
        """The recipe of a stored trial.

        Args:
            recipe: as it was stored with the trial, where that was done.

        Raises:
            ValueError: if the trial ended before it had one.
        """
        return self.suggest(trial)

    def could_be(self, params: Mapping[str, Any], count: int) -> bool:
        """Whether a network with such values can have so many parameters."""
        try:
            return params.keys() == self.distributions.keys() and self.count(params) == count
        except SpecError:
            return False

    def foreign_names(self, params: Collection[str]) -> set[str]:
        """Names of a trial's values that no trial of this space has."""
        return set(params) - set(self.distributions)

    def network_words(self) -> str:
        """What networks it has, in words."""
        return f"networks from {self.smallest_count():,} parameters"

    def with_single(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """`values` with those that Optuna does not sample because they have no alternative."""
        single: dict[str, Any] = {
            name: single_value(distribution)
            for name, distribution in self.distributions.items()
            if distribution.single()
        }
        return {**single, **values}

    def first(self) -> dict[str, Any]:
        """The values with which a search begins; none where their network is over the cap."""
        values = {
            name: self.table[name]["first"]
            for name in self.distributions
            if isinstance(self.table[name], dict) and "first" in self.table[name]
        }
        if values.keys() == self.distributions.keys():
            hyperparameters = self.hyperparameters_or_none(values)
            if hyperparameters is None or not self.fits(hyperparameters.spec):
                return {}
        return values

    def n_combinations(self) -> float:
        """How many combinations there are of what is searched; infinite with a float range."""
        return math.prod(map(n_values, self.distributions.values()))

    def combinations(self) -> Iterator[dict[str, Any]]:
        """All combinations of what is searched, of which there must be a finite number."""
        for values in itertools.product(*map(all_values, self.distributions.values())):
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
            name: self.lowest_width(name) for name in self.searched_widths() if name not in keep
        }
        return {**values, **lowest}

    def smallest_count(self) -> int:
        """The parameter count of the smallest network in the space."""
        if self.is_design:
            return min(map(self.smallest_count_of, smallest_designs(self.table)))
        return min(self.smallest_count_of({"topology": text}) for text in self.topologies())

    def fits(self, spec: Network) -> bool:
        """Whether a network is under the cap."""
        return self.parameter_cap is None or spec.parameter_count < self.parameter_cap

    def shrink(self, values: Mapping[str, Any], *, keep: Collection[str] = ()) -> dict[str, Any]:
        """`values` with the widths scaled down, all by one factor, to fit under the cap.

        The factor is the largest that fits, to within a thousandth, and no width leaves its
        range. Where a topology does not fit at all, the smallest of the space takes its place.
        Where nothing fits beside what is to be kept, the result is the smallest there is.

        Args:
            keep: names whose values stay as they are.
        """
        return shrunk(self, values, keep)

    def text(self) -> str:
        """A space file with every value of this space."""
        # The one base that has designs, and that adds no width to a topology which names fewer.
        lines = {"base": ADAPTIVE, **self.table}.items()
        return "".join(f"{name} = {toml_value(value)}\n" for name, value in lines)

    @property
    def is_built_in(self) -> bool:
        """Whether its name alone gives it; a built-in space may change from version to version."""
        if self.name not in BUILT_IN:
            return False
        if self.name == ADAPTIVE:
            return True  # as it was when the study began, which goes on with that
        built_in = replace(self, table=Space.load(self.name).table)
        return self.table in (built_in.table, built_in.with_open_size().table)

    def with_open_size(self) -> Space:
        """The space with networks of all sizes: a fixed share of the budget becomes a range."""
        if isinstance(self.table["budget_share"], dict | list) or self.table["budget_share"] == 0:
            return self
        return replace(self, table={**self.table, "budget_share": dict(_OPEN_SHARE)})

    def check_fits(self) -> None:
        """Raises SpaceError where not even the smallest network is under the cap."""
        smallest = self.smallest_count()
        if self.parameter_cap is not None and smallest >= self.parameter_cap:
            raise SpaceError(
                f"A network must have fewer parameters than the budget, but the budget is "
                f"{self.parameter_cap:,} and the smallest network of the space {self.name} has "
                f"{smallest:,}; take a budget of {smallest + 1:,} or more, or a space with "
                "smaller widths."
            )

    def largest_batch(self) -> int:
        """The most images that a recipe of the space has in a batch."""
        sizes = self.table["batch_size"]
        return int(sizes["high"] if is_range(sizes) else max(as_choices(sizes)))

    def invalid_reason(self, values: Mapping[str, Any]) -> str | None:
        """Why hand-made `values` cannot be tried in this space, or None where they can."""
        for name, value in values.items():
            distribution = self.distributions.get(name)
            if distribution is None:
                return f"{name} is not searched in this space"
            if not is_inside(distribution, value):
                return f"{name} = {value!r} is outside its range in this space"
        return None

    def smallest_count_of(self, values: Mapping[str, Any]) -> int:
        """The parameter count of the smallest network with such a topology or design."""
        values = self.smallest({**values, "dropout": 0.0})
        if self.scales_widths:
            values["budget_share"] = 0.0  # down to one channel each
        return self.spec(values).parameter_count

    def topologies(self) -> list[str]:
        """The notations of its topologies, of which it may have one or several."""
        return topologies_of(self.table)

    def searched_widths(self) -> list[str]:
        """The names of the widths that are searched."""
        return [name for name in self.distributions if name.startswith("width_")]

    def lowest_width(self, name: str) -> int:
        """The lower end of a searched width's range, or its smallest choice."""
        distribution = self.distributions[name]
        if isinstance(distribution, IntDistribution):
            return distribution.low
        assert isinstance(distribution, CategoricalDistribution)
        return min(cast(tuple[int, ...], distribution.choices))
