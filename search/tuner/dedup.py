"""What a study has tried: the configurations that are not to be drawn again.

Two sets of values are one configuration where they build the same recipe: they may differ in a
width that their topology ignores, say.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from search.space.hyperparameters import Hyperparameters
from search.space.space import Space
from search.study.record import TrialRecord, is_foreign, queued_values
from search.study.summary import is_trained

_MAX_LISTED = 10_000  # combinations; to list more would take longer than it saves

# Each of these acts in every recipe, so that equal recipes have equal values of all of them.
_ALWAYS_ACTING = (
    "learning_rate",
    "optimizer",
    "momentum",
    "weight_decay",
    "batch_size",
    "rotation_degrees",
    "translation",
    "scale",
    "shear_degrees",
    "label_smoothing",
    "ema_epochs",
)


class _Configurations:
    """Trials by their recipe.

    To build a recipe takes a thousand times as long as to compare two learning rates. So it is
    built only once another trial agrees with it in all that is easily compared.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._names = [name for name in _ALWAYS_ACTING if name in space.distributions]
        self._unbuilt: defaultdict[tuple[Any, ...], list[tuple[int, Mapping[str, Any]]]]
        self._unbuilt = defaultdict(list)
        self._built: defaultdict[tuple[Any, ...], dict[Hyperparameters, int]] = defaultdict(dict)

    def _key(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(values[name] for name in self._names)

    def add(self, number: int, values: Mapping[str, Any]) -> None:
        self._unbuilt[self._key(values)].append((number, values))

    def find(self, values: Mapping[str, Any]) -> int | None:
        """The number of the first trial with this recipe; None where there is none."""
        key = self._key(values)
        for number, other in self._unbuilt.pop(key, ()):
            hyperparameters = self._space.hyperparameters_or_none(other)
            if hyperparameters is not None:
                self._built[key].setdefault(hyperparameters, number)
        if key not in self._built:
            return None
        hyperparameters = self._space.hyperparameters_or_none(values)
        return None if hyperparameters is None else self._built[key].get(hyperparameters)


class SeenConfigurations:
    """The configurations of a study that were trained, run, wait in the queue, or failed.

    A trial that was interrupted does not count: it was put back in the queue. Finished trials are
    read once; an update costs what runs and waits.

    Attributes:
        is_listable: whether the space has few enough combinations to list what is untried.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._finished: set[int] = set()
        self._trained, self._failed = _Configurations(space), _Configurations(space)
        self._running, self._waiting = _Configurations(space), _Configurations(space)
        self._open: list[Mapping[str, Any]] = []
        self._newly_settled: list[Mapping[str, Any]] = []
        self.is_listable = space.n_combinations() <= _MAX_LISTED
        self._untried: dict[Hyperparameters, dict[str, Any]] | None = None

    def update(self, trials: Iterable[FrozenTrial], *, besides: int | None = None) -> None:
        """Takes note of the trials of the study, all but one that is being drawn."""
        self._running, self._waiting = _Configurations(self._space), _Configurations(self._space)
        self._open = []
        for trial in trials:
            is_finished = trial.state.is_finished()
            is_left_out = trial.number == besides and not is_finished
            if trial.number in self._finished or is_left_out:
                continue
            if is_finished:
                self._finished.add(trial.number)
            configurations, values = self._configurations_for(trial), self._values(trial)
            if configurations is None or values is None:
                continue
            configurations.add(trial.number, values)
            if not is_finished:
                self._open.append(values)
            elif self.is_listable:
                self._newly_settled.append(values)

    def _configurations_for(self, trial: FrozenTrial) -> _Configurations | None:
        """Where a trial belongs; None where its configuration may be drawn again."""
        if is_foreign(trial):
            return None
        if is_trained(trial):
            return self._trained
        match trial.state:
            case TrialState.RUNNING:
                return self._running
            case TrialState.WAITING:
                return self._waiting
            case TrialState.FAIL if not TrialRecord.read(trial).is_interrupted:
                return self._failed
        return None

    def _values(self, trial: FrozenTrial) -> Mapping[str, Any] | None:
        """What builds the trial's recipe; None where some of it is still to be drawn."""
        is_waiting = trial.state == TrialState.WAITING
        values = queued_values(trial) or {} if is_waiting else trial.params
        if self._space.invalid_reason(values) is not None:
            return None
        full_params = self._space.with_single(values)
        return full_params if self._space.distributions.keys() <= full_params.keys() else None

    def __contains__(self, values: Mapping[str, Any]) -> bool:
        """Whether the configuration that `values`, all that the space searches, make was tried."""
        everywhere = (self._trained, self._running, self._waiting, self._failed)
        return any(configurations.find(values) is not None for configurations in everywhere)

    def trained_by(self, values: Mapping[str, Any]) -> int | None:
        """The number of the trial that has trained, or is training, what `values` make."""
        number = self._trained.find(values)
        return self._running.find(values) if number is None else number

    def has_untried(self) -> bool:
        """Whether the space has anything left to try; true where it has too much to list."""
        untried, is_open = self._untried_by_configuration(), self._open_configurations()
        return untried is None or any(found not in is_open for found in untried)

    def untried(self) -> list[dict[str, Any]] | None:
        """Values of each configuration that was not tried; None where it is too many to list."""
        untried, is_open = self._untried_by_configuration(), self._open_configurations()
        if untried is None:
            return None
        return [values for found, values in untried.items() if found not in is_open]

    def _open_configurations(self) -> set[Hyperparameters | None]:
        if not self.is_listable:
            return set()
        return set(map(self._space.hyperparameters_or_none, self._open))

    def _untried_by_configuration(self) -> dict[Hyperparameters, dict[str, Any]] | None:
        """What no finished trial has settled, listed when it is first needed."""
        if not self.is_listable:
            return None
        if self._untried is None:
            self._untried = {}
            for values in self._space.combinations():
                hyperparameters = self._space.hyperparameters_or_none(values)
                if hyperparameters is not None and self._space.fits(hyperparameters.spec):
                    self._untried.setdefault(hyperparameters, values)
        while self._newly_settled:
            hyperparameters = self._space.hyperparameters_or_none(self._newly_settled.pop())
            if hyperparameters is not None:
                self._untried.pop(hyperparameters, None)
        return self._untried
