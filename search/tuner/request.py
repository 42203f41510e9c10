"""What a user asks of a search, and what of it can be checked before PyTorch is loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from search.data.names import (
    FOLDER,
    SPLITS,
    TENSORS,
    check_dataset_name,
    check_folder,
    check_image_size,
    folder_of,
)
from search.exceptions import InputError
from search.space.space import Space
from search.storage.open import DEFAULT_URL
from search.study.open import check_study_name
from search.study.settings import OBJECTIVES
from search.study.sharing import DEFAULT_LOST_AFTER_SECONDS
from search.training.devices import check_device_name
from search.training.metrics import check_metric
from search.tuner.pruners import make_pruner
from search.tuner.sampler import check_sampler
from search.workers.resources import Resources

if TYPE_CHECKING:  # it imports torch
    from search.data.dataset import Dataset


@dataclass(frozen=True, slots=True)
class Target:
    """An accuracy to reach with as few parameters as possible.

    Args:
        accuracy: on the validation images, as a share from 0 to 1.
        confidence: with which the mean over seeds must reach it.

    Raises:
        InputError: if either is no share.
    """

    accuracy: float
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if not 0.01 <= self.accuracy < 1:
            raise InputError(
                f"A target must be at least 1 % and below 100 %, but got {100 * self.accuracy:g}; "
                "give it in percent, as 99.4."
            )
        if not 0.5 <= self.confidence < 1:
            raise InputError(
                f"A confidence must be at least 0.5 and below 1, but got {self.confidence:g}."
            )


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What a user asks for; `search run --help` explains each.

    Args:
        dataset: a name, `auto`, or the data themselves.
        image_size: the side to which the images of a folder are scaled; 28 by default.
        metric: `accuracy`, or `balanced-accuracy` where classes are uneven.
        study: by default named after data set, budget and epochs.
        n_workers: by default one for each core that this process may use.
        patience: trained trials without progress that end the study; without it they do not.
        from_study: an earlier study whose best trials a new one tries first.
        trial_timeout_seconds: after which a trial is taken for hung; `Coordinator` has a default.
        worker_log: a folder in which each worker keeps a log of the epochs of its trials.
        lost_after_seconds: how long another host on the study may be silent.
        artifacts: the folder of learning curves and weights; `artifact_folder` has a default.
        engine: where workers run: `local`, or `ray` within `opened_engine`.
        ray_address: of a Ray cluster; without it, one is made on this machine.
        resources: what each worker takes of a Ray cluster, as `cpu=1` or `gpu=0.25`.
    """

    budget: int
    epochs: int
    n_trials: int = 50
    timeout_seconds: float | None = None
    trial_timeout_seconds: float | None = None
    dataset: str | Dataset = "auto"
    image_size: int | None = None
    data_dir: Path | None = None
    storage: str = DEFAULT_URL
    study: str | None = None
    n_workers: int | None = None
    device: str = "auto"
    seed: int = 0
    sampler: str = "tpe"
    pruner: str = "halving"
    space: str = "standard"
    objective: str = "accuracy"
    metric: str = "accuracy"
    confirm: bool = True
    target: Target | None = None
    patience: int | None = None
    from_study: str | None = None
    worker_log: Path | None = None
    lost_after_seconds: float = DEFAULT_LOST_AFTER_SECONDS
    artifacts: Path | None = None
    engine: str = "local"
    ray_address: str | None = None
    resources: str | None = None


def check_request(request: SearchRequest) -> None:
    """Checks what can be without PyTorch and the data, so that a typo is answered at once.

    Raises:
        InputError: if anything asked for is wrong.
    """
    _check_numbers(request)
    check_device_name(request.device)
    check_engine(request)
    if request.study is not None:
        check_study_name(request.study)
    _check_objective(request)
    check_metric(request.metric)
    if request.image_size is not None:
        check_image_size(request.image_size)
    dataset = request.dataset
    if not isinstance(dataset, str):
        return
    _check_dataset(dataset)
    # Other data, and a study that `auto` goes on with, may have images of another shape.
    if dataset in SPLITS or (dataset == "auto" and request.study is None):
        load_space(request)


def check_engine(request: SearchRequest) -> Resources | None:
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
    """Raises DataError where there is no data set of that name."""
    folder = folder_of(name)
    if folder is not None:
        check_folder(folder)
    elif name != "auto" and not name.startswith(TENSORS):
        check_dataset_name(name, besides=("auto", f"{FOLDER}PATH"))


def load_space(
    request: SearchRequest, input_shape: tuple[int, int, int] = (1, 28, 28), n_classes: int = 10
) -> Space:
    """The space of a request, for images of that shape; by default, of the built-in data sets.

    Raises:
        SpaceError: if it cannot be used, or has no network under the budget.
    """
    space = Space.load(
        request.space,
        input_shape=input_shape,
        n_classes=n_classes,
        parameter_cap=request.budget,
    )
    if request.objective != "accuracy":
        space = space.with_open_size()
    space.check_fits(request.budget)
    return space


def _check_numbers(request: SearchRequest) -> None:
    """Raises InputError for numbers that the command line would not have let through."""
    for name in ("budget", "epochs", "n_trials"):
        check_whole(name, getattr(request, name))
    check_whole("seed", request.seed, low=0)
    for name in ("image_size", "n_workers", "patience"):
        if getattr(request, name) is not None:
            check_whole(name, getattr(request, name))
    check_seconds("lost_after_seconds", request.lost_after_seconds)
    for name in ("timeout_seconds", "trial_timeout_seconds"):
        if getattr(request, name) is not None:
            check_seconds(name, getattr(request, name))


def _check_objective(request: SearchRequest) -> None:
    """Raises InputError where objective, sampler, pruner and patience do not go together."""
    if request.objective not in OBJECTIVES:
        raise InputError(
            f"An objective must be one of {' or '.join(OBJECTIVES)}, but got {request.objective!r}."
        )
    check_sampler(request.sampler, n_objectives=n_objectives(request))
    make_pruner(request.pruner, epochs=request.epochs)
    if request.target is not None and (request.objective != "accuracy" or not request.confirm):
        raise InputError(
            "A target must have the objective accuracy, and runs that confirm it; leave out "
            "--objective and --no-confirm."
        )
    if request.objective == "accuracy":
        return
    if request.pruner == "hyperband":
        raise InputError("The pruner hyperband must have one objective, but got two; take another.")
    if request.patience is not None:
        raise InputError(
            "--patience must have one objective to wait for, but got two; leave it out."
        )


def n_objectives(request: SearchRequest) -> int:
    """How many values a trial of the search has."""
    return len(request.objective.split(","))


def check_whole(name: str, value: int, *, low: int = 1) -> None:
    """Sees to it that a value is a whole number from `low` up.

    Raises:
        InputError: if it is not.
    """
    # A bool is an int to Python, and not what anybody means by a number.
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise InputError(
            f"{name} must be a whole number (int) from {low} up, but got {value!r}; "
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
