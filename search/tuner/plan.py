"""What a search will do, all of it checked before anything is written."""

from __future__ import annotations

from dataclasses import dataclass, replace

from search.data.dataset import Dataset, DatasetInfo
from search.data.folder_layout import folder_layout
from search.data.idx_files import default_data_dir, is_available
from search.data.image_folders import image_sizes
from search.data.image_sizes import common_size
from search.data.load import load_dataset
from search.data.names import ImageSize, check_folder, folder_of
from search.exceptions import DataUnavailableError, SpaceError
from search.folders import make_folder
from search.space.file_space import FileSpace
from search.space.network_files import load_network
from search.space.probe import Probe, probe
from search.space.space import Space
from search.space.toml import ADAPTIVE, BUILT_IN, toml_value
from search.study.history import StudyLength, length_asked_before
from search.study.trials import trials_of
from search.tuner.known_study import known_study
from search.tuner.length import length_of
from search.tuner.options import SearchRequest
from search.tuner.preflight import (
    named_data_dir,
    opened_study,
    stored_image_size,
    stored_space,
)
from search.tuner.request import (
    CheckedRequest,
    least_side,
    load_file_space,
    load_space,
    study_name,
)
from search.tuner.warm_start import WarmStart, opened_source, warm_start
from search.workers.ray_cluster import count_actors
from search.workers.setup import WorkerSetup, local_workers


@dataclass(frozen=True)
class SearchPlan:
    """What a search will do, all of it checked.

    Args:
        length: when the study is to end.
        dataset_note: why this data set, or its images' size, and how to get another; empty where
            it was asked for.
        warm_start: what a new study tries first; None where nothing was asked for, or it has
            trials.
        probe: what the user's file of networks was seen to do; None where there is none.
    """

    checked: CheckedRequest
    dataset: Dataset
    dataset_note: str
    space: Space
    study_name: str
    length: StudyLength
    workers: WorkerSetup
    warm_start: WarmStart | None
    probe: Probe | None = None

    @property
    def request(self) -> SearchRequest:
        """What the user asked for."""
        return self.checked.asked


def plan_search(checked: CheckedRequest) -> SearchPlan:
    """Loads the data of a request, and checks it against them.

    Writes nothing besides a downloaded data set and, at last, the folders of the workers' logs and
    of artifacts, where the request names them.

    Raises:
        InputError: if anything asked for is wrong.
    """
    request = checked.asked
    workers = _choose_workers(checked)
    dataset, note = _choose_dataset(request)
    info = dataset.info
    name = study_name(request, info.name)
    space, probed = _choose_space(checked, name, info)
    if stored_space(request, name) is None:  # one that goes on has the space of its first search
        _check_batches(space, info)
    warm_start = _plan_warm_start(request, name, space, info)
    if request.worker_log is not None:
        make_folder(request.worker_log, option="--worker-log")
    if request.artifacts is not None:
        make_folder(request.artifacts, option="--artifacts")
    return SearchPlan(
        checked=checked,
        dataset=dataset,
        dataset_note=note,
        space=space,
        study_name=name,
        length=_choose_length(request, name, info),
        workers=workers,
        warm_start=warm_start,
        probe=probed,
    )


def _choose_space(
    checked: CheckedRequest, study_name: str, info: DatasetInfo
) -> tuple[Space, Probe | None]:
    """What is searched; of networks that a user's file builds, with what that was seen to do.

    Raises:
        SpaceError: if it cannot be used, or has no network under the budget.
        InputError: if the user's file cannot be run.
    """
    request = checked.asked
    begun_in = _begun_in(request, study_name, info)
    if checked.network is None:
        known = begun_in or load_space(request, info.input_shape, info.n_classes, info.n_training)
        return known, None
    load_network(checked.network)
    if isinstance(begun_in, FileSpace):
        return begun_in, probe(begun_in)
    space = load_file_space(checked, info.input_shape, info.n_classes, info.n_training)
    seen = probe(space)
    space = space.without(seen.taken_over)
    if request.objective != "accuracy" and seen.scales:
        return space.with_open_size(), seen
    return space, seen


