"""A search from request to result: plan it, open its study, run it.

plan = plan_search(SearchRequest(budget=8000, epochs=15))   # checks all, writes nothing
with begin_search(plan) as search:                          # opens the study
    outcome = search.run(print, should_stop=lambda: False)
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from optuna.study import Study

from search.data.dataset import Dataset, dataset_files, default_data_dir, is_available, load_dataset
from search.data.names import short_name
from search.exceptions import DataUnavailableError, InputError, SpaceError, StudyError
from search.folders import make_folder
from search.report.artifacts import artifact_folder
from search.report.dashboard_sync import Story
from search.results.confirm import Confirming, RepeatEnded
from search.results.target import TARGET_SEEDS, TARGET_TRIALS, Step, judge
from search.space.space import Space
from search.splits import SPLITS
from search.storage.cached import MirroredStorage
from search.storage.open import has_studies, opened_storage
from search.storage.retrying import Waiting
from search.study.repeat_runs import KeptRuns
from search.study.settings import (
    RunRecord,
    StudySettings,
    create_or_open_study,
    last_used,
    open_study,
    record_run,
    run_records,
    study_names,
    unless_deleted,
)
from search.study.sharing import Sharing, sharing, turn_to_open
from search.study.summary import CONFIRMS, Tally, best_trial, confirmed_number, is_trained, tally
from search.training.metrics import check_metric, sample_size
from search.training.train import find_device
from search.tuner.coordinator import Coordinator, Outcome, SearchEvent, TrialEnded
from search.tuner.patience import Patience
from search.tuner.pruners import make_pruner
from search.tuner.request import (
    SearchRequest,
    check_engine,
    check_request,
    load_space,
    n_objectives,
)
from search.tuner.sampler import make_sampler
from search.tuner.warm_start import WarmStart, queue_rest, warm_start
from search.wording import install_words
from search.workers.jobs import Pool
from search.workers.local_pool import WorkerPool, default_worker_count
from search.workers.resources import Resources

CONFIRMED_FROM = 20  # trained trials
_CONFIRMED_TRIALS, _CONFIRMED_SEEDS = 3, 3
_CONFIRMATION_LIMIT = 0.25  # of the seconds that the search's trials trained
_LONGEST_TURN_SECONDS = 2.0  # to wait for, before a story is told another time instead
_CONFIRMATION_SHARE = 0.2  # of a limited time: a quarter of the rest


@dataclass(frozen=True)
class SearchPlan:
    """What a search will do, all of it checked.

    Args:
        dataset_note: why this data set, and how to get another; empty where it was asked for.
        warm_start: what a new study tries first; None where nothing was asked for, or it has
            trials.
        resources: what each worker takes of a Ray cluster; None where they run on this machine.
    """

    request: SearchRequest
    dataset: Dataset
    dataset_note: str
    space: Space
    study_name: str
    device: str
    n_workers: int
    warm_start: WarmStart | None
    resources: Resources | None = None


@contextmanager
def opened_engine(request: SearchRequest) -> Iterator[None]:
    """What the workers of a search need for as long as it is planned and runs.

    Raises:
        InputError: if it is not there, or the request names what does not go together.
    """
    resources = check_engine(request)
    if resources is None:
        yield
        return
    n_cpus = math.ceil((request.n_workers or 0) * resources.cpu)
    with _ray().connected(request.ray_address, n_cpus=max(n_cpus, default_worker_count())):
        yield


def _ray() -> ModuleType:
    """`search.workers.ray_pool`, which imports Ray.

    Raises:
        InputError: if Ray is not installed.
    """
    try:
        from search.workers import ray_pool
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise InputError(
            f"The engine ray must have Ray installed, but it is not; {install_words('ray')}."
        ) from error
    return ray_pool


def plan_search(request: SearchRequest) -> SearchPlan:
    """Checks a request and loads its data.

    Writes nothing besides a downloaded data set and, at last, the folders of the workers' logs and
    of artifacts, where the request names them.

    Raises:
        InputError: if anything asked for is wrong.
    """
    check_request(request)
    resources = check_engine(request)
    if resources is None:
        device, n_workers = str(find_device(request.device)), default_worker_count()
    else:
        device, n_workers = resources.device, _ray().n_actors(resources)
    dataset, note = _choose_dataset(request)
    info = dataset.info
    space = load_space(request, info.input_shape, info.n_classes)
    _check_batches(space, info.n_training)
    study_name = _study_name(request, info.name) if request.study is None else request.study
    warm_start = _plan_warm_start(request, study_name, space)
    if request.worker_log is not None:
        make_folder(request.worker_log, option="--worker-log")
    if request.artifacts is not None:
        make_folder(request.artifacts, option="--artifacts")
    return SearchPlan(
        request=request,
        dataset=dataset,
        dataset_note=note,
        space=space,
        study_name=study_name,
        device=device,
        n_workers=request.n_workers or n_workers,
        warm_start=warm_start,
        resources=resources,
    )


def _study_name(request: SearchRequest, dataset: str) -> str:
    size = "" if request.objective == "accuracy" else "-by-size"
    return f"{short_name(dataset)}-{request.budget}x{request.epochs}{size}"


def _check_batches(space: Space, n_training: int) -> None:
    """Raises SpaceError where all batches of the space are larger than the training set."""
    smallest = space.smallest_batch()
    if smallest > n_training:
        raise SpaceError(
            f"Batches must not be larger than the training set, but the space {space.name} has "
            f"batches of {smallest} images, and {n_training:,} train; take more images, or --space "
            "FILE with a file whose line 'batch_size = 16' sets a smaller one."
        )


@dataclass(frozen=True)
class Race:
    """The race at the end of a search.

    Args:
        confirming: None where there is none to run.
        is_elsewhere: whether another search of the study runs it.
    """

    confirming: Confirming | None
    is_elsewhere: bool = False


@dataclass(frozen=True)
class Search:
    """A search whose study is open.

    Args:
        before: the study as it was found, once what a dead search left behind was put right.
        n_swept: how many trials that was.
        n_workers: how many there will be; never more than trials are missing.
        started: when, by the monotonic clock.
        sharing: how it shares the study with searches on other hosts.
        ended_before: numbers of the trials that had ended by then.
        story: what optuna-dashboard shows of it besides the trials.
        queued: what was put in the queue from an earlier study; None where that was not to be
            done.
    """

    plan: SearchPlan
    study: Study
    before: Tally
    n_swept: int
    n_workers: int
    started: float
    sharing: Sharing
    ended_before: frozenset[int]
    story: Story
    queued: WarmStart | None = None

    @property
    def patience(self) -> Patience | None:
        n_trials = self.plan.request.patience
        metric = check_metric(self.plan.request.metric)
        n_validation = sample_size(metric, self.plan.dataset.info.class_counts)
        return None if n_trials is None else Patience(n_trials, n_validation)

    def over(self) -> Outcome | None:
        """Why there is nothing to run, or None where there is something."""
        if self.before.n_trained >= self.plan.request.n_trials:
            return Outcome.REACHED
        trials = self.study.get_trials(deepcopy=False)
        if self.patience is not None and self.patience.is_over(trials):
            return Outcome.NO_BETTER
        return None

    def run(
        self, listener: Callable[[SearchEvent], None], *, should_stop: Callable[[], bool]
    ) -> Outcome:
        """Searches until the study has its trials, time or patience is over, or `should_stop`.

        Of a limited time, a fifth is left for `confirm`, where the study has the trials for it.

        Raises:
            KeyError: if somebody deletes the study meanwhile.
            TrainingError: if workers cannot be started, or trial after trial fails.
            ArtifactError: if learning curves cannot be written.
        """

        def tell(event: SearchEvent) -> None:
            listener(event)
            if isinstance(event, TrialEnded):
                self.story.tell_if_due()

        with self._pool(self.n_workers, log_folder=self.plan.request.worker_log) as pool:
            outcome = Coordinator(
                self.study,
                pool,
                n_trials=self.plan.request.n_trials,
                seed=self.plan.request.seed,
                device=self.plan.device,
                listener=tell,
                should_stop=should_stop,
                patience=self.patience,
                is_time_over=self._is_search_over,
                trial_timeout_seconds=self.plan.request.trial_timeout_seconds,
                sharing=self.sharing,
                known=self.ended_before,
                weights_path=self.story.weights_path,
            ).run()
        if outcome is not Outcome.INTERRUPTED:  # who interrupts it waits for its end
            self.story.tell(has_time=True)
        return outcome

    @contextmanager
    def race(self, should_stop: Callable[[], bool]) -> Iterator[Race]:
        """The race at the end of the search, of which one runs at a time.

        A study of 20 trained trials or more races its best three over three seeds, for at most a
        quarter of the time that its trials trained; fewer than three where that is too little to
        run each twice. For a target, any study does, over five seeds
        and without that limit.

        Where another search of the study runs it, this one waits under a target, because what
        follows depends on who wins.

        Raises:
            StudyError: if the name of the study that keeps the race's runs is taken.
        """

        def should_wait() -> bool:
            has_target = self.plan.request.target is not None
            return has_target and not should_stop() and not self.is_time_over()

        with self.sharing.race(should_wait) as is_ours:
            if is_ours:
                yield Race(_race_at_the_end(self.study, self.plan.request))
            else:
                yield Race(None, is_elsewhere=True)

    def confirm(
        self,
        confirming: Confirming,
        listener: Callable[[RepeatEnded], None],
        *,
        should_stop: Callable[[], bool],
    ) -> None:
        """Runs a race until it is decided, the time is over, or `should_stop`.

        Raises:
            TrainingError: if workers cannot be started.
        """
        if confirming.next() is None:
            return
        with self._pool(self.plan.n_workers) as pool:
            confirming.run(
                pool,
                device=self.plan.device,
                listener=listener,
                should_stop=lambda: should_stop() or self.is_time_over(),
            )

    def is_time_over(self) -> bool:
        """Whether all of the time that was asked for is over."""
        return self._is_over(share=1.0)

    @contextmanager
    def _pool(self, n_workers: int, *, log_folder: Path | None = None) -> Iterator[Pool]:
        with dataset_files(self.plan.dataset, with_test=False) as files:
            resources = self.plan.resources
            made: AbstractContextManager[Pool] = (
                WorkerPool(n_workers, files, log_folder=log_folder)
                if resources is None
                else _ray().RayPool(n_workers, files, resources=resources, log_folder=log_folder)
            )
            with made as pool:
                yield pool

    def _is_search_over(self) -> bool:
        """Whether the time is over but for what `confirm` needs."""
        if self.is_time_over():
            return True
        return (
            _confirms(self.plan.request)
            and self._is_over(share=1 - _CONFIRMATION_SHARE)
            and (self._n_trained() >= CONFIRMED_FROM or self.plan.request.target is not None)
        )

    def _is_over(self, *, share: float) -> bool:
        """Whether that share of the time is over, where it is limited."""
        timeout = self.plan.request.timeout_seconds
        return timeout is not None and time.monotonic() - self.started >= share * timeout

    def _n_trained(self) -> int:
        return tally(self.study.get_trials(deepcopy=False)).n_trained


def _confirms(request: SearchRequest) -> bool:
    """Whether a race is to follow: with two objectives there is no one best."""
    return request.confirm and request.objective == "accuracy"


def _race_at_the_end(study: Study, request: SearchRequest) -> Confirming | None:
    """What `Search.confirming` says."""
    trials = study.get_trials(deepcopy=False)
    if not _confirms(request) or best_trial(trials) is None:
        return None
    if request.target is not None:
        return Confirming(study, top=TARGET_TRIALS, n_seeds=TARGET_SEEDS)
    if tally(trials).n_trained < CONFIRMED_FROM:
        return None
    seconds = [trial.user_attrs.get("seconds", 0.0) for trial in trials if is_trained(trial)]
    limit = _CONFIRMATION_LIMIT * sum(seconds)
    # One run of each would tell nothing: rather fewer trials, each run twice.
    n_affordable = int(limit / (2 * max([*seconds, 1e-3])))
    confirming = Confirming(
        study,
        top=min(_CONFIRMED_TRIALS, max(1, n_affordable)),
        n_seeds=_CONFIRMED_SEEDS,
        limit_seconds=limit,
    )
    is_due = confirming.next() is not None or (
        confirming.n_kept > 0 and confirmed_number(study.user_attrs, trials) is None
    )
    return confirming if is_due else None


def judge_target(search: Search, confirming: Confirming) -> Step | None:
    """What a finished race says of the target that was asked for."""
    request = search.plan.request
    assert request.target is not None
    return judge(
        confirming,
        cap=request.budget,
        target=request.target.accuracy,
        confidence=request.target.confidence,
    )


def next_request(search: Search, step: Step) -> SearchRequest | None:
    """The search under the next lower cap; None where no network of the space fits under it."""
    request = search.plan.request
    if replace(search.plan.space, parameter_cap=step.next_cap).smallest_count() >= step.next_cap:
        return None
    timeout = request.timeout_seconds
    if timeout is not None:
        timeout = max(1.0, timeout - (time.monotonic() - search.started))
    return replace(
        request,
        budget=step.next_cap,
        dataset=_same_dataset(search.plan),
        study=None if request.study is None else _lower_name(request, step.next_cap),
        from_study=search.plan.study_name,
        timeout_seconds=timeout,
    )


def _same_dataset(plan: SearchPlan) -> str | Dataset:
    """What `auto` came to, or what was asked for."""
    asked = plan.request.dataset
    return asked if isinstance(asked, Dataset) else plan.dataset.info.name


def _lower_name(request: SearchRequest, cap: int) -> str:
    """A named study's name with a lower budget behind it."""
    assert request.study is not None
    return f"{request.study.removesuffix(f'-{request.budget}')}-{cap}"


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
    settings = StudySettings.of(
        budget=request.budget,
        epochs=request.epochs,
        info=plan.dataset.info,
        space=plan.space,
        objective=request.objective,
        metric=check_metric(request.metric),
    )
    with opened_storage(request.storage, create=True, waiting=waiting) as storage:
        with turn_to_open(storage, plan.study_name):
            study = create_or_open_study(MirroredStorage(storage), plan.study_name, settings)
        lost_after = request.lost_after_seconds
        with (
            sharing(study, request.storage, lost_after_seconds=lost_after) as shared,
            unless_deleted(study),
        ):
            if request.confirm:
                KeptRuns(study, CONFIRMS).check_name()
            story = Story(
                storage,
                study,
                artifact_folder(request.storage, request.artifacts),
                turn=lambda: shared.turn(_after(_LONGEST_TURN_SECONDS)),
            )
            with shared.turn(lambda: False):
                search = _begin(plan, study, shared, story, started)
            story.begin(is_alone=not shared.is_shared)
            yield search
            story.tell()


