"""What becomes of trials: their epochs and their ends, written to the study and then told."""

from __future__ import annotations

import socket
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from search.exceptions import TrainingError
from search.storage.cached import batch_writes
from search.study.record import TrialRecord, is_foreign
from search.study.repair import fail, fail_crashed
from search.study.settings import StudySettings
from search.study.trials import trials_of
from search.training.epochs import EpochResult, last_epochs_mean
from search.tuner.events import SearchEvent, TrialEnded
from search.tuner.pruning import AccuracyAmongNoLarger, AccuracyPruning, Pruning
from search.workers.jobs import JobFailed

_MAX_FAILURES_IN_A_ROW = 10
_BY_SOMEBODY_ELSE = "ended or deleted by somebody else"


@dataclass(slots=True)
class RunningTrial:
    """A trial that a worker has.

    Args:
        is_first: whether the study began with it. What a search begins with is known to be good;
            where several workers train, one rival alone may be ahead of it early.
    """

    trial: Trial
    parameter_count: int
    is_first: bool = False
    results: list[EpochResult] = field(default_factory=list)

    @property
    def epoch_seconds(self) -> float:
        """What an epoch takes, as a median; 0 before the first."""
        return statistics.median([result.seconds for result in self.results] or [0.0])

    def ended(
        self,
        state: TrialState | None,
        *,
        value: float | None = None,
        reason: str | None = None,
        is_requeued: bool = False,
    ) -> TrialEnded:
        return TrialEnded(
            self.trial.number,
            state,
            self.parameter_count,
            value=value,
            n_epochs=len(self.results),
            reason=reason,
            is_requeued=is_requeued,
        )

    def gone(self) -> TrialEnded:
        """Its end where a person failed or deleted it in the dashboard."""
        return self.ended(None, reason=_BY_SOMEBODY_ELSE)


def stored_trial(trial: Trial) -> FrozenTrial:
    """A trial as the study has it now.

    Raises:
        KeyError: if it was deleted.
    """
    return trial.study._storage.get_trial(trial._trial_id)


