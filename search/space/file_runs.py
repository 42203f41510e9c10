"""A user's file of networks, run for the search: what it suggests, and its widths scaled.

What its functions suggest is known only by running them, and may depend on what was drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from search.exceptions import SpaceError
from search.space.distributions import first_value, is_inside
from search.space.limits import OF_TRAINING, make_distribution
from search_models.own import OwnNetworkError, OwnSpec, Value
from search_models.suggestions import Ask, Suggestions

if TYPE_CHECKING:
    from search_models.network_file import NetworkFile

_MOST_KNOWN = 4096  # networks that are remembered
_N_HALVINGS = 12  # of the interval in which the factor of all widths lies
_LARGEST_FACTOR = 2.0**20
_MOST_STEPS = 64  # a width that the network does not use would grow for ever


@dataclass(frozen=True, slots=True)
class Made:
    """What a file's functions make of drawn values.

    Args:
        asked: the names of what was suggested, by whichever function.
        widths: those of them that are scaled to the cap.
        trained: the hyperparameters of training that the file says itself.
    """

    spec: OwnSpec
    asked: frozenset[str]
    widths: frozenset[str]
    trained: Mapping[str, Any]


class FileRuns:
    """A loaded file, and what it made for images of one shape."""

    def __init__(self, file: NetworkFile, input_shape: tuple[int, int, int], n_classes: int):
        self.file = file
        self._shape = input_shape
        self._n_classes = n_classes
        self._known: dict[object, Made] = {}

    def suggest(self, answer: Callable[[str, BaseDistribution], Any]) -> tuple[Suggestions, int]:
        """Runs the functions; returns what they suggested, and the network's parameters.

        Raises:
            OwnNetworkError: if one raises, or suggests what it must not.
        """

        def checked(name: str, ask: Ask) -> Value:
            return cast(Value, answer(name, self._distribution(name, ask)))

        suggestions = Suggestions(checked)
        count = self.file.count(suggestions, self._shape, self._n_classes)
        self.file.training(suggestions)
        return suggestions, count

    def make(self, values: Mapping[str, Any], limit: int) -> Made:
        """What it makes of values, of all that it suggests.

        Args:
            limit: the most parameters that widths are scaled to; 0 where they stay as drawn.

        Raises:
            OwnNetworkError: if a function raises, or suggests a name that has no value.
        """
        own = {name: value for name, value in values.items() if name not in OF_TRAINING}
        key = limit, *sorted((name, type(value).__name__, value) for name, value in own.items())
        made = self._known.get(key)
        if made is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            made = self._known[key] = self._make(own, limit)
        return made

    def is_same_again(self, values: Mapping[str, Any], made: Made) -> bool:
        """Whether the functions, run once more, suggest the same and build as much."""
        suggestions, count = self.suggest(
            lambda name, distribution: values[name] if name in values else first_value(distribution)
        )
        limit_free = made.widths or self.file.has_scaled  # then the size is another
        is_size = limit_free or count == made.spec.parameter_count
        return suggestions.asks.keys() == made.asked and bool(is_size)

    def _make(self, values: Mapping[str, Any], limit: int) -> Made:
        def answer(name: str, ask: Ask) -> Value:
            distribution = self._distribution(name, ask)
            if name not in values:
                raise OwnNetworkError(
                    f"{self.file.source.name} must suggest the same names for the same values, but "
                    f"it suggests {name}, which was not drawn; what it suggests may depend on what "
                    "was drawn, but on no width that is scaled, and not on chance"
                )
            if not is_inside(distribution, values[name]):
                raise OwnNetworkError(
                    f"{name} = {values[name]!r} is outside its range in {self.file.source.name}"
                )
            return cast(Value, values[name])

        suggestions = Suggestions(answer)
        count = self.file.count(suggestions, self._shape, self._n_classes)
        drawn: Mapping[str, Value] = dict(suggestions.values)
        widths = [name for name, ask in suggestions.asks.items() if ask.is_width]
        if limit and (widths or self.file.has_scaled):
            drawn, count = self._scaled(drawn, widths, limit)
        trained = self.file.training(suggestions)
        self._check_trained(trained)
        spec = OwnSpec(
            self.file.source.name,
            self.file.source.fingerprint,
            tuple(drawn.items()),
            count,
            self._shape,
            self._n_classes,
        )
        return Made(spec, frozenset(suggestions.asks), frozenset(widths), trained)

    def _distribution(self, name: str, ask: Ask) -> BaseDistribution:
        if name in OF_TRAINING:
            raise OwnNetworkError(
                f"{self.file.source.name} must not suggest {name!r}, which is a hyperparameter of "
                "the search's own; call it otherwise, or return it from training(trial)."
            )
        return distribution_of(ask)

    def _check_trained(self, trained: Mapping[str, Any]) -> None:
        name = self.file.source.name
        for key, value in trained.items():
            # The share is of the cap, to which widths are scaled before training is asked.
            if key not in OF_TRAINING or key == "budget_share" or isinstance(value, dict | list):
                raise OwnNetworkError(
                    f"{name}: training must return values of hyperparameters of training, as "
                    f"learning_rate or optimizer, but it returns {key} = {value!r}; 'search space' "
                    "lists them."
                )
            try:
                make_distribution(f"{name}: training", key, value)
            except SpaceError as error:
                raise OwnNetworkError(str(error)) from error

    def _scaled(
        self, drawn: Mapping[str, Value], widths: Sequence[str], limit: int
    ) -> tuple[Mapping[str, Value], int]:
        """The values with their widths scaled to fill a limit, and the parameters of them.

        All by one factor, as `scale_to` and `fill_to` scale ours; where even ones are too many, the
        result is ones.
        """
        known: dict[tuple[Value, ...], int] = {}

        def count(values: Mapping[str, Value]) -> int:
            key = tuple(values.values())
            if key not in known:
                known[key] = self.file.count_of(values, self._shape, self._n_classes)
            return known[key]

        def scaled(factor: float) -> Mapping[str, Value]:
            if self.file.has_scaled:
                return self.file.scaled(drawn, factor)
            return {**drawn, **{w: max(1, round(cast(int, drawn[w]) * factor)) for w in widths}}

        low, high = 0.0, 1.0
        while count(scaled(high)) <= limit and high < _LARGEST_FACTOR:
            low, high = high, 2 * high
        if low == 0:
            while high > 1 / _LARGEST_FACTOR and count(scaled(high / 2)) > limit:
                high /= 2
            low = high / 2
        for _ in range(_N_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if count(scaled(middle)) <= limit else (low, middle)
        found = dict(scaled(low))
        most = 0 if self.file.has_scaled else _MOST_STEPS
        for _ in range(most):  # one channel more, where it fits
            places = sorted(widths, key=lambda w: cast(int, found[w]) / cast(int, drawn[w]))
            wider = ({**found, w: cast(int, found[w]) + 1} for w in places)
            larger = next((values for values in wider if count(values) <= limit), None)
            if larger is None:
                break
            found = larger
        return found, count(found)


def distribution_of(ask: Ask) -> BaseDistribution:
    """Optuna's distribution of what a file suggests.

    Raises:
        ValueError: if there is none, as of a range without values.
    """
    if ask.kind == "categorical":
        return CategoricalDistribution(ask.choices)
    assert ask.low is not None
    assert ask.high is not None
    if ask.kind == "float":
        return FloatDistribution(ask.low, ask.high, log=ask.log, step=ask.step)
    return IntDistribution(int(ask.low), int(ask.high), log=ask.log, step=int(ask.step or 0))
