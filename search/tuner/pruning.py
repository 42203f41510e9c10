"""Which running trial to stop: by Optuna's pruner, for one objective and for two.

Optuna's `report` and `should_prune` refuse a study of several objectives (optuna issue 3450). But
what is compared early is one number all the same, the accuracy after an epoch. So with accuracy
and size as objectives a pruner sees a shadow of the study that has only the accuracies, and of
that only the trials of networks that are no larger: those that a trial has to beat to be worth its
size. A small network is never stopped for being weaker than a large one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, Trial, TrialState

from search.storage.news import TrialNews
from search.study.record import TrialRecord
from search.study.subset import StudyView
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

    def end(self, number: int, accuracy: float | None) -> None:
        """A trial that trained is over; without its final accuracy, it was stopped."""

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

    def end(self, number: int, accuracy: float | None) -> None:
        pass  # the study knows

    def learn(self, trial: FrozenTrial) -> None:
        pass


class AccuracyAmongNoLarger:
    """By accuracy among the networks that are no larger, with any pruner but Hyperband.

    Args:
        trials: those that the study has; their epochs are gone through again.
    """

    def __init__(self, pruner: BasePruner, trials: Iterable[FrozenTrial]) -> None:
        self._pruner = pruner
        sampler = optuna.samplers.RandomSampler(seed=0)
        self._shadow = optuna.create_study(direction="maximize", sampler=sampler)
        self._shadows: dict[int, Trial] = {}  # by the number of the trial
        self._sizes: dict[int, int] = {}  # by the number of the shadow
        for trial in trials:
            self.learn(trial)

    def learn(self, trial: FrozenTrial) -> None:
        if not is_trained(trial):
            return
        record = TrialRecord.read(trial)
        for result in record.epochs:
            self._report(trial.number, record.parameter_count or 0, result.epoch, result.accuracy)
            self._should_prune(trial.number)
        self.end(trial.number, accuracy_of(trial))

    def report(self, trial: Trial, size: int, epoch: int, accuracy: float) -> None:
        self._report(trial.number, size, epoch, accuracy)

    def _report(self, number: int, size: int, epoch: int, accuracy: float) -> None:
        if number not in self._shadows:
            self._shadows[number] = self._shadow.ask()
            self._sizes[self._shadows[number].number] = size
        self._shadows[number].report(accuracy, step=epoch)

    def should_prune(self, trial: Trial) -> bool:
        return self._should_prune(trial.number)

    def _should_prune(self, number: int) -> bool:
        shadow = self._shadow._storage.get_trial(self._shadows[number]._trial_id)
        no_larger = [
            trial
            for trial in self._shadow.get_trials(deepcopy=False)
            if self._sizes[trial.number] <= self._sizes[shadow.number]
        ]
        return self._pruner.prune(StudyView(self._shadow, no_larger), shadow)

    def end(self, number: int, accuracy: float | None) -> None:
        state = TrialState.PRUNED if accuracy is None else TrialState.COMPLETE
        self._shadow.tell(self._shadows.pop(number), accuracy, state=state)
