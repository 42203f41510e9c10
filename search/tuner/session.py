"""A search whose study is open: its trials trained, its best ones raced.

checked = check_request(SearchRequest(budget=8000, epochs=15))
plan = plan_search(checked)           # writes nothing
with begin_search(plan) as search:    # opens the study
    outcome = search.run(print, should_stop=lambda: False)
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from optuna.study import Study

from search.report.artifact_files import artifact_folder
from search.report.dashboard_sync import DashboardSync
from search.results.confirm import ConfirmationRun, RepeatEnded
from search.results.folds import Folds
from search.space.space import Space
from search.storage.cached import CachedStorage
from search.storage.collection import kept_from_collection, no_collection
from search.storage.open import opened_storage
from search.storage.retry import Waiting
from search.study.history import RunRecord, mark_exhausted, record_run, run_records
from search.study.length import is_stagnant
from search.study.open import create_or_open_study, unless_deleted
from search.study.repeat_runs import RepeatStore
from search.study.settings import StudySettings, mark_trials_from, marked_from
from search.study.sharing import Sharing, join_study, lock_to_open
from search.study.summary import CONFIRMS, Tally, tally
from search.study.trials import trials_of
from search.training.metrics import sample_size
from search.tuner.coordinator import Coordinator
from search.tuner.events import Outcome, SearchEvent, TrialEnded
from search.tuner.final_race import CONFIRMED_FROM, FinalRace, confirms, race_at_the_end
from search.tuner.plan import SearchPlan
from search.tuner.preflight import may_make_database
from search.tuner.pruners import make_pruner
from search.tuner.sampler import make_sampler
from search.tuner.warm_start import WarmStart, queue_rest

# To wait for a lock, before the dashboard is brought up to date another time instead.
_LONGEST_LOCK_SECONDS = 2.0
_CONFIRMATION_SHARE = 0.25  # of a limited time: a third of the rest


@dataclass(frozen=True)
class Search:
    """A search whose study is open.

    Args:
        before: the study as it was found, once what a dead search left behind was put right.
        n_requeued: how many trials that was.
        n_workers: how many there will be; never more than trials are missing.
        started: when, by the monotonic clock.
        sharing: how it shares the study with searches on other hosts.
        ended_before: numbers of the trials that had ended by then.
        dashboard_sync: what optuna-dashboard shows of it besides the trials.
        queued: what was put in the queue from an earlier study; None where that was not to be
            done.
    """

    plan: SearchPlan
    study: Study
    before: Tally
    n_requeued: int
    n_workers: int
    started: float
    sharing: Sharing
    ended_before: frozenset[int]
    dashboard_sync: DashboardSync
    queued: WarmStart | None = None

    @property
    def n_validation(self) -> int:
        """Images that each value is an accuracy on, or scatters as one on so many does."""
        return sample_size(self.plan.checked.metric, self.plan.dataset.info.class_counts)

    def over(self) -> Outcome | None:
        """Why there is nothing to run, or None where there is something."""
        if self.before.n_trained >= self.plan.length.n_trials:
            return Outcome.REACHED
        if is_stagnant(self.plan.length, trials_of(self.study), self.n_validation):
            return Outcome.NO_BETTER
        return None

    def run(
        self, listener: Callable[[SearchEvent], None], *, should_stop: Callable[[], bool]
    ) -> Outcome:
        """Searches until the study has its trials, time or patience is over, or `should_stop`.

        Of a limited time, a quarter is left for `confirm`, where the study has the trials for it.

        Raises:
            KeyError: if somebody deletes the study meanwhile.
            TrainingError: if workers cannot be started, or trial after trial fails.
            ArtifactError: if learning curves cannot be written.
        """

        def tell(event: SearchEvent) -> None:
            listener(event)
            if isinstance(event, TrialEnded):
                self.dashboard_sync.update_if_due()

        with self.plan.workers.pool(
            self.plan.dataset,
            with_test=False,
            n_jobs=self.n_workers,
            log_folder=self.plan.request.worker_log,
        ) as pool:
            outcome = Coordinator(
                self.study,
                pool,
                length=self.plan.length,
                n_validation=self.n_validation,
                seed=self.plan.request.seed,
                device=self.plan.workers.device,
                listener=tell,
                should_stop=should_stop,
                is_time_over=self._is_search_over,
                trial_timeout_seconds=self.plan.request.trial_timeout_seconds,
                sharing=self.sharing,
                known=self.ended_before,
                weights_path=self.dashboard_sync.weights_path,
            ).run()
        if outcome is Outcome.EXHAUSTED:
            mark_exhausted(self.study)
        if outcome is not Outcome.INTERRUPTED:  # who interrupts it waits for its end
            self.dashboard_sync.update(has_time=True)
        return outcome

    @contextmanager
    def hold_race(self, should_stop: Callable[[], bool]) -> Iterator[FinalRace]:
        """The race at the end of the search, of which one runs at a time.

        A study of 8 trained trials or more races its best six and the one with which it began,
        twice through all parts of the data, for at most a third of the time that its trials
        trained, or four minutes of training where that is more; fewer trials where that is too
        little to run each twice, but the best and the first always. For a target, any study does,
        with five runs each and without that limit.

        Where another search of the study runs it, this one waits under a target, because what
        follows depends on who wins.

        Raises:
            StudyError: if the name of the study that keeps the race's runs is taken.
        """

        def should_wait() -> bool:
            has_target = self.plan.request.target is not None
            return has_target and not should_stop() and not self.is_time_over()

        with self.sharing.lock_race(should_wait) as is_ours:
            if is_ours:
                folds = Folds.of(self.plan.dataset.info, self.plan.checked.metric)
                yield FinalRace(race_at_the_end(self.study, self.plan.request, folds))
            else:
                yield FinalRace(None, is_elsewhere=True)

    def confirm(
        self,
        race: ConfirmationRun,
        listener: Callable[[RepeatEnded], None],
        *,
        should_stop: Callable[[], bool],
    ) -> None:
        """Runs a race until it is decided, the time is over, or `should_stop`.

        Raises:
            TrainingError: if workers cannot be started.
        """
        if race.next() is None:
            return
        with self.plan.workers.pool(self.plan.dataset, with_test=False) as pool:
            race.run(
                pool,
                device=self.plan.workers.device,
                listener=listener,
                should_stop=lambda: should_stop() or self.is_time_over(),
            )

    def is_time_over(self) -> bool:
        """Whether all of the time that was asked for is over."""
        return self._is_over(share=1.0)

    @property
    def seconds_allowed(self) -> float:
        """What is left of the time that was asked for; infinity where it is not limited."""
        timeout = self.plan.request.timeout_seconds
        return math.inf if timeout is None else max(0.0, self.started + timeout - time.monotonic())

    def _is_search_over(self) -> bool:
        """Whether the time is over but for what `confirm` needs."""
        if self.is_time_over():
            return True
        return (
            confirms(self.plan.request)
            and self._is_over(share=1 - _CONFIRMATION_SHARE)
            and (self._n_trained() >= CONFIRMED_FROM or self.plan.request.target is not None)
        )

    def _is_over(self, *, share: float) -> bool:
        """Whether that share of the time is over, where it is limited."""
        timeout = self.plan.request.timeout_seconds
        return timeout is not None and self.seconds_allowed <= (1 - share) * timeout

    def _n_trained(self) -> int:
        return tally(trials_of(self.study)).n_trained


@contextmanager
def begin_search(plan: SearchPlan, waiting: Waiting | None = None) -> Iterator[Search]:
    """Opens the study of a plan, made where it is missing.

    Args:
        waiting: for a database server that goes away meanwhile; by default, there is none.

    Raises:
        StorageError: if the storage cannot be opened.
        StudyError: if the study was made with other settings, or is being searched already.
        StudyDeletedError: if somebody deletes the study while the context lasts.
        ArtifactError: if the folder of artifacts, or a file in it, cannot be written.
    """
    request, started = plan.request, time.monotonic()
    waiting = waiting or Waiting()
    settings = StudySettings.of(
        budget=request.budget,
        epochs=request.epochs,
        info=plan.dataset.info,
        space=plan.space,
        objective=request.objective,
        metric=plan.checked.metric,
    )
    with opened_storage(
        request.storage, create=may_make_database(), write=True, waiting=waiting
    ) as storage:
        with lock_to_open(storage, plan.study_name):
            study = create_or_open_study(CachedStorage(storage), plan.study_name, settings)
        with (
            join_study(
                study,
                request.storage,
                lost_after_seconds=request.lost_after_seconds,
                notice=waiting.notice,
            ) as shared,
            unless_deleted(study),
        ):
            if request.confirm:
                RepeatStore(study, CONFIRMS).check_name()
            dashboard_sync = DashboardSync(
                storage,
                study,
                artifact_folder(request.storage, request.artifacts),
                lock=lambda: shared.lock(_after(_LONGEST_LOCK_SECONDS)),
                notice=waiting.notice,
            )
            with no_collection():
                with shared.lock(lambda: False):
                    search = _begin(plan, study, shared, dashboard_sync, started)
                dashboard_sync.begin(is_alone=not shared.is_shared)
            with kept_from_collection():
                yield search
                dashboard_sync.update(is_leaving=True)


def _after(seconds: float) -> Callable[[], bool]:
    """What is true once so much time has passed."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def _begin(
    plan: SearchPlan, study: Study, shared: Sharing, dashboard_sync: DashboardSync, started: float
) -> Search:
    """Puts right what a dead search left, and queues what is to be tried first."""
    request = plan.request
    if marked_from(study) is None:  # an earlier version made it
        numbers = [trial.number for trial in trials_of(study)]
        mark_trials_from(study, 1 + max(numbers, default=-1))
    n_requeued = len(shared.requeue_orphans())
    trials = trials_of(study)
    before = tally(trials)
    n_workers = min(plan.workers.n_workers, max(1, plan.length.n_trials - before.n_trained))
    study.sampler = make_sampler(
        request.sampler,
        plan.space,
        seed=request.seed,
        n_trials=len(trials),
        n_runs=len(run_records(study)) if shared.is_shared else 0,
        n_objectives=plan.checked.n_objectives,
    )
    study.pruner = make_pruner(request.pruner, epochs=request.epochs)
    record_run(
        study,
        RunRecord.now(
            sampler=request.sampler,
            pruner=request.pruner,
            seed=request.seed,
            device=plan.workers.device,
            n_workers=n_workers,
            n_trials=plan.length.n_trials,
            patience=plan.length.patience,
            target=None if request.target is None else request.target.accuracy,
            data_dir=request.data_dir,
            network=request.network,
        ),
    )
    queued = plan.warm_start if not trials else None
    if queued is None:
        queued = queue_rest(study)
    else:
        queued.queue(study)
    if not trials and (queued is None or not queued.configurations):
        _queue_first(study, plan.space)
    return Search(
        plan=plan,
        study=study,
        before=before,
        n_requeued=n_requeued,
        n_workers=n_workers,
        started=started,
        sharing=shared,
        ended_before=frozenset(trial.number for trial in trials if trial.state.is_finished()),
        dashboard_sync=dashboard_sync,
        queued=queued,
    )


def _queue_first(study: Study, space: Space) -> None:
    """Queues the values with which the space says that a search begins, if it does."""
    values = space.first()
    if values:
        study.enqueue_trial(values)
