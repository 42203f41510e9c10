"""A request checked, and its texts parsed, before PyTorch is loaded: a typo is answered at once."""

from __future__ import annotations

import math
from bisect import bisect_left
from contextlib import suppress
from dataclasses import dataclass, fields

from search.data.at_hand import given_as_tensors
from search.data.folder_layout import folder_layout
from search.data.names import (
    FOLDER,
    LARGEST_SIDE,
    SMALLEST_SIDE,
    SPLITS,
    TENSORS,
    check_dataset_name,
    check_folder,
    check_image_size,
    check_own_size,
    folder_of,
    short_name,
)
from search.exceptions import InputError, SpaceError
from search.space.adaptive import N_TRAINING
from search.space.file_space import FileSpace
from search.space.network_files import read_network
from search.space.space import Space
from search.study.open import check_study_name
from search.study.settings import OBJECTIVES
from search.training.devices import check_device_name
from search.training.metrics import Metric, check_metric
from search.tuner.options import LARGEST_NUMBER, SearchRequest
from search.tuner.pruners import make_pruner
from search.tuner.sampler import check_sampler
from search.workers.resources import Resources
from search_models.own import NetworkSource


@dataclass(frozen=True, slots=True)
class CheckedRequest:
    """A request whose values go together, with what its texts say.

    Args:
        resources: what each worker takes of a Ray cluster; None where they run on this machine.
        n_objectives: how many values a trial of the search has.
        network: the user's file that builds the networks, read and not yet run; None where the
            space says what they are.
    """

    asked: SearchRequest
    metric: Metric
    resources: Resources | None
    n_objectives: int
    network: NetworkSource | None = None


def check_request(request: SearchRequest) -> CheckedRequest:
    """Checks and parses what can be without PyTorch and the data.

    Raises:
        InputError: if anything asked for is wrong.
    """
    _check_texts(request)
    _check_numbers(request)
    check_device_name(request.device)
    resources = _parse_resources(request)
    if request.study is not None:
        check_study_name(request.study)
    n_objectives = _check_objective(request)
    metric = check_metric(request.metric)
    if request.image_size is not None:
        check_image_size(request.image_size)
    network = None if request.network is None else read_network(request.network)
    checked = CheckedRequest(request, metric, resources, n_objectives, network)
    if isinstance(request.dataset, str):
        _check_dataset(request.dataset)
        # Other data, and a study that `auto` goes on with, may have images of another shape.
        if request.dataset in SPLITS or (request.dataset == "auto" and request.study is None):
            if request.image_size is not None:
                check_own_size(request.dataset, request.image_size)
            if network is None:
                load_space(request)
            else:
                load_file_space(checked)
    return checked


