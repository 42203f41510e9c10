"""The space of a user's own networks: how they are trained, and what their file suggests.

How a network is trained is a table, as that of any space. What builds it is a function of the
user's (`search.space.file_runs`): this one space is not flat.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution

from search.exceptions import SpaceError
from search.space.adaptive import EPOCHS, N_TRAINING, Situation
from search.space.distributions import TrialLike, is_inside, single_value, suggest_value
from search.space.effects import has_effect
from search.space.file_runs import FileRuns, Made
from search.space.hyperparameters import Hyperparameters
from search.space.limits import KINDS, OF_NETWORKS, OF_TRAINING, make_distribution
from search.space.space import Space
from search.space.toml import ADAPTIVE, BUILT_IN, built_in_table, encoding_of, read_file
from search_models.own import (
    FileNotNamedError,
    NetworkSource,
    OwnNetworkError,
    OwnSpec,
    named_file,
)


@dataclass(frozen=True)
class FileSpace(Space):
    """One search space for the networks of a user's file.

    Args:
        table: of the training's hyperparameters alone, but for those that the file takes over.
        source: the file; of one that is only read from a study, it is never run.

    Raises:
        SpaceError: if the table cannot be used.
    """

    source: NetworkSource = field(kw_only=True)
    _runs: list[FileRuns] = field(init=False, repr=False, compare=False, default_factory=list)

    def __post_init__(self) -> None:
        silent = {k: KINDS[k].silent for k in OF_TRAINING if KINDS[k].silent is not None}
        table = {**silent, **self.table}
        for key in table:
            if key not in OF_TRAINING:
                raise SpaceError(
                    f"{self.name}: {key} must not be said in the space of a file's networks, which "
                    f"{self.source.name} builds; take it out."
                )
        distributions = {}
        for key in OF_TRAINING:
            if key in table:
                distribution = make_distribution(self.name, key, table[key])
                if distribution is not None and has_effect(table, key):
                    distributions[key] = distribution
        object.__setattr__(self, "table", table)
        object.__setattr__(self, "distributions", distributions)

    @classmethod
    def load_for(
        cls,
        name: str,
        source: NetworkSource,
        *,
        input_shape: tuple[int, int, int] = (1, 28, 28),
        n_classes: int = 10,
        parameter_cap: int | None = None,
        n_training: int = N_TRAINING,
        epochs: int = EPOCHS,
    ) -> FileSpace:
        """How the networks of a file are trained: as in the space of that name or TOML file.

        Raises:
            SpaceError: if there is no such space, or a file of one says what networks are.
        """
        situation = Situation(input_shape, n_training, epochs, parameter_cap)
        read = built_in_table if name in BUILT_IN else read_file
        if name not in BUILT_IN:
            _check_own(name, source)
        table = {k: v for k, v in read(name, situation).items() if k in OF_TRAINING}
        return cls(name, table, input_shape, n_classes, parameter_cap, source=source)

    @property
    def runs(self) -> FileRuns:
        """The loaded file, run for these images.

        Raises:
            FileNotNamedError: if the user has not named it in this process.
        """
        file = named_file(self.source.fingerprint)
        if file is None:
            raise FileNotNamedError(f"The file {self.source.name} must be named to be run.")
        if not self._runs:
            self._runs.append(FileRuns(file, self.input_shape, self.n_classes))
        return self._runs[0]

    def make(self, values: Mapping[str, Any]) -> Made:
        """What the file makes of values of all that is searched, its suggestions included.

        Raises:
            OwnNetworkError: if its functions raise, or suggest another name.
        """
        return self.runs.make(values, self._limit({**self.table, **values}))

    @property
    def is_open(self) -> bool:
        """Its file may suggest names that no distribution tells."""
        return True

    def complete(
        self,
        values: Mapping[str, Any],
        draw: Callable[[str, BaseDistribution], Any],
    ) -> dict[str, Any]:
        """`values` with those that have no alternative, and with all that the file suggests.

        What it suggests is taken from `values` where it stands there, and drawn elsewhere. Where
        its function raises, the result is what it had suggested by then.
        """
        found = {name: v for name, v in self.with_single(values).items() if name in OF_TRAINING}

        def answer(name: str, distribution: BaseDistribution) -> Any:
            if name in values and is_inside(distribution, values[name]):
                found[name] = values[name]
            elif distribution.single():
                found[name] = single_value(distribution)
            else:
                found[name] = draw(name, distribution)
            return found[name]

        with suppress(OwnNetworkError):  # which a trial with these values tells
            self.runs.suggest(answer)
        return found

    def suggest(self, trial: TrialLike) -> Hyperparameters:
        """The recipe of a new trial, by suggesting."""
        values = {
            name: suggest_value(trial, name, distribution)
            for name, distribution in self.distributions.items()
        }

        def answer(name: str, distribution: BaseDistribution) -> Any:
            values[name] = suggest_value(trial, name, distribution)
            return values[name]

        self.runs.suggest(answer)
        return self.hyperparameters(values)

    def recall(self, trial: TrialLike, recipe: Mapping[str, Any] | None) -> Hyperparameters:
        """The recipe of a stored trial, as it was stored: its file is not run."""
        if recipe is None:
            raise ValueError("it has no recipe")
        try:
            hyperparameters = Hyperparameters.from_dict(dict(recipe))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"its recipe is none: {error!r}") from error
        spec = hyperparameters.spec
        if not isinstance(spec, OwnSpec) or spec.fingerprint != self.source.fingerprint:
            raise ValueError("its network is of another file")
        return hyperparameters

    def hyperparameters(self, values: Mapping[str, Any]) -> Hyperparameters:
        """The recipe with those values of all that is searched, the file's suggestions included.

        Raises:
            OwnNetworkError: if the file's functions raise, or suggest another name.
        """
        made = self.make(values)
        try:
            return super().hyperparameters({**values, **made.trained})
        except (KeyError, TypeError, ValueError) as error:
            raise OwnNetworkError(f"{self.source.name}: training: {error}") from error

    def spec(self, values: Mapping[str, Any]) -> OwnSpec:
        """The network alone, its widths scaled to the cap."""
        return self.make(values).spec

    def count(self, values: Mapping[str, Any]) -> int:
        """The parameters of the network of `spec(values)`."""
        return self.spec(values).parameter_count

    def could_be(self, params: Mapping[str, Any], count: int) -> bool:
        """Only the file could tell the size, which is not run to read a study."""
        return self.distributions.keys() <= params.keys()

    def foreign_names(self, params: Collection[str]) -> set[str]:
        """What is no hyperparameter of training is what the file suggests."""
        return {n for n in params if n in OF_TRAINING and n not in self.distributions}

    def invalid_reason(self, values: Mapping[str, Any]) -> str | None:
        """As that of `Space`, of the training; of the rest running the file tells."""
        return super().invalid_reason({n: v for n, v in values.items() if n in OF_TRAINING})

    def first(self) -> dict[str, Any]:
        """The values with which a search begins; what the file suggests is drawn."""
        return {
            name: self.table[name]["first"]
            for name in self.distributions
            if isinstance(self.table[name], dict) and "first" in self.table[name]
        }

    def largest_batch(self) -> int:
        """As that of `Space`; one where the file says itself how large batches are."""
        return super().largest_batch() if "batch_size" in self.table else 1

    def n_combinations(self) -> float:
        """Nobody knows what the file may still suggest."""
        return math.inf

    def shrink(self, values: Mapping[str, Any], *, keep: Collection[str] = ()) -> dict[str, Any]:
        """The values as they are: widths are scaled already, and nothing else can be."""
        return dict(values)

    def network_words(self) -> str:
        """What networks there are, in words."""
        return f"networks of {self.source.name}"

    @property
    def is_built_in(self) -> bool:
        """Whether its name, and the file's, give it."""
        if self.name not in BUILT_IN or self.name == ADAPTIVE:
            return self.name == ADAPTIVE
        table = built_in_table(self.name, Situation())
        return all(table.get(key, KINDS[key].silent) == value for key, value in self.table.items())

    def without(self, names: Collection[str]) -> FileSpace:
        """The space without hyperparameters that the file takes over."""
        return replace(self, table={k: v for k, v in self.table.items() if k not in names})


def _check_own(name: str, source: NetworkSource) -> None:
    """Raises SpaceError where a space file says of networks what a file of them builds."""
    with suppress(OSError, ValueError, RecursionError):  # which is told when it is read
        text = Path(name).read_text(encoding=encoding_of(Path(name)))
        said = set(tomllib.loads(text)) & set(OF_NETWORKS)
        if said:
            raise SpaceError(
                f"{name}: {min(said)} must not be said beside --network, as {source.name} builds "
                "the networks; take it out."
            )
