"""A study with only some of its trials, for what reads the trials of a study."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any, cast

from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState


class StudyView(Study):
    """A study that shows these trials alone; all else is the study's own."""

    def __init__(self, study: Study, trials: Sequence[FrozenTrial]) -> None:
        self.__dict__.update(study.__dict__)
        self._trials = trials
        self._storage = cast(BaseStorage, _StorageView(study._storage, trials))

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        return _those(self._trials, states)


class _StorageView:
    """The storage of a study, which shows these trials of it alone.

    Hyperband makes studies of its own, one a bracket, on the storage of the one that it is given.
    """

    def __init__(self, storage: BaseStorage, trials: Sequence[FrozenTrial]) -> None:
        self._storage = storage
        self._trials = trials

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        return _those(self._trials, states)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


def _those(
    trials: Sequence[FrozenTrial], states: Container[TrialState] | None
) -> list[FrozenTrial]:
    return [trial for trial in trials if states is None or trial.state in states]