def _after(seconds: float) -> Callable[[], bool]:
    """What is true once so much time has passed."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def _begin(plan: SearchPlan, study: Study, shared: Sharing, story: Story, started: float) -> Search:
    """Puts right what a dead search left, and queues what is to be tried first."""
    request = plan.request
    n_swept = shared.take_back()
    trials = study.get_trials(deepcopy=False)
    before = tally(trials)
    n_workers = min(plan.n_workers, max(1, request.n_trials - before.n_trained))
    study.sampler = make_sampler(
        request.sampler,
        plan.space,
        request.budget,
        seed=request.seed,
        n_trials=len(trials),
        n_runs=len(run_records(study)) if shared.is_shared else 0,
        n_objectives=n_objectives(request),
    )
    study.pruner = make_pruner(request.pruner, epochs=request.epochs)
    record_run(
        study,
        RunRecord.now(
            sampler=request.sampler,
            pruner=request.pruner,
            seed=request.seed,
            device=plan.device,
            n_workers=n_workers,
            n_trials=request.n_trials,
            patience=request.patience,
            target=None if request.target is None else request.target.accuracy,
        ),
    )
    queued = plan.warm_start if not trials else None
    if queued is None:
        queued = queue_rest(study)
    else:
        queued.queue(study)
    if not trials and queued is None:
        _queue_first(study, plan.space, request.budget)
    ended = frozenset(trial.number for trial in trials if trial.state.is_finished())
    return Search(plan, study, before, n_swept, n_workers, started, shared, ended, story, queued)


def _queue_first(study: Study, space: Space, parameter_cap: int) -> None:
    """Queues the values with which the space says that a search begins, if it does."""
    values = space.first(parameter_cap)
    if values:
        study.enqueue_trial(values)


def _plan_warm_start(request: SearchRequest, study_name: str, space: Space) -> WarmStart | None:
    """What the study tries first; None where it has trials, so that the same command goes on."""
    name = request.from_study
    if name is None:
        return None
    if name == study_name:
        raise StudyError(
            f"A study must start from another one, but --from-study names {name!r} itself; leave "
            "it out to go on with that study, or name a new one with --study."
        )
    with opened_storage(request.storage) as storage:
        is_known = study_name in study_names(storage)
        if is_known and open_study(storage, study_name).get_trials(deepcopy=False):
            return None
        return warm_start(open_study(storage, name), space, request.budget)


def _choose_dataset(request: SearchRequest) -> tuple[Dataset, str]:
    """The data set asked for or, for `auto`, the one that is at hand; and why."""
    data_dir, size = request.data_dir or default_data_dir(), request.image_size
    if isinstance(request.dataset, Dataset):
        return request.dataset, ""
    if request.dataset != "auto":
        return load_dataset(request.dataset, data_dir, image_size=size), ""
    known = _known_study(request)
    if known is not None:
        study_name, settings = known
        dataset = load_dataset(
            settings.dataset, data_dir, image_size=settings.image_size if size is None else size
        )
        return dataset, f"that of {study_name}, which goes on"
    if is_available("mnist", data_dir):
        return load_dataset("mnist", data_dir, image_size=size), "found; another with --dataset"
    try:
        return load_dataset(
            "mnist", data_dir, image_size=size
        ), "downloaded; another with --dataset"
    except DataUnavailableError as error:
        note = (
            f"because MNIST is not in {data_dir} and could not be downloaded ({error.reason}); "
            "for MNIST name a folder that has it with --data-dir"
        )
        return load_dataset("digits", data_dir, image_size=size), note


def _known_study(request: SearchRequest) -> tuple[str, StudySettings] | None:
    """Name and settings of the study that this request would go on with, if there is one.

    That is the study it names; or else, of those of its budget and epochs on a built-in data set
    that still lack trials or their race, or whose search for a target may go on under lower caps,
    the one that was used last.
    """
    if not has_studies(request.storage):
        return None
    with opened_storage(request.storage) as storage:
        candidates = [request.study] if request.study else [_study_name(request, d) for d in SPLITS]
        studies = [open_study(storage, name) for name in study_names(storage) if name in candidates]
        found = [study for study in studies if "settings" in study.user_attrs]
        if request.study is None:  # a folder of images may be called as a built-in data set
            found = [
                study
                for study in found
                if StudySettings.from_study(study).dataset in SPLITS
                and _lacks_something(study, request)
            ]
        if not found:
            return None
        study = max(found, key=last_used)
        return study.study_name, StudySettings.from_study(study)


def _lacks_something(study: Study, request: SearchRequest) -> bool:
    """Whether a study lacks trials, its race, or a lower cap for the target of its last search."""
    if tally(study.get_trials(deepcopy=False)).n_trained < request.n_trials:
        return True
    if request.target is None and _race_at_the_end(study, request) is not None:
        return True
    records = run_records(study)
    target = None if request.target is None else request.target.accuracy
    return target is not None and bool(records) and records[-1].get("target") == target