class TrialWriter:
    """Writes what becomes of trials to their study, and tells of it.

    What ends a trial returns what is to be told of that, for `publish`: not before it is written,
    nor where a person has ended or deleted the trial meanwhile, for which Optuna raises
    `UpdateFinishedTrialError`, KeyError or ValueError.

    Args:
        listener: told each `SearchEvent` as it is published.
        known: numbers of the trials whose end the listener knows of.
    """

    def __init__(
        self, study: Study, listener: Callable[[SearchEvent], None], *, known: Iterable[int]
    ) -> None:
        self._study = study
        self._settings = StudySettings.from_study(study)
        self._listener = listener
        self._published = set(known)
        self._n_failures_in_a_row = 0
        self._pruning: Pruning = AccuracyPruning()
        if len(study.directions) > 1:
            self._pruning = AccuracyAmongNoLarger(study.pruner, trials_of(study))

    # --- A trial that trains ---

    def add_epoch(self, running: RunningTrial, result: EpochResult) -> str | None:
        """Stores an epoch; returns why the trial is to be stopped, or None where it goes on."""
        trial = running.trial
        running.results.append(result)
        with batch_writes(self._study):
            TrialRecord.write_last_epoch(running.results, self._study, trial._trial_id)
            self._pruning.report(trial, running.parameter_count, result.epoch, result.accuracy)
            is_weak = self._pruning.should_prune(trial)
        if not result.is_finite:
            return "the loss is not finite"
        if is_weak and not running.is_first and result.epoch < self._settings.epochs:
            return f"weak after epoch {result.epoch}"
        return None

    def prune(self, running: RunningTrial, worker: int, reason: str) -> TrialEnded:
        seconds = sum(result.seconds for result in running.results)
        record = TrialRecord(worker=_worker_name(worker), seconds=seconds, reason=reason)
        with batch_writes(self._study):
            record.write(self._study, running.trial._trial_id)
        self._study.tell(running.trial, state=TrialState.PRUNED)
        is_diverged = not running.results[-1].is_finite
        self._pruning.end(running.trial.number, None, is_diverged=is_diverged)
        return running.ended(TrialState.PRUNED, reason=reason)

    def complete(self, running: RunningTrial, worker: int, seconds: float) -> TrialEnded:
        value = last_epochs_mean(running.results)
        with batch_writes(self._study):
            record = TrialRecord(worker=_worker_name(worker), seconds=seconds)
            record.write(self._study, running.trial._trial_id)
        sizes = [running.parameter_count] * (len(self._study.directions) - 1)
        self._study.tell(running.trial, [value, *sizes])
        self._pruning.end(running.trial.number, value)
        return running.ended(TrialState.COMPLETE, value=value)

    def fail(self, running: RunningTrial, event: JobFailed) -> TrialEnded:
        """Ends a trial that could not go on; what killed its worker may be queued again.

        Raises:
            TrainingError: if it was the machine's fault.
        """
        frozen = stored_trial(running.trial)
        if frozen.state != TrialState.RUNNING:  # a person ended it first
            return running.gone()
        if event.is_machines_fault:
            raise TrainingError(
                f"The machine must let trials train, but one could not: {event.reason}. It is "
                "queued again; mend that, and the same command goes on."
            )
        is_requeued = False
        if event.worker_died:
            is_requeued = fail_crashed(self._study, frozen, event.reason)
        else:
            fail(self._study, frozen, event.reason)
        return running.ended(TrialState.FAIL, reason=event.reason, is_requeued=is_requeued)

    # --- A trial that is not to train ---

    def refuse(self, trial: Trial, reason: str) -> TrialEnded:
        """Ends a trial whose network cannot exist in this space."""
        fail(self._study, stored_trial(trial), reason)
        return TrialEnded(trial.number, TrialState.FAIL, reason=reason)

    def refuse_too_large(self, trial: Trial, count: int) -> TrialEnded:
        """Only a configuration made by hand comes here: the sampler draws none over the cap."""
        cap = self._settings.budget
        reason = f"{count:,} parameters are not fewer than the budget of {cap:,}"
        trial.set_constraint("parameters", count - cap + 1)
        TrialRecord(reason=reason).write(self._study, trial._trial_id)
        self._study.tell(trial, state=TrialState.PRUNED)
        return TrialEnded(trial.number, TrialState.PRUNED, count, reason=reason)

    def refuse_duplicate(self, trial: Trial, count: int, reason: str) -> TrialEnded:
        """What is queued comes here, and what was drawn where nothing new could be found.

        FAIL, not PRUNED: to a sampler, a pruned trial says that its configuration is weak.
        """
        fail(self._study, stored_trial(trial), reason)
        return TrialEnded(trial.number, TrialState.FAIL, count, reason=reason, is_duplicate=True)

    # --- What is told ---

    def publish(self, event: SearchEvent) -> None:
        """Tells the listener.

        Raises:
            TrainingError: if trial after trial fails.
        """
        if isinstance(event, TrialEnded):
            self._published.add(event.number)
            if event.is_last_word:
                failed = event.state == TrialState.FAIL
                self._n_failures_in_a_row = self._n_failures_in_a_row + 1 if failed else 0
        self._listener(event)
        if self._n_failures_in_a_row >= _MAX_FAILURES_IN_A_ROW:
            assert isinstance(event, TrialEnded)
            raise TrainingError(
                f"Trials must be trainable, but {self._n_failures_in_a_row} in a row failed; the "
                f"last one: {event.reason}. Mend that, in the space perhaps, and the same command "
                "goes on."
            )

    def publish_elsewhere(self, trial: FrozenTrial) -> None:
        """Tells of the end of a trial that another search of the study ran, once."""
        if trial.number in self._published or is_foreign(trial):
            return
        self._published.add(trial.number)
        if not TrialRecord.read(trial).is_interrupted:  # else its repeat will be told of
            self._pruning.learn(trial)
            self.publish(TrialEnded.elsewhere(trial))


def _worker_name(worker: int) -> str:
    return f"{socket.gethostname()}/{worker}"
