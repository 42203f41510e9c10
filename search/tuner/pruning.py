"""Which running trial to stop: by Optuna's pruner, for one objective and for two.

Optuna's `report` and `should_prune` refuse a study of several objectives (optuna issue 3450). But
what is compared early is one number all the same, the accuracy after an epoch. So with accuracy
and size as objectives a pruner sees a shadow of the study that has only the accuracies, and of
that only the trials of networks that are no larger: those that a trial has to beat to be worth its
size. A small network is never stopped for being weaker than a large one.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import optuna
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from search.study.news import TrialNews
from search.study.record import TrialRecord
from search.study.summary import accuracy_of, is_diverged, is_trained
from search.tuner.window import History


class Pruning(Protocol):
    """Told each epoch and each end of a trial; says whether to stop it."""

    def report(self, trial: Trial, size: int, epoch: int, accuracy: float) -> None:
        """Takes note of a trial's accuracy after an epoch."""

    def should_prune(self, trial: Trial) -> bool:
        """Whether to stop a trial, as it was last reported. To be asked after each report.

        Optuna's halving knows a trial's rungs only by being asked.
        """

    def end(self, number: int, accuracy: float | None, *, is_diverged: bool = False) -> None:
        """A trial that trained is over; without its final accuracy, it was stopped.

        Args:
            is_diverged: whether its loss did not stay finite, so that it is nobody's rival.
        """

    def learn(self, trial: FrozenTrial) -> None:
        """Takes note of a trial that another search of the study has ended."""


class AccuracyPruning:
    """By the study's own pruner, among the trials that searches have written.

    Of those, a trial whose loss did not stay finite is no rival: how good it was before
    says nothing of what it takes to be good to the end.
    """

    def __init__(self) -> None:
        self._news = TrialNews()
        self._rivals = History()

    def report(self, trial: Trial, size: int, epoch: int, accuracy: float) -> None:
        trial.report(accuracy, step=epoch)

    def should_prune(self, trial: Trial) -> bool:
        study = trial.study
        news = self._news.take_new(study)
        self._rivals.add(t for t in news.finished if is_trained(t) and not is_diverged(t))
        stored = study._storage.get_trial(trial._trial_id)
        return study.pruner.prune(self._rivals.view(study, news.open), stored)

    def end(self, number: int, accuracy: float | None, *, is_diverged: bool = False) -> None:
        pass  # the study knows

    def learn(self, trial: FrozenTrial) -> None:
        pass


class AccuracyAmongNoLarger:
    """By accuracy among the networks that are no larger, with any pruner but Hyperband.

    Args:
        trials: those that the study has; their epochs are gone through again, each trial by itself,
            so that a start costs what there is to read.
    """

    def __init__(self, pruner: BasePruner, trials: Iterable[FrozenTrial]) -> None:
        self._pruner = pruner
        self._shadows: dict[int, _Shadow] = {}  # by the number of the trial
        for trial in trials:
            self.learn(trial)

    def learn(self, trial: FrozenTrial) -> None:
        if not is_trained(trial) or is_diverged(trial):
            return
        record = TrialRecord.read(trial)
        shadow = self._shadow(trial.number, record.parameter_count or 0)
        alone: Any = _ShadowStudy([shadow.trial], shadow.trial)
        for epoch, accuracy in enumerate(record.accuracies, start=1):
            shadow.trial.intermediate_values[epoch] = accuracy
            # For what the pruner keeps with a trial, as its rungs: that is the same in any company.
            self._pruner.prune(alone, shadow.trial)
        self.end(trial.number, accuracy_of(trial))

    def report(self, trial: Trial, size: int, epoch: int, accuracy: float) -> None:
        self._shadow(trial.number, size).trial.intermediate_values[epoch] = accuracy

    def _shadow(self, number: int, size: int) -> _Shadow:
        if number not in self._shadows:
            # The pruner tells trials apart by their identifiers.
            trial = optuna.create_trial(state=TrialState.RUNNING)
            trial.number = trial._trial_id = number
            self._shadows[number] = _Shadow(trial, size)
        return self._shadows[number]

    def should_prune(self, trial: Trial) -> bool:
        shadow = self._shadows[trial.number]
        no_larger = [other.trial for other in self._shadows.values() if other.size <= shadow.size]
        study: Any = _ShadowStudy(no_larger, shadow.trial)
        return self._pruner.prune(study, shadow.trial)

    def end(self, number: int, accuracy: float | None, *, is_diverged: bool = False) -> None:
        if is_diverged:
            del self._shadows[number]
            return
        trial = self._shadows[number].trial
        trial.state = TrialState.PRUNED if accuracy is None else TrialState.COMPLETE
        trial.values = None if accuracy is None else [accuracy]


@dataclass(frozen=True, slots=True)
class _Shadow:
    trial: FrozenTrial
    size: int


class _ShadowStudy:
    """What pruners ask of a study: these trials and their direction, and room for what they note.

    Args:
        judged: the trial that is judged, and of which the pruner may note something.
    """

    direction = StudyDirection.MAXIMIZE

    def __init__(self, trials: Sequence[FrozenTrial], judged: FrozenTrial) -> None:
        self._trials = trials
        self._judged = judged
        self._storage = self

    def get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return [trial for trial in self._trials if states is None or trial.state in states]

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        assert trial_id == self._judged._trial_id
        self._judged.system_attrs[key] = value
