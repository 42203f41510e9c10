"""The loop of a search: see what is new, start what is missing, write what workers send."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from search.study.history import StudyLength
from search.study.length import is_stagnant
from search.study.news import TrialNews
from search.study.record import TrialRecord
from search.study.repair import requeue
from search.study.settings import StudySettings
from search.study.sharing import Sharing
from search.study.summary import first_trial, is_trained
from search.study.trials import trials_of
from search.tuner.events import Outcome, SearchEvent, TrialEnded, TrialEpoch, TrialStarted
from search.tuner.trial_starter import TrialStarter
from search.tuner.trial_writer import RunningTrial, TrialWriter, stored_trial
from search.workers.jobs import Event, JobDone, JobEpoch, JobFailed, WorkerPool

_WAIT_SECONDS = 0.5
_LONGEST_LEAVE_SECONDS = 2.0  # for the lock at the end of a search, which must end within five
# A trial that takes so much longer than the slowest one is taken for hung.
_HUNG_FACTOR = 10
_LEAST_LIMIT_SECONDS = 60.0  # whatever the others took: a machine may be busy for a while


class Coordinator:
    """Runs one study until enough trials are trained.

    Args:
        study: opened with a `CappedSampler` and a pruner.
        length: when the study is to end. Once its patience is over no trial is started; one that
            runs may still bring progress.
        n_validation: images that each value is the accuracy on.
        seed: from which, with the trial's number, each training seed follows.
        listener: told each `SearchEvent` as it happens.
        should_stop: asked about twice a second; true puts what runs back in the queue.
        is_time_over: asked as often; true does the same, with another outcome.
        trial_timeout_seconds: after which a trial's worker is taken for hung and killed; by default
            ten times as long as the slowest trial of this run would take, by the median of its
            epochs, and a minute at least.
        sharing: how it shares the study with searches on other hosts.
        known: numbers of the trials whose end the listener knows of.
        weights_path: where a trial's weights are to be written, by its number; None keeps none.
    """

    def __init__(
        self,
        study: Study,
        pool: WorkerPool,
        *,
        length: StudyLength,
        n_validation: int,
        seed: int,
        device: str,
        listener: Callable[[SearchEvent], None],
        should_stop: Callable[[], bool],
        is_time_over: Callable[[], bool],
        trial_timeout_seconds: float | None = None,
        sharing: Sharing,
        known: Iterable[int] = (),
        weights_path: Callable[[int], Path] | None = None,
    ) -> None:
        self._study = study
        self._pool = pool
        self._length = length
        self._n_validation = n_validation
        self._should_stop = should_stop
        self._is_time_over = is_time_over
        self._trial_timeout_seconds = trial_timeout_seconds
        self._sharing = sharing
        self._epochs = StudySettings.from_study(study).epochs
        self._writer = TrialWriter(study, listener, known=known)
        self._starter = TrialStarter(
            study, self._writer, sharing, seed=seed, device=device, weights_path=weights_path
        )
        # As of the last refresh:
        self._news = TrialNews()
        self._n_trained = 0
        self._is_stagnant = False
        self._open: Sequence[FrozenTrial] = ()
        self._ended_elsewhere: list[FrozenTrial] = []  # and are not told yet
        # Of this search:
        self._running: dict[int, RunningTrial] = {}
        self._slowest_seconds = 0.0  # an epoch, of the trials that have ended

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
                self._refresh()
                self._publish_elsewhere()
                self._start_missing()
                outcome = self._why_over()
                if outcome is not None:
                    return outcome
                self._handle_events()
                self._heartbeat()
                for trial in self._sharing.reclaim_lost(self._heartbeat_until_stopped):
                    self._writer.publish(TrialEnded.lost(trial))
                self._kill_overdue()
        finally:
            self._requeue_running()

    # --- What is known of the study ---

    def _refresh(self) -> None:
        """Takes note of what is new in the study, to which people and other searches write, too."""
        news = self._news.take_new(self._study)
        self._n_trained += sum(map(is_trained, news.finished))
        self._open = news.open
        if self._length.patience is not None and news.finished:
            trials = trials_of(self._study)
            self._is_stagnant = is_stagnant(self._length, trials, self._n_validation)
        if self._sharing.is_shared:
            self._ended_elsewhere += news.finished
        if not self._running:  # then it matters whether there is anything to start
            self._starter.refresh()

    @property
    def _n_elsewhere(self) -> int:
        """How many trials run in other searches of the study."""
        return self._sharing.n_elsewhere(self._open, self._running)

    @property
    def _n_missing(self) -> int:
        """How many more trials are to be started, if all that run now end well."""
        return self._length.n_trials - self._n_trained - len(self._running) - self._n_elsewhere

    def _has_next(self) -> bool:
        """Whether a trial waits, or the space has a configuration to try."""
        if any(trial.state == TrialState.WAITING for trial in self._open):
            return True
        return self._starter.has_untried

    def _why_over(self) -> Outcome | None:
        """Why the search is over; None while a trial runs, is to be started or to be told of."""
        if self._running or self._n_elsewhere > 0 or self._ended_elsewhere:
            return None
        if self._n_missing <= 0:
            return Outcome.REACHED
        if self._is_stagnant:
            return Outcome.NO_BETTER
        return None if self._has_next() else Outcome.EXHAUSTED

    def _publish_elsewhere(self) -> None:
        """Tells of the trials that ended in other searches of the study."""
        ended, self._ended_elsewhere = self._ended_elsewhere, []
        for trial in ended:
            if trial.number in self._running:  # somebody ended it, and its worker will hear of it
                self._ended_elsewhere.append(trial)
            else:
                self._writer.publish_elsewhere(trial)

    # --- Starting trials ---

    def _start_missing(self) -> None:
        """Starts what is missing, as far as there are workers."""
        while self._is_one_to_start():
            with self._sharing.lock(self._heartbeat_until_stopped) as is_ours:
                trial_id = self._reserve() if is_ours else None
            if trial_id is None:
                return
            trial = Trial(self._study, trial_id)
            with self._unless_gone(trial):
                self._starter.draw(trial)  # others need not wait for that
            with self._sharing.lock(self._heartbeat_until_stopped) as is_ours:
                if not is_ours:
                    requeue(self._study, stored_trial(trial))
                    return
                event = self._start(trial)
            if event is not None:
                self._writer.publish(event)

    def _is_one_to_start(self) -> bool:
        """Whether another trial is wanted, as of the last refresh, and there is a worker for it."""
        is_wanted = self._n_missing > 0 and not self._is_stagnant
        return is_wanted and self._pool.n_idle > 0 and not self._should_stop()

    def _reserve(self) -> int | None:
        """Reserves a trial, under the lock; None where none is missing, or nothing left to try."""
        self._refresh()
        self._starter.refresh()
        return self._starter.reserve() if self._n_missing > 0 and self._has_next() else None

    def _start(self, trial: Trial) -> SearchEvent | None:
        """Hands a trial out, or has it ended; returns what is to be told of that."""
        with self._unless_gone(trial):
            ready = self._starter.prepare(trial, self._running)
            if isinstance(ready, TrialEnded):
                return ready
            self._running[trial.number] = RunningTrial(
                trial, ready.parameter_count, is_first=self._is_first(trial)
            )
            worker = self._pool.submit(ready.job)
            return TrialStarted(trial.number, worker, ready.parameter_count, ready.n_redraws)
        return None

    def _is_first(self, trial: Trial) -> bool:
        """Whether the study began with a trial, or it repeats that one."""
        repeats = TrialRecord.read(stored_trial(trial)).repeats
        return trial.number == (0 if repeats is None else first_trial(trials_of(self._study)))

    # --- What workers send ---

    def _handle_events(self) -> None:
        for event in self._pool.events(_WAIT_SECONDS):
            running = self._running.get(event.key)
            if running is None:
                continue  # pruned or gone; its worker heard of it later
            published: list[SearchEvent] = []
            with self._unless_gone(running.trial):
                published = self._write(running, event)
            for search_event in published:
                self._writer.publish(search_event)

    def _write(self, running: RunningTrial, event: Event) -> list[SearchEvent]:
        """Has written what a worker sent; returns what is to be told of that."""
        number = running.trial.number
        match event:
            case JobEpoch(worker=worker, result=result):
                epoch = TrialEpoch(number, worker, result)
                reason = self._writer.add_epoch(running, result)
                if reason is None:
                    return [epoch]
                self._pool.cancel(number)
                return [epoch, self._end(self._writer.prune(running, worker, reason))]
            case JobDone(worker=worker, seconds=seconds):
                return [self._end(self._writer.complete(running, worker, seconds))]
            case JobFailed():
                return [self._end(self._writer.fail(running, event))]
        return []

    def _end(self, ended: TrialEnded) -> TrialEnded:
        running = self._running.pop(ended.number)
        self._slowest_seconds = max(self._slowest_seconds, running.epoch_seconds)
        return ended

    @contextmanager
    def _unless_gone(self, trial: Trial) -> Iterator[None]:
        """Drops a trial that a person failed or deleted in the dashboard, and goes on."""
        try:
            yield
        except (UpdateFinishedTrialError, KeyError, ValueError):
            if _is_running(trial):
                raise  # the error is about something else
            running = self._running.pop(trial.number, None)
            if running is not None:
                self._pool.cancel(trial.number)
                self._writer.publish(running.gone())

    # --- What keeps a search going, and its end ---

    def _heartbeat(self) -> None:
        """Says that what runs lives."""
        self._sharing.record_heartbeats(
            [running.trial._trial_id for running in self._running.values()]
        )

    def _heartbeat_until_stopped(self) -> bool:
        """Says so while a lock is waited for; returns whether to wait no longer."""
        self._heartbeat()
        return self._should_stop() or self._is_time_over()

    def _kill_overdue(self) -> None:
        """Kills what is taken for hung; until there is a trial to go by, nothing is."""
        limit = self._trial_timeout_seconds
        if limit is None:
            running = [running.epoch_seconds for running in self._running.values()]
            slowest = max([self._slowest_seconds, *running])
            if slowest == 0:
                return
            limit = max(_LEAST_LIMIT_SECONDS, _HUNG_FACTOR * slowest * self._epochs)
        self._pool.kill_overdue(limit)

    def _requeue_running(self) -> None:
        """Under the lock, if it comes soon: a search that takes this one for lost does the same."""
        if not self._running:
            return
        end = time.monotonic() + _LONGEST_LEAVE_SECONDS
        with self._sharing.lock(lambda: time.monotonic() > end):
            for running in list(self._running.values()):
                self._pool.cancel(running.trial.number)
                with self._unless_gone(running.trial):
                    requeue(self._study, stored_trial(running.trial))
        self._running.clear()


def _is_running(trial: Trial) -> bool:
    try:
        return stored_trial(trial).state == TrialState.RUNNING
    except KeyError:
        return False
