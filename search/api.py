"""What Python programs and notebooks call: a search, its study, the best trial retrained."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path

import optuna
from optuna.study import Study

from search.data.dataset import Dataset
from search.folders import DATABASE_URL, as_path, default_folder
from search.plain_text import printable
from search.results.retrain import WeightsFolder, retrain
from search.space.network_files import NamedNetwork, check_network, load_network
from search.storage.open import opened_storage
from search.study.open import (
    check_same_data,
    check_study_data,
    load_study_data,
    open_trial,
    select_study,
)
from search.study.settings import StudySettings
from search.study.summary import tally
from search.study.trials import trials_of
from search.training.epochs import EpochResult
from search.tuner.events import Outcome, SearchEvent, TrialEnded
from search.tuner.options import SearchRequest
from search.tuner.preflight import prepare_search
from search.tuner.request import check_request, check_whole
from search.tuner.run import run_search as run_checked
from search.tuner.session import Search
from search.tuner.watcher import Listener, SearchWatcher
from search.tuner.words import describe_end, describe_outcome, describe_start
from search.workers.setup import prepare_workers


def run_search(request: SearchRequest, *, show: bool = True) -> Study:
    """Searches as `search run` does, and goes on where an earlier search of the study ended.

    An interrupt (Ctrl-C, a notebook's stop) is safe: the same call goes on. The processes that it
    starts know nothing of the program that calls it, which needs no main guard.

    Args:
        request: what `search run` takes as options.
        show: whether to print a line for each trial.

    Returns:
        The study, an ordinary one of Optuna; for a target, which takes a study for each cap, that
        of the smallest network that reached it or, where none did, of the last cap.

    Raises:
        InputError: if anything asked for is wrong; nothing was written then.
        TrainingError: if workers cannot be started, or trial after trial fails.
    """
    checked = check_request(request)
    prepare_search(checked)
    with _quiet_optuna():
        result = run_checked(checked, _PrintingWatcher() if show else SearchWatcher())
    return open_study(result.study, storage=request.storage)


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Leaves out what Optuna says of each study, which is said here in other words."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


class _PrintingWatcher(SearchWatcher):
    """Prints a line for each trial, and for what a search begins and ends with."""

    def begins(self, search: Search) -> None:
        print(printable(f"{search.plan.study_name}, {describe_start(search)}"))

    def listening(self, search: Search) -> AbstractContextManager[Listener]:
        return nullcontext(_print_event)

    def judged(self, search: Search, outcome: Outcome, *, is_stopped: bool) -> None:
        n_trained = tally(trials_of(search.study)).n_trained
        print(describe_outcome(outcome, n_trained, search.plan.length))


def _print_event(event: SearchEvent) -> None:
    if isinstance(event, TrialEnded):
        print(printable(describe_end(event)))


def open_study(name: str | None = None, *, storage: str = DATABASE_URL) -> Study:
    """A study of a database, as Optuna has it; without a name, the one that was used last.

    Raises:
        StorageError: if the database cannot be opened.
        StudyError: if there is no such study.
    """
    with ExitStack() as stack:
        study = select_study(stack.enter_context(opened_storage(storage, write=True)), name)
        weakref.finalize(study, stack.pop_all().close)  # once nobody uses it any more
    return study


def retrain_trial(
    study: Study,
    number: int | None = None,
    *,
    seeds: int = 3,
    dataset: Dataset | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    folder: str | os.PathLike[str] | None = None,
    n_workers: int | None = None,
    device: str = "auto",
    network: NamedNetwork | None = None,
) -> Path:
    """Trains a trial on training and validation images, once per seed, and tests it.

    Each seed is one look at the sealed test set, and is counted with the study.

    Args:
        study: from `open_study` or `run_search`.
        number: of the trial; by default the confirmed winner or else the best.
        dataset: the study's data, where it was searched on tensors.
        data_dir: the folder of the data sets; by default one in the user's cache.
        folder: for weights and card; by default `runs/STUDY/trial-N`.
        n_workers: by default one for each core that this process may use; never more than seeds.
        network: your file that builds the study's networks, or its function, where one does. It
            is run.

    Returns:
        The folder, for `search.load`.

    Raises:
        InputError: if the trial or the data of the study are not there, the folder cannot take
            weights, or `seeds` or `n_workers` is no whole number from 1 up; nothing was written
            then.
        TrainingError: if a training run cannot be finished.
    """
    check_whole("seeds", seeds)
    if n_workers is not None:
        check_whole("n_workers", n_workers)
    data_dir = None if data_dir is None else as_path(data_dir, "data_dir")
    folder = None if folder is None else as_path(folder, "folder")
    trial = open_trial(study, number)
    wanted, of = StudySettings.from_study(study).network_source, f"the study {study.study_name!r}"
    source = check_network(network, wanted, of=of, how="it as network, as network='net.py'.")
    if dataset is None:
        check_study_data(study, data_dir)
    workers = prepare_workers(n_workers, device)
    load_network(source)
    if dataset is None:
        dataset = load_study_data(study, data_dir)
    check_same_data(study, dataset.info)
    numbers = range(1, seeds + 1)
    target = WeightsFolder(folder or default_folder(study.study_name, trial.number), numbers)
    with workers.pool(dataset, with_test=True, n_jobs=seeds) as pool:
        retrain(
            study,
            trial,
            pool,
            dataset.info,
            seeds=numbers,
            device=workers.device,
            folder=target,
            listener=_ignore_epoch,
        )
    return target.path


def _ignore_epoch(seed: int, result: EpochResult) -> None:
    """The card keeps what each epoch gave."""