def _parse_resources(request: SearchRequest) -> Resources | None:
    """What each worker takes of a Ray cluster; None where they run on this machine.

    Raises:
        InputError: if the engine, and what is said of it, do not go together.
    """
    if request.engine not in ("local", "ray"):
        raise InputError(f"An engine must be local or ray, but got {request.engine!r}.")
    if request.engine == "ray":
        if request.device != "auto":
            raise InputError(
                "Workers on Ray must get their device from their resources, but a device was named "
                f"as well ({request.device}); take --resources gpu=1 or cpu=1 instead of --device."
            )
        return Resources() if request.resources is None else Resources.parse(request.resources)
    for name in ("ray_address", "resources"):
        if getattr(request, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise InputError(
                f"{option} must have a Ray cluster that it is about, but the engine is local; add "
                "--engine ray, or leave it out."
            )
    return None


def _check_dataset(name: str) -> None:
    """Raises DataError where there is no data set of that name, or no folder that can be one."""
    folder = folder_of(name)
    if folder is not None:
        folder_layout(check_folder(folder))
    elif name.startswith(TENSORS):
        raise given_as_tensors(name)
    elif name != "auto":
        check_dataset_name(name, besides=("auto", f"{FOLDER}PATH"))


def load_space(
    request: SearchRequest,
    input_shape: tuple[int, int, int] = (1, 28, 28),
    n_classes: int = 10,
    n_training: int = N_TRAINING,
) -> Space:
    """The space of a request, for such images; by default, of the built-in data sets.

    Raises:
        SpaceError: if it cannot be used, or has no network under the budget.
    """
    space = Space.load(
        request.space,
        input_shape=input_shape,
        n_classes=n_classes,
        parameter_cap=request.budget,
        n_training=n_training,
        epochs=request.epochs,
    )
    if request.objective != "accuracy":
        space = space.with_open_size()
    space.check_fits()
    return space


def load_file_space(
    checked: CheckedRequest,
    input_shape: tuple[int, int, int] = (1, 28, 28),
    n_classes: int = 10,
    n_training: int = N_TRAINING,
) -> FileSpace:
    """How the networks of a request's file are trained; the file is not run for it.

    Raises:
        SpaceError: if the space cannot be used.
    """
    assert checked.network is not None
    return FileSpace.load_for(
        checked.asked.space,
        checked.network,
        input_shape=input_shape,
        n_classes=n_classes,
        parameter_cap=checked.asked.budget,
        n_training=n_training,
        epochs=checked.asked.epochs,
    )


def least_side(request: SearchRequest, n_classes: int) -> int:
    """The fewest pixels along a side of an image for which all networks of the space exist."""

    if request.network is not None:  # which only running it tells
        return SMALLEST_SIDE

    def exist(side: int) -> bool:
        with suppress(SpaceError):
            Space.load(request.space, input_shape=(1, side, side), n_classes=n_classes)
            return True
        return False

    sides = range(SMALLEST_SIDE, LARGEST_SIDE + 1)
    place = bisect_left(sides, True, key=exist)
    return sides[place] if place < len(sides) else SMALLEST_SIDE  # the space is wrong otherwise


def study_name(request: SearchRequest, dataset: str) -> str:
    """The name of the study: that which is asked for, else what data, cap and epochs make.

    Args:
        dataset: the name of the data set.
    """
    if request.study is not None:
        return request.study
    size = "" if request.objective == "accuracy" else "-by-size"
    network = "" if request.network is None else f"-{request.network.stem}"
    return f"{short_name(dataset)}-{request.budget}x{request.epochs}{size}{network}"


def _check_texts(request: SearchRequest) -> None:
    """Raises InputError for what is no text, as the command line gives."""
    for field in fields(request):
        value = getattr(request, field.name)
        if field.type not in ("str", "str | None") or isinstance(value, str):
            continue
        if value is not None or field.type == "str":
            raise InputError(
                f"{field.name} must be a text (str), but got {value!r}; give one in quotes."
            )


def _check_numbers(request: SearchRequest) -> None:
    """Raises InputError for numbers that the command line would not have let through."""
    for name in ("budget", "epochs"):
        check_whole(name, getattr(request, name))
    check_whole("seed", request.seed, low=0)
    for name in ("n_trials", "n_workers", "patience"):
        if getattr(request, name) is not None:
            check_whole(name, getattr(request, name))
    check_seconds("lost_after_seconds", request.lost_after_seconds)
    for name in ("timeout_seconds", "trial_timeout_seconds"):
        if getattr(request, name) is not None:
            check_seconds(name, getattr(request, name))


def _check_objective(request: SearchRequest) -> int:
    """How many objectives there are.

    Raises:
        InputError: where objective, sampler, pruner and patience do not go together.
    """
    if request.objective not in OBJECTIVES:
        raise InputError(
            f"An objective must be one of {' or '.join(OBJECTIVES)}, but got {request.objective!r}."
        )
    n_objectives = len(request.objective.split(","))
    check_sampler(request.sampler, n_objectives=n_objectives)
    make_pruner(request.pruner, epochs=request.epochs)
    if request.target is not None and (request.objective != "accuracy" or not request.confirm):
        raise InputError(
            "A target must have the objective accuracy, and runs that confirm it; leave out "
            "--objective and --no-confirm."
        )
    if n_objectives > 1 and request.pruner == "hyperband":
        raise InputError("The pruner hyperband must have one objective, but got two; take another.")
    if n_objectives > 1 and request.patience is not None:
        raise InputError(
            "--patience must have one objective to wait for, but got two; leave it out."
        )
    return n_objectives


def check_whole(name: str, value: int, *, low: int = 1) -> None:
    """Sees to it that a value is a whole number from `low` to 2^53.

    Raises:
        InputError: if it is not.
    """
    # A bool is an int to Python, and not what anybody means by a number.
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise InputError(
            f"{name} must be a whole number (int) from {low} up, but got {value!r}; "
            f"give one, as {name}={max(low, 3)}."
        )
    if value > LARGEST_NUMBER:  # perhaps one of more digits than Python writes
        raise InputError(
            f"{name} must be a whole number (int) from {low} to 2^53, but got a larger one; "
            f"give one, as {name}={max(low, 3)}."
        )


def check_seconds(name: str, value: float) -> None:
    """Sees to it that a value is a time in seconds, above zero and finite.

    Raises:
        InputError: if it is not.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and 0 < value < math.inf):
        raise InputError(
            f"{name} must be a number of seconds above 0, but got {value!r}; give one, as "
            f"{name}=600."
        )