def _choose_workers(checked: CheckedRequest) -> WorkerSetup:
    """Who trains: on this machine, or on the Ray cluster that `connected_cluster` gives.

    Raises:
        InputError: if there is no such device.
    """
    request, resources = checked.asked, checked.resources
    if resources is None:
        return local_workers(request.n_workers, request.device)
    n_workers = request.n_workers or count_actors(resources)
    return WorkerSetup(n_workers, resources.device, resources)


def _begun_in(request: SearchRequest, study_name: str, info: DatasetInfo) -> Space | None:
    """The space that the default stands for where it does not adapt; None where it does.

    That is the one in which the study was begun; for a new study that starts from another of such
    images, one of topologies in which that was: a design could not take its trials over. Networks
    are of all sizes where size is an objective.

    Raises:
        SpaceError: if no network of it is under the budget.
    """
    if request.space != ADAPTIVE:
        return None
    begun_in = stored_space(request, study_name)
    if begun_in is not None or request.from_study is None or request.network is not None:
        return begun_in
    source = stored_space(request, request.from_study)
    if source is None or source.is_design or source.input_shape != info.input_shape:
        return None
    if source.is_built_in:
        return load_space(replace(request, space=source.name), info.input_shape, info.n_classes)
    space = replace(source, parameter_cap=request.budget, n_classes=info.n_classes)
    if request.objective != "accuracy":
        space = space.with_open_size()
    space.check_fits()
    return space


def _choose_length(request: SearchRequest, study_name: str, info: DatasetInfo) -> StudyLength:
    with opened_study(request, study_name) as study:
        if study is None:
            return length_of(request, info.n_training, before=None)
        before = length_asked_before(study)
        return length_of(request, info.n_training, before=before, trials=lambda: trials_of(study))


def _check_batches(space: Space, info: DatasetInfo) -> None:
    """Raises SpaceError where a batch of the space is larger than the training set of a run."""
    largest, most = space.largest_batch(), info.least_training
    if largest > most:
        base = f"the line 'base = {toml_value(space.name)}' and " if space.name in BUILT_IN else ""
        raise SpaceError(
            f"Batches must not be larger than the training set, but the space {space.name} has "
            f"batches of {largest} images, and {most:,} train; take more images, or --space FILE "
            f"with a file that has {base}the line 'batch_size = {min(16, most)}', or others up to "
            f"{most:,}."
        )


def _plan_warm_start(
    request: SearchRequest, study_name: str, space: Space, info: DatasetInfo
) -> WarmStart | None:
    """What the study tries first; None where it has trials, so that the same command goes on."""
    name = request.from_study
    if name is None:
        return None
    with opened_source(request.storage, name, study_name) as earlier:
        return None if earlier is None else warm_start(earlier, space, info)


def _choose_dataset(request: SearchRequest) -> tuple[Dataset, str]:
    """The data set asked for or, for `auto`, the one that is at hand; and why."""
    data_dir, size = request.data_dir or default_data_dir(), request.image_size
    if isinstance(request.dataset, Dataset):
        return request.dataset, ""
    if request.dataset != "auto":
        folder = named_data_dir(request) or data_dir
        size, note = _choose_size(request, request.dataset)
        return load_dataset(request.dataset, folder, image_size=size), note
    known = known_study(request)
    if known is not None:
        name, settings, remembered = known
        dataset = load_dataset(
            settings.dataset,
            request.data_dir or remembered or data_dir,
            image_size=settings.image_size if size is None else size,
        )
        return dataset, f"that of {name}, which goes on"
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


def _choose_size(request: SearchRequest, dataset: str) -> tuple[int | ImageSize | None, str]:
    """The size of a folder's images that is asked for, the study's, or theirs; and why that."""
    folder = folder_of(dataset)
    if folder is None or request.image_size is not None:
        return request.image_size, ""
    stored = stored_image_size(request)
    if stored is not None:
        return stored, ""
    layout = folder_layout(check_folder(folder))
    return common_size(image_sizes(layout), least_side=least_side(request, len(layout.classes)))
