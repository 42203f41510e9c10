"""What a search would meet, looked at before PyTorch is loaded, which takes seconds.

What is wrong with the place that it writes to, with the study that it would go on with, or with
its data, is told at once. Imports nothing slow but Optuna.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from search.data.at_hand import check_at_hand
from search.data.names import (
    DEFAULT_IMAGE_SIZE,
    FOLDER,
    SPLITS,
    check_folder,
    folder_of,
)
from search.storage.checks import check_sqlite_file, has_studies
from search.storage.open import opened_storage
from search.storage.urls import parse_url
from search.study.history import remembered_data_dir
from search.study.open import open_study, study_names
from search.study.settings import StudySettings, check_same, stored_settings
from search.tuner.options import SearchRequest
from search.tuner.request import CheckedRequest, load_space, study_name
from search.workers.setup import start_workers


def prepare_search(checked: CheckedRequest) -> None:
    """Looks at where a search would write, then starts what its workers are forked from.

    Call it before PyTorch is imported here: the server imports it meanwhile.

    Raises:
        StorageError: if the storage cannot be opened, or cannot be written.
        StudyError: if the study was made with other settings, as far as that can be told without
            the data.
        DataUnavailableError: if a built-in data set is neither there nor to be downloaded.
        InputError: if there is no temporary folder for the server.
    """
    url = parse_url(checked.asked.storage)
    if url.get_backend_name() == "sqlite":
        check_sqlite_file(url, create=True, write=True)
    if has_studies(checked.asked.storage):
        _check_study(checked)
    request = checked.asked
    if isinstance(request.dataset, str) and request.dataset in SPLITS:
        check_at_hand(request.dataset, named_data_dir(request))
    start_workers(checked.resources)


def named_data_dir(request: SearchRequest) -> Path | None:
    """The folder of data that a request names, or that its study was told of before."""
    dataset = request.dataset
    if request.data_dir is not None or not isinstance(dataset, str) or dataset not in SPLITS:
        return request.data_dir
    if not has_studies(request.storage):
        return None
    with opened_storage(request.storage) as storage:
        name = study_name(request, dataset)
        known = {study.study_name: study for study in storage.get_all_studies()}
        return remembered_data_dir(known[name]) if name in known else None


def _check_study(checked: CheckedRequest) -> None:
    request, dataset = checked.asked, _dataset_name(checked)
    if request.study is None and dataset is None:
        return
    name = study_name(request, dataset or "")
    with opened_storage(request.storage) as storage:
        if name not in study_names(storage):
            return
        study = open_study(storage, name)
        if stored_settings(study) is None:
            return
        stored = StudySettings.from_study(study)
    wanted = replace(
        stored,
        budget=request.budget,
        epochs=request.epochs,
        objective=request.objective,
        metric=checked.metric,
        dataset=stored.dataset if dataset is None else dataset,
    )
    if dataset == stored.dataset and folder_of(dataset) is not None:
        size = request.image_size or DEFAULT_IMAGE_SIZE
        wanted = replace(wanted, input_shape=(stored.input_shape[0], size, size))
    if wanted.dataset == stored.dataset:  # else its images may have another shape
        space = load_space(request, wanted.input_shape, wanted.n_classes)
        wanted = replace(wanted, space_name=space.name, space=dict(space.table))
    check_same(name, stored, wanted)


def _dataset_name(checked: CheckedRequest) -> str | None:
    """The name of the data as a study keeps it; None where that is not known yet."""
    dataset = checked.asked.dataset
    if not isinstance(dataset, str):
        return dataset.info.name
    folder = folder_of(dataset)
    if folder is not None:
        return f"{FOLDER}{check_folder(folder)}"
    return dataset if dataset in SPLITS else None
