"""The search itself: ask, hand out, report, prune, tell. The only writer of trials."""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from search.exceptions import TrainingError
from search.space.space import Space
from search.storage.cached import batch_writes
from search.storage.news import TrialNews
from search.study.locks import owner_of_this_process
from search.study.record import TrialRecord, queued_values
from search.study.repair import fail, fail_crashed, requeue
from search.study.settings import StudySettings
from search.study.sharing import Sharing
from search.study.summary import is_trained
from search.training.epochs import EpochResult, last_epochs_mean
from search.tuner.events import Outcome, SearchEvent, TrialEnded, TrialEpoch, TrialStarted
from search.tuner.patience import Patience
from search.tuner.pruning import AccuracyAmongNoLarger, AccuracyPruning, Pruning
from search.tuner.sampler import CappedSampler
from search.workers.jobs import Event, Job, JobDone, JobEpoch, JobFailed, WorkerPool
from search_models.size import parameter_count
from search_models.spec import SpecError

_WAIT_SECONDS = 0.5
_MAX_FAILURES_IN_A_ROW = 10
_LONGEST_LEAVE_SECONDS = 2.0  # for the lock at the end of a search, which must end within five
_BY_SOMEBODY_ELSE = "ended or deleted by somebody else"
# A trial that takes so much longer than the slowest one is taken for hung.
_HUNG_FACTOR = 10
_LEAST_LIMIT_SECONDS = 60.0  # whatever the others took: a machine may be busy for a while


@dataclass(slots=True)
class _Running:
    """A trial that a worker has."""

    trial: Trial
    parameter_count: int
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


