"""What a search would meet, looked at before PyTorch is loaded, which takes seconds.

What is wrong with the place that it writes to, with the study that it would go on with, or with
its data, is told at once. Imports nothing slow but Optuna.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from optuna.study import Study

from search.data.at_hand import check_at_hand
from search.data.names import (
    FOLDER,
    SPLITS,
    ImageSize,
    check_folder,
    check_image_size,
    folder_of,
)
from search.folders import check_folder_can_be_made
from search.report.artifact_files import artifact_folder
from search.space.adaptive import N_TRAINING
from search.space.space import Space
from search.space.toml import ADAPTIVE
from search.storage.checks import check_schema, check_sqlite_file, has_studies
from search.storage.open import opened_storage
from search.storage.studies import study_names
from search.storage.urls import parse_url, sqlite_path
from search.study.history import remembered_data_dir
from search.study.locks import check_unlocked
from search.study.open import open_study
from search.study.settings import (
    StudySettings,
    check_same,
    stored_network,
    stored_settings,
)
from search.tuner.known_study import known_study
from search.tuner.options import SearchRequest
from search.tuner.request import CheckedRequest, load_space, study_name
from search.tuner.warm_start import opened_source
from search.workers.ray_head import check_cluster
from search.workers.setup import check_worker_count, start_workers


def prepare_search(checked: CheckedRequest) -> None:
    """Looks at where a search would write, then starts what its workers are forked from.

    Call it before PyTorch is imported here: the server imports it meanwhile.

    Raises:
        InputError: as `check_search` does, if there is no temporary folder for the server, or if
            this machine, where they run on it, cannot hold so many workers.
        StudyError: if another process has the study to itself.
    """
    if checked.asked.ray_address is None:
        check_worker_count(checked.asked.n_workers)
    check_search(checked)
    _check_not_searched(checked.asked)
    start_workers(checked.resources)


def may_make_database() -> bool:
    """Whether a search makes its database where there is none.

    One of a queue does not: its job stands there. Where it is gone, nobody would know of a search.
    """
    return "SEARCH_JOB" not in os.environ


def check_search(checked: CheckedRequest) -> None:
    """Looks at where a search would write, and starts nothing.

    Raises:
        StorageError: if the storage cannot be opened, or cannot be written.
        StudyError: if the study was made with other settings, or is to start from one from which
            nothing can, as far as that can be told without the data.
        DataUnavailableError: if a built-in data set is neither there nor to be downloaded.
        InputError: if a folder that is named cannot be made, or no Ray cluster answers at the
            address that is named.
    """
    url = parse_url(checked.asked.storage)
    if url.get_backend_name() == "sqlite":
        check_sqlite_file(url, create=may_make_database(), write=True)
    else:
        check_schema(url, create=True, write=True, may_be_half_made=True)
    request = checked.asked
    check_cluster(request.ray_address)
    if request.worker_log is not None:
        check_folder_can_be_made(request.worker_log, option="--worker-log")
    artifacts = artifact_folder(request.storage, request.artifacts)
    if artifacts is not None:
        check_folder_can_be_made(artifacts, option="--artifacts")
    _check_study(checked)
    _check_source(request)
    if isinstance(request.dataset, str) and request.dataset in SPLITS:
        check_at_hand(request.dataset, named_data_dir(request))


def named_data_dir(request: SearchRequest) -> Path | None:
    """The folder of data that a request names, or that its study was told of before."""
    dataset = request.dataset
    if request.data_dir is not None or not isinstance(dataset, str) or dataset not in SPLITS:
        return request.data_dir
    with opened_study(request, study_name(request, dataset)) as study:
        return None if study is None else remembered_data_dir(study)


def stored_image_size(request: SearchRequest) -> ImageSize | None:
    """The size of the images of the study that a request goes on with; None where it is new."""
    dataset = _dataset_name(request)
    if dataset is None:
        return None
    with opened_study(request, study_name(request, dataset)) as study:
        if study is None:
            return None
        settings = StudySettings.from_study(study)
    return settings.image_size if settings.dataset == dataset else None


@contextmanager
def opened_study(request: SearchRequest, name: str) -> Iterator[Study | None]:
    """The study of that name which a search has made; None where there is none."""
    if not has_studies(request.storage):
        yield None
        return
    with opened_storage(request.storage) as storage:
        study = open_study(storage, name) if name in study_names(storage) else None
        yield None if study is None or stored_settings(study) is None else study


def stored_space(request: SearchRequest, name: str) -> Space | None:
    """The space in which the study of that name was begun; None where there is no such study."""
    with opened_study(request, name) as study:
        return None if study is None else StudySettings.from_study(study).search_space()


def _check_study(checked: CheckedRequest) -> None:
    request, dataset = checked.asked, _dataset_name(checked.asked)
    if request.study is None and dataset is None:
        return
    name = study_name(request, dataset or "")
    with opened_study(request, name) as study:
        if study is None:
            return
        stored = StudySettings.from_study(study)
    wanted = replace(
        stored,
        budget=request.budget,
        epochs=request.epochs,
        objective=request.objective,
        metric=checked.metric,
        dataset=stored.dataset if dataset is None else dataset,
        network=None if checked.network is None else stored_network(checked.network),
    )
    asked = request.image_size  # without one, a study goes on with its own
    if asked is not None and dataset == stored.dataset and folder_of(dataset) is not None:
        sides = check_image_size(asked)
        wanted = replace(wanted, input_shape=(stored.input_shape[0], *sides))
    # Other data may have images of another shape. And what adapts has done so for the study.
    # And what a user's file takes over of the training, only running it tells.
    is_told = request.space != ADAPTIVE and stored.network is None and wanted.network is None
    if wanted.dataset == stored.dataset and is_told:
        n_training = stored.known_split.n_training if stored.known_split else N_TRAINING
        space = load_space(request, wanted.input_shape, wanted.n_classes, n_training)
        wanted = replace(wanted, space_name=space.name, space=dict(space.table))
    check_same(name, stored, wanted)


def _check_not_searched(request: SearchRequest) -> None:
    path, dataset = sqlite_path(request.storage), _dataset_name(request)
    if path is None:
        return
    if request.study is None and dataset is None:
        known = known_study(request)
        if known is None:
            return
        name = known[0]
    else:
        name = study_name(request, dataset or "")
    with opened_study(request, name) as study:
        if study is not None:
            check_unlocked(path, study)


def _check_source(request: SearchRequest) -> None:
    dataset = _dataset_name(request)
    if request.from_study is not None and (request.study is not None or dataset is not None):
        name = study_name(request, dataset or "")
        with opened_source(request.storage, request.from_study, name):
            pass


def _dataset_name(request: SearchRequest) -> str | None:
    """The name of the data as a study keeps it; None where that is not known yet."""
    dataset = request.dataset
    if not isinstance(dataset, str):
        return dataset.info.name
    folder = folder_of(dataset)
    if folder is not None:
        return f"{FOLDER}{check_folder(folder)}"
    return dataset if dataset in SPLITS else None
