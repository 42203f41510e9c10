"""The best few trials of a search run again over fresh seeds: which is best, and how sure that is.

The top of a search is the luckiest of many. So its best trials race: each run has a seed that the
search has not used, and another part of the data validates it (`search.results.folds`);
`search.results.race` says who gets how many.
`search.study.repeat_runs` keeps every finished run at once, in a study named after the search with
`-confirmed` behind it, and with each the number of the trial that it repeats.
"""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from search.exceptions import StudyDeletedError, StudyError
from search.results.confirmation import Confirmation
from search.results.folds import Folds, Run
from search.results.race import SeedRace
from search.results.race_length import DRIFT, RacedTrial, lasting_values, play_through
from search.storage.cached import check_database
from search.study.findings import Findings, store_confirmation
from search.study.open import rebuild
from search.study.record import TrialRecord
from search.study.repeat_runs import NOT_FINITE, RepeatStore
from search.study.settings import StudySettings
from search.study.summary import (
    CONFIRMS,
    accuracy_of,
    by_accuracy,
    how_to_complete,
    training_seconds,
)
from search.study.trials import trials_of
from search.training.epochs import EpochResult
from search.workers.jobs import Event, Job, JobCancelled, JobDone, JobEpoch, JobFailed, WorkerPool

_FIRST_SEED = 1001  # not those that `retrain` and `baseline` count from 1
_WAIT_SECONDS = 0.5
_MOST_PLAYED = 400  # runs to come of a race that is played through, which takes a second then


@dataclass(frozen=True, slots=True)
class RepeatEnded:
    """A run of a candidate is over.

    Args:
        part: the part of the data that validated it; None where there is but one.
        value: the mean accuracy of its last three epochs; None where it came to nothing.
        reason: why it came to nothing.
    """

    trial: int
    part: int | None
    seed: int
    value: float | None
    reason: str | None = None