class Coordinator:
    """Runs one study until enough trials are trained.

    Args:
        study: opened with a `CappedSampler` and a pruner.
        n_trials: how many trained trials the study shall have in total.
        listener: told each `SearchEvent` as it happens.
        should_stop: asked about twice a second; true puts what runs back in the queue.
        is_time_over: asked as often; true does the same, with another outcome.
        patience: once it is over no trial is started; one that runs may still bring progress.
        seed: from which, with the trial's number, each training seed follows.
        trial_timeout_seconds: after which a trial's worker is taken for hung and killed; by default
            ten times as long as the slowest trial of this run would take, by the median of its
            epochs, and a minute at least.
        sharing: how it shares the study with searches on other hosts.
        known: numbers of the trials whose end the listener knows of.
        weights_path: where a trial's weights are to be written, by Optuna's identifier of it; None
            keeps none.
    """

    def __init__(
        self,
        study: Study,
        pool: WorkerPool,
        *,
        n_trials: int,
        seed: int,
        device: str,
        listener: Callable[[SearchEvent], None],
        should_stop: Callable[[], bool],
        is_time_over: Callable[[], bool],
        patience: Patience | None = None,
        trial_timeout_seconds: float | None = None,
        sharing: Sharing,
        known: Iterable[int] = (),
        weights_path: Callable[[int], Path] | None = None,
    ) -> None:
        assert isinstance(study.sampler, CappedSampler)
        self._study = study
        self._sampler = study.sampler
        self._pool = pool
        self._n_trials = n_trials
        self._seed = seed
        self._device = device
        self._listener = listener
        self._should_stop = should_stop
        self._is_time_over = is_time_over
        self._patience = patience
        self._trial_timeout_seconds = trial_timeout_seconds
        self._sharing = sharing
        self._weights_path = weights_path
        self._slowest_seconds = 0.0  # an epoch, of the trials that have ended
        self._settings = StudySettings.from_study(study)
        self._space: Space = self._settings.search_space()
        self._owner = owner_of_this_process()
        self._news = TrialNews()
        self._n_trained = 0
        self._open: Sequence[FrozenTrial] = ()
        self._unpublished: list[FrozenTrial] = []  # what others have ended, where they may
        self._running: dict[int, _Running] = {}
        self._published = set(known)
        self._n_failures_in_a_row = 0
        self._found_nothing_new = False
        self._pruning: Pruning = AccuracyPruning()
        if len(study.directions) > 1:
            self._pruning = AccuracyAmongNoLarger(study.pruner, study.get_trials(deepcopy=False))

    def run(self) -> Outcome:
        """Searches; returns why it ended.

        Raises:
            KeyError: if somebody deletes the study meanwhile.
            TrainingError: if workers cannot be started, or trial after trial fails.
        """
        try:
            while True:
                if self._should_stop():
                    return Outcome.INTERRUPTED
                if self._is_time_over():
                    return Outcome.TIMED_OUT
                n_missing = self._n_missing()
                self._publish_elsewhere()
                is_busy = bool(self._running) or self._n_elsewhere() > 0
                if n_missing <= 0 and not is_busy:
                    return Outcome.REACHED
                if self._patience is not None and self._patience.is_over(self._trials()):
                    if not is_busy:
                        return Outcome.NO_BETTER
                    n_missing = 0
                if n_missing > 0:
                    self._start_trials()
                    if not is_busy and not self._running and not self._has_next():
                        return Outcome.EXHAUSTED
                for event in self._pool.events(_WAIT_SECONDS):
                    self._handle(event)
                self._heartbeat()
                limit = self._limit_seconds()
                if limit is not None:
                    self._pool.kill_overdue(limit)
        finally:
            self._requeue_running()

    def _limit_seconds(self) -> float | None:
        """After how long a trial is taken for hung; None while there is none to go by."""
        if self._trial_timeout_seconds is not None:
            return self._trial_timeout_seconds
        running = [running.epoch_seconds for running in self._running.values()]
        slowest = max([self._slowest_seconds, *running])
        if slowest == 0:
            return None
        return max(_LEAST_LIMIT_SECONDS, _HUNG_FACTOR * slowest * self._settings.epochs)

    def _refresh(self) -> None:
        """Takes note of what is new in the study, to which people and other searches write, too."""
        news = self._news.take_new(self._study)
        self._n_trained += sum(map(is_trained, news.finished))
        self._open = news.open
        if self._sharing.is_shared:
            self._unpublished += news.finished

    def _n_missing(self) -> int:
        """How many more trials are to be started, if all that run now end well."""
        self._refresh()
        return self._n_trials - self._n_trained - len(self._running) - self._n_elsewhere()

    def _n_elsewhere(self) -> int:
        """How many trials run in other searches of the study, as of the last look."""
        return self._sharing.n_elsewhere(self._open, self._running)

    def _start_trials(self) -> None:
        """Starts what is missing, as far as there are workers."""
        while self._pool.n_idle and not self._should_stop():
            with self._sharing.lock(self._waits_no_more) as is_ours:
                if not is_ours or self._n_missing() <= 0 or not self._has_next():
                    return
                trial_id = self._reserve()
            trial = Trial(self._study, trial_id)
            self._draw(trial)  # others need not wait for that
            with self._sharing.lock(self._waits_no_more) as is_ours:
                if not is_ours:
                    requeue(self._study, self._frozen(trial))
                    return
                published = self._start(trial)
            if published is not None:
                self._publish(published)

    def _waits_no_more(self) -> bool:
        """Whether to stop waiting for a lock; what runs goes on to be alive meanwhile."""
        self._keep_alive()
        return self._should_stop() or self._is_time_over()

    def _keep_alive(self) -> None:
        self._sharing.record_heartbeats(
            [running.trial._trial_id for running in self._running.values()]
        )

    def _heartbeat(self) -> None:
        """Says that what runs lives, and takes over from who says so no more."""
        self._keep_alive()
        self._sharing.reclaim_lost(self._waits_no_more)

    def _has_next(self) -> bool:
        """Whether a trial waited at the last look, or the space has a configuration to try."""
        if any(trial.state == TrialState.WAITING for trial in self._open):
            return True
        self._sampler.refresh(self._study)
        return not self._found_nothing_new and self._sampler.seen.has_untried()

    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _publish_elsewhere(self) -> None:
        """Tells the listener of trials that ended in other searches of the study."""
        unpublished, self._unpublished = self._unpublished, []
        for trial in unpublished:
            if trial.number in self._running:  # somebody ended it, and its worker will hear of it
                self._unpublished.append(trial)
                continue
            if trial.number in self._published:
                continue
            self._published.add(trial.number)
            if TrialRecord.read(trial).is_interrupted:
                continue  # its repeat will be told of
            ended = TrialEnded.elsewhere(trial)
            self._pruning.learn(trial)
            self._publish(ended)

    def _reserve(self) -> int:
        """The identifier of a trial from the queue or a new one, with nothing drawn yet.

        What `Study.ask` does before it draws.
        """
        self._study._thread_local.cached_all_trials = None
        trial_id = self._study._pop_waiting_trial_id()
        if trial_id is None:
            trial_id = self._study._storage.create_new_trial(self._study._study_id)
        with suppress(UpdateFinishedTrialError):  # a person was quicker: see `_start`
            TrialRecord(owner=self._owner).write(self._study, trial_id)
            self._sharing.record_start(trial_id)
        return trial_id

    def _draw(self, trial: Trial) -> None:
        """Draws a whole candidate, which Optuna does when it is first asked for a part of it."""
        with self._unless_gone(trial):
            if self._invalid_reason(self._frozen(trial)) is None:
                _ = trial.relative_params

    def _invalid_reason(self, trial: FrozenTrial) -> str | None:
        """Why what a person queued cannot be tried in this space, or None where it can."""
        return self._space.invalid_reason(queued_values(trial) or {})

    def _start(self, trial: Trial) -> SearchEvent | None:
        """Hands a trial out; returns what became of it."""
        with self._unless_gone(trial):
            return self._prepare(trial)
        return None

    def _prepare(self, trial: Trial) -> SearchEvent:
        frozen = self._frozen(trial)
        refused = self._invalid_reason(frozen)
        if refused is not None:
            return self._end_failed(trial, refused)
        seed = TrialRecord.read(frozen).training_seed
        if seed is None:
            seed = self._training_seed(trial.number)
        with batch_writes(self._study):
            try:
                hyperparameters = self._space.suggest(trial)
                count = parameter_count(hyperparameters.spec)
            except SpecError as error:
                return self._end_failed(trial, str(error))
            draw = self._sampler.take_draw()
            record = TrialRecord(
                parameter_count=count,
                redraws=draw.n_redraws,
                shrunk=draw.is_shrunk or None,
                training_seed=seed,
            )
            record.write(self._study, trial._trial_id)
        if count >= self._settings.budget:
            return self._refuse_too_large(trial, count)
        if not draw.is_new and queued_values(frozen) is None:
            self._found_nothing_new = True
            return self._refuse_duplicate(trial, count, Outcome.EXHAUSTED.value)
        self._sampler.refresh(self._study, besides=trial.number)
        earlier = self._sampler.seen.trained_by(trial.params)
        if earlier is not None:
            trained = "trains" if earlier in self._running else "trained"
            reason = f"trial {earlier} {trained} this configuration already"
            return self._refuse_duplicate(trial, count, reason)
        job = Job(
            key=trial.number,
            hyperparameters=hyperparameters,
            epochs=self._settings.epochs,
            seed=seed,
            device=self._device,
            weights_path=self._weights_path and self._weights_path(trial._trial_id),
            metric=self._settings.metric,
        )
        self._running[trial.number] = _Running(trial, count)
        worker = self._pool.submit(job)
        return TrialStarted(trial.number, worker, count, draw.n_redraws)

    def _refuse_too_large(self, trial: Trial, count: int) -> SearchEvent:
        """Only a configuration made by hand comes here: the sampler draws none over the cap."""
        reason = f"{count:,} parameters are not fewer than the budget of {self._settings.budget:,}"
        trial.set_constraint("parameters", count - self._settings.budget + 1)
        TrialRecord(reason=reason).write(self._study, trial._trial_id)
        self._study.tell(trial, state=TrialState.PRUNED)
        return TrialEnded(trial.number, TrialState.PRUNED, count, reason=reason)

    def _refuse_duplicate(self, trial: Trial, count: int, reason: str) -> SearchEvent:
        """What is queued comes here, and what was drawn where nothing new could be found.

        FAIL, not PRUNED: to a sampler, a pruned trial says that its configuration is weak.
        """
        fail(self._study, self._frozen(trial), reason)
        return TrialEnded(trial.number, TrialState.FAIL, count, reason=reason, is_duplicate=True)

    def _training_seed(self, number: int) -> int:
        return int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])

    def _handle(self, event: Event) -> None:
        running = self._running.get(event.key)
        if running is None:
            return  # pruned or gone; its worker heard of it later
        published: list[SearchEvent] = []
        with self._unless_gone(running.trial):
            match event:
                case JobEpoch(worker=worker, result=result):
                    published = self._store_epoch(running, worker, result)
                case JobDone(worker=worker, seconds=seconds):
                    published = [self._store_done(running, worker, seconds)]
                case JobFailed():
                    published = [self._store_failed(running, event)]
        for search_event in published:
            self._publish(search_event)

    def _publish(self, event: SearchEvent) -> None:
        if isinstance(event, TrialEnded) and event.is_last_word:
            failed = event.state == TrialState.FAIL
            self._n_failures_in_a_row = self._n_failures_in_a_row + 1 if failed else 0
        if isinstance(event, TrialEnded):
            self._published.add(event.number)
        self._listener(event)
        if self._n_failures_in_a_row >= _MAX_FAILURES_IN_A_ROW:
            assert isinstance(event, TrialEnded)
            raise TrainingError(
                f"Trials must be trainable, but {self._n_failures_in_a_row} in a row failed; the "
                f"last one: {event.reason}. Mend that, in the space perhaps, and the same command "
                "goes on."
            )

    def _store_epoch(
        self, running: _Running, worker: int, result: EpochResult
    ) -> list[SearchEvent]:
        trial = running.trial
        running.results.append(result)
        with batch_writes(self._study):
            TrialRecord(epochs=running.results).write(self._study, trial._trial_id)
            is_weak = self._pruning.report(
                trial, running.parameter_count, result.epoch, result.accuracy
            )
        published: list[SearchEvent] = [TrialEpoch(trial.number, worker, result)]
        if not result.is_finite:
            published.append(self._store_pruned(running, worker, "the loss is not finite"))
        elif is_weak and result.epoch < self._settings.epochs:
            published.append(
                self._store_pruned(running, worker, f"weak after epoch {result.epoch}")
            )
        return published

    def _store_pruned(self, running: _Running, worker: int, reason: str) -> SearchEvent:
        trial = running.trial
        self._pool.cancel(trial.number)
        with batch_writes(self._study):
            seconds = sum(result.seconds for result in running.results)
            self._store_origin(trial, worker, seconds)
            TrialRecord(reason=reason).write(self._study, trial._trial_id)
        self._study.tell(trial, state=TrialState.PRUNED)
        self._pruning.end(trial.number, None)
        self._end(running)
        return running.ended(TrialState.PRUNED, reason=reason)

    def _store_done(self, running: _Running, worker: int, seconds: float) -> SearchEvent:
        trial = running.trial
        value = last_epochs_mean(running.results)
        with batch_writes(self._study):
            self._store_origin(trial, worker, seconds)
        sizes = [running.parameter_count] * (len(self._study.directions) - 1)
        self._study.tell(trial, [value, *sizes])
        self._pruning.end(trial.number, value)
        self._end(running)
        return running.ended(TrialState.COMPLETE, value=value)

    def _store_origin(self, trial: Trial, worker: int, seconds: float) -> None:
        record = TrialRecord(worker=f"{socket.gethostname()}/{worker}", seconds=seconds)
        record.write(self._study, trial._trial_id)

    def _store_failed(self, running: _Running, event: JobFailed) -> SearchEvent:
        frozen = self._frozen(running.trial)
        if frozen.state != TrialState.RUNNING:  # a person ended it first
            self._end(running)
            return running.ended(None, reason=_BY_SOMEBODY_ELSE)
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
        self._end(running)
        return running.ended(TrialState.FAIL, reason=event.reason, is_requeued=is_requeued)

    def _end(self, running: _Running) -> None:
        del self._running[running.trial.number]
        self._slowest_seconds = max(self._slowest_seconds, running.epoch_seconds)

    def _end_failed(self, trial: Trial, reason: str) -> SearchEvent:
        fail(self._study, self._frozen(trial), reason)
        return TrialEnded(trial.number, TrialState.FAIL, reason=reason)

    def _frozen(self, trial: Trial) -> FrozenTrial:
        return self._study._storage.get_trial(trial._trial_id)

    @contextmanager
    def _unless_gone(self, trial: Trial) -> Iterator[None]:
        """Drops a trial that a person failed or deleted in the dashboard, and goes on."""
        try:
            yield
        except (UpdateFinishedTrialError, KeyError, ValueError):
            if self._is_running(trial):
                raise  # the error is about something else
            running = self._running.pop(trial.number, None)
            if running is not None:
                self._pool.cancel(trial.number)
                self._publish(running.ended(None, reason=_BY_SOMEBODY_ELSE))

    def _is_running(self, trial: Trial) -> bool:
        try:
            return self._frozen(trial).state == TrialState.RUNNING
        except KeyError:
            return False

    def _requeue_running(self) -> None:
        """Under the lock, if it comes soon: a search that takes this one for lost does the same."""
        if not self._running:
            return
        end = time.monotonic() + _LONGEST_LEAVE_SECONDS
        with self._sharing.lock(lambda: time.monotonic() > end):
            for running in list(self._running.values()):
                self._pool.cancel(running.trial.number)
                with self._unless_gone(running.trial):
                    requeue(self._study, self._frozen(running.trial))
        self._running.clear()
