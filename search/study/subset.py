"""A study with only some of its trials, for what reads the trials of a study."""

from __future__ import annotations

from collections.abc import Container, Sequence

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState


class StudyView(Study):
    """A study that shows these trials alone; all else is the study's own."""

    def __init__(self, study: Study, trials: Sequence[FrozenTrial]) -> None:
        self.__dict__.update(study.__dict__)
        self._trials = trials

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        return [trial for trial in self._trials if states is None or trial.state in states]