@dataclass
class ConfirmationRun:
    """A race of a study's best trials, ready to go on from the runs that are kept.

    Args:
        top: how many of the study's best trials take part; the winner of an earlier race does so
            beside them.
        besides: numbers of other trials that do, where they are complete.
        folds: the parts of the study's data.
        n_seeds: how often each is run at most; what is kept of earlier races counts all the same.
        limit_seconds: the most training time, of all workers and of all earlier races of the
            study together; None for no limit.
        clock: seconds, which only grow.

    Raises:
        StudyError: if the study has no complete trial, or the name for its runs is taken.
    """

    study: Study
    top: int
    folds: Folds
    n_seeds: int
    limit_seconds: float | None = None
    besides: Collection[int] = ()
    clock: Callable[[], float] = time.monotonic
    race: SeedRace = field(init=False)
    _n_allowed: int = field(init=False, default=0)
    _expected_end: float | None = field(init=False, default=None)  # by the clock
    _ended_seconds: float = field(init=False, default=0.0)  # of the runs that ended here
    _ended_trial_seconds: float = field(init=False, default=0.0)  # of the trials that they repeat

    def __post_init__(self) -> None:
        trials = trials_of(self.study)
        candidates = _candidates(self.study, trials, self.top, self.besides)
        self._trials = {trial.number: trial for trial in candidates}
        self._search_best = candidates[0].number
        self._hyperparameters = {trial.number: rebuild(self.study, trial) for trial in candidates}
        self._settings = StudySettings.from_study(self.study)
        self.race = SeedRace(
            [trial.number for trial in candidates],
            self.folds.runs(self.n_seeds, first_seed=_FIRST_SEED),
            self.folds.n_images,
        )
        self._spent_seconds = 0.0
        self.n_kept = 0
        self._repeat_store = RepeatStore(self.study, CONFIRMS)
        params = {trial.number: trial.params for trial in trials}
        for run in self._repeat_store.runs():
            record = TrialRecord.read(run)
            number, seed = record.candidate, record.training_seed
            # The parameters tell: a study may have been deleted and made again under its name.
            if number is None or seed is None or params.get(number) != run.params:
                continue
            self._spent_seconds += record.seconds or 0.0
            if number in self._trials:
                value = run.value if run.state == TrialState.COMPLETE else None
                self._enter(number, Run(record.part or 0, seed), value)

    @property
    def parameter_counts(self) -> dict[int, int]:
        """Of each candidate's network, by the number of its trial."""
        return {
            number: hyperparameters.spec.parameter_count
            for number, hyperparameters in self._hyperparameters.items()
        }

    def allow(self, n_runs: int) -> None:
        """Lets each candidate be run so often, kept runs included, however long that takes.

        The limit is raised to what is expected of it.
        """
        self._n_allowed = n_runs
        if self.limit_seconds is not None:
            lacking = sum(
                self._expected_seconds(number) * max(0, n_runs - self.race.n_runs(number))
                for number in self._trials
            )
            self.limit_seconds = max(self.limit_seconds, self._spent_seconds + lacking)

    def next(self, taken: Iterable[tuple[int, Run]] = ()) -> tuple[int, Run] | None:
        """The next trial and its run, none of `taken`; None where the limit leaves nothing."""
        taken = set(taken)
        following = self.race.next(taken)
        if following is None or self.limit_seconds is None:
            return following
        number, _ = following
        n_begun = self.race.n_runs(number) + sum(other == number for other, _ in taken)
        if n_begun < self._n_allowed:
            return following
        expected = self._spent_seconds + self._expected_seconds(number)
        return following if expected <= self.limit_seconds else None

    @property
    def seconds_left(self) -> float | None:
        """How long the race still takes; None before a run's first epoch, or of some hundred runs.

        It is told anew with each run that ends, and counts down in between.
        """
        end = self._expected_end
        return None if end is None else max(0.0, end - self.clock())

    def run(
        self,
        pool: WorkerPool,
        *,
        device: str,
        listener: Callable[[RepeatEnded], None],
        should_stop: Callable[[], bool],
    ) -> bool:
        """Runs the race to its end; false where `should_stop` ended it before.

        Raises:
            TrainingError: if workers cannot be started.
        """
        running: dict[int, _Running] = {}
        gone: set[tuple[int, Run]] = set()  # failed here: the next race tries them again
        n_jobs, n_workers = 0, 1
        try:
            while not should_stop():
                taken = {run.run_key for run in running.values()} | gone
                while pool.n_idle and (following := self.next(taken)):
                    running[n_jobs] = _Running(following, self.clock())
                    self._spent_seconds += self._expected_seconds(following[0])
                    pool.submit(self._job(n_jobs, *following, device=device))
                    taken.add(following)
                    n_jobs += 1
                if not running and self.next(taken) is None:
                    return True
                check_database(self.study)
                n_workers = max(n_workers, len(running))
                for event in pool.events(_WAIT_SECONDS):
                    if event.key in running:
                        self._take(event, running, gone, listener)
                        if self._expected_end is None or not isinstance(event, JobEpoch):
                            self._expect_end([*running.values()], gone, n_workers)
                self._cancel_the_hopeless(pool, running)
            return False
        finally:
            for key in running:
                pool.cancel(key)

    def _take(
        self,
        event: Event,
        running: dict[int, _Running],
        gone: set[tuple[int, Run]],
        listener: Callable[[RepeatEnded], None],
    ) -> None:
        running_job = running[event.key]
        number, run = running_job.run_key
        if isinstance(event, JobEpoch):
            running_job.results.append(event.result)
            return
        del running[event.key]
        self._spent_seconds -= self._expected_seconds(number)
        match event:
            case JobDone(seconds=seconds):
                self._spent_seconds += seconds
                self._ended_seconds += seconds
                self._ended_trial_seconds += self._trial_seconds(number)
                value = self._keep(number, run, running_job.results, seconds)
                reason = NOT_FINITE if value is None else None
                listener(self._ended(number, run, value, reason))
            case JobFailed(reason=reason):
                gone.add(running_job.run_key)
                listener(self._ended(number, run, None, reason))
            case JobCancelled():
                self._spent_seconds += sum(result.seconds for result in running_job.results)

    def _ended(self, number: int, run: Run, value: float | None, reason: str | None) -> RepeatEnded:
        part = run.part if self.folds.n_parts > 1 else None
        return RepeatEnded(number, part, run.seed, value, reason)

    def _cancel_the_hopeless(self, pool: WorkerPool, running: dict[int, _Running]) -> None:
        """Stops runs of candidates that are out by now."""
        for key, run in running.items():
            if self.race.is_out(run.run_key[0]):
                pool.cancel(key)

    def _expect_end(
        self, running: list[_Running], gone: Collection[tuple[int, Run]], n_workers: int
    ) -> None:
        """Tells anew when the race will be at its end."""
        racing = [number for number in self._trials if not self.race.is_out(number)]
        n_to_come = sum(max(0, self.n_seeds - self.race.n_runs(number)) for number in racing)
        if n_to_come > _MOST_PLAYED:
            return
        now, pace = self.clock(), self._pace(running)
        reached = {each.candidate: each.values for each in self.race.standings()}
        in_search = lasting_values([accuracy_of(trial) or 0.0 for trial in self._trials.values()])
        trials = {
            number: RacedTrial(
                statistics.fmean([value, *reached.get(number, ())]),
                pace * self._trial_seconds(number),
            )
            for number, value in zip(self._trials, in_search, strict=True)
        }
        limit = math.inf if self.limit_seconds is None else self.limit_seconds
        ends = [
            (max(0.0, run.begun + trials[run.run_key[0]].seconds - now), *run.run_key)
            for run in running
        ]
        self._expected_end = now + play_through(
            copy.deepcopy(self.race),
            trials,
            n_images=self.folds.n_images,
            limit_seconds=limit - self._spent_seconds,
            n_workers=n_workers,
            running=ends,
            gone=gone,
        )

    def _pace(self, running: list[_Running]) -> float:
        """How long runs take here, as a share of what their trials took.

        One run as long as its trial counts with them: a first epoch takes longer than the others.
        """
        took, expected = self._ended_seconds, self._ended_trial_seconds
        for run in running:
            took += sum(result.seconds for result in run.results)
            share = len(run.results) / self._settings.epochs
            expected += share * self._trial_seconds(run.run_key[0])
        one = statistics.fmean(map(self._trial_seconds, self._trials))
        return (took + one) / (expected + one) if one else 1.0

    def _trial_seconds(self, number: int) -> float:
        return training_seconds(self._trials[number])

    def _expected_seconds(self, number: int) -> float:
        return expected_seconds(self._trials[number])

    def _job(self, key: int, number: int, run: Run, *, device: str) -> Job:
        return Job(
            key=key,
            hyperparameters=self._hyperparameters[number],
            epochs=self._settings.epochs,
            seed=run.seed,
            part=run.part,
            device=device,
            metric=self._settings.metric,
        )

    def _keep(
        self, number: int, run: Run, results: list[EpochResult], seconds: float
    ) -> float | None:
        """Keeps a run that has ended; returns its value, None where its loss was not finite."""
        trial = self._trials[number]
        value = self._repeat_store.add(
            TrialRecord(
                candidate=number,
                part=run.part,
                training_seed=run.seed,
                parameter_count=self._hyperparameters[number].spec.parameter_count,
                seconds=seconds,
                epochs=results,
            ),
            params=trial.params,
            distributions=trial.distributions,
        )
        self._enter(number, run, value)
        return value

    def _enter(self, number: int, run: Run, value: float | None) -> None:
        if value is None:
            self.race.disqualify(number)
        else:
            self.race.add(number, run, value)
            self.n_kept += 1

    def finish(self) -> Confirmation | None:
        """What the race told, kept with the study if it tells anything; None without a good run."""
        standings = tuple(self.race.standings())
        if not standings or standings[0].is_out:
            return None
        values = {number: accuracy_of(trial) or 0.0 for number, trial in self._trials.items()}
        n_racing = sum(not self.race.is_out(number) for number in self.race.candidates)
        confirmation = Confirmation(
            standings,
            values,
            self._search_best,
            n_racing,
            self.race.luck_of_winning(),
            self.folds.n_images,
        )
        if confirmation.is_conclusive:
            try:
                store_confirmation(self.study, confirmation.to_attribute())
            except KeyError as error:
                raise StudyDeletedError(
                    f"The study must stay while it is confirmed, but {self.study.study_name!r} was "
                    "deleted."
                ) from error
        return confirmation


@dataclass(slots=True)
class _Running:
    run_key: tuple[int, Run]
    begun: float  # by the clock
    results: list[EpochResult] = field(default_factory=list)


def expected_seconds(trial: FrozenTrial) -> float:
    """A run is as long as its trial was, give or take what a machine's speed drifts by."""
    return DRIFT * (TrialRecord.read(trial).seconds or 0.0)


def _candidates(
    study: Study, trials: list[FrozenTrial], top: int, besides: Collection[int]
) -> list[FrozenTrial]:
    """The best complete trials, best first, then others, and the winner of an earlier race."""
    complete = by_accuracy(trials)
    if not complete:
        raise StudyError(
            f"A study must have a complete trial to confirm, but {study.study_name!r} has none "
            f"yet; {how_to_complete(study, trials)}."
        )
    earlier = (Findings.read(study).confirmation or {}).get("trial")
    others = {*besides, earlier}
    return complete[:top] + [trial for trial in complete[top:] if trial.number in others]
