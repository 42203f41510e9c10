"""A search as it is submitted: its options as JSON, checked, and as the words of its command."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from search.data.names import FOLDER, TENSORS, check_folder, folder_of, size_option
from search.exceptions import InputError
from search.space.toml import BUILT_IN
from search.tuner.options import SearchRequest, Target
from search.tuner.preflight import check_search
from search.tuner.request import check_request, study_name
from search.wording import meant

# The options of `search run` that are not called as their fields are.
_FLAGS = {
    "n_trials": "--trials",
    "n_workers": "--workers",
    "timeout_seconds": "--timeout",
    "trial_timeout_seconds": "--trial-timeout",
    "lost_after_seconds": "--lost-after",
}
PATHS = ("data_dir", "artifacts", "worker_log")  # fields that name a folder
# What a server decides, and no option of a search that is submitted: its database.
_DEFAULTS = {
    field.name: None if field.default is MISSING else field.default
    for field in fields(SearchRequest)
    if field.name != "storage"
}
# What options raise that another version or another program has written.
_UNREADABLE = (AssertionError, AttributeError, ArithmeticError, LookupError, TypeError, ValueError)
_AUTO = ("mnist", "digits")  # what auto takes


@dataclass(frozen=True, slots=True)
class Submission:
    """A search that may be queued.

    Args:
        options: by the names of `SearchRequest`, but for `storage`; those that are not as they are
            where nobody says, as values that JSON knows.
        study: the name of its study; None where the data decide it.
    """

    options: dict[str, Any]
    study: str | None


def options_of(request: SearchRequest, *, is_here: bool = True) -> dict[str, Any]:
    """The options of a request as values that JSON knows.

    Args:
        is_here: whether its paths are those of this machine, and are made whole.

    Raises:
        DataError: if a folder of images is not there.
    """
    _refuse_network(request.network)
    options = {
        name: getattr(request, name)
        for name, default in _DEFAULTS.items()
        if getattr(request, name) != default
    }
    dataset = request.dataset if isinstance(request.dataset, str) else request.dataset.info.name
    if dataset is not request.dataset or dataset.startswith(TENSORS):
        raise InputError(
            "The data of a search that is submitted must have a name or be a folder, as tensors "
            f"are known to their program alone, but got {dataset!r}; use run_search."
        )
    if request.target is not None:
        options["target"] = asdict(request.target)
    if isinstance(request.image_size, tuple):
        options["image_size"] = list(request.image_size)
    for name in PATHS:
        if name in options:
            options[name] = str(Path(options[name]).absolute() if is_here else options[name])
    folder = folder_of(dataset)
    if folder is not None and is_here:
        options["dataset"] = f"{FOLDER}{check_folder(folder)}"
    if request.space not in BUILT_IN and is_here:
        options["space"] = str(Path(request.space).absolute())
    return options


def request_of(options: Mapping[str, Any], storage: str) -> SearchRequest:
    """The request that options ask for, with its results in a database.

    Raises:
        InputError: if there is no such option, or one that is needed is missing.
    """
    for name in options:
        if name not in _DEFAULTS:
            raise InputError(
                f"An option must be one of a search, but got {name[:100]!r}{meant(name, _DEFAULTS)}"
            )
    _refuse_network(options.get("network"))
    for name in ("budget", "epochs"):
        if options.get(name) is None:
            raise InputError(f"A search must be given {name}, but it is missing; give it.")
    values = dict(options)
    if values.get("target") is not None:
        values["target"] = Target(**values["target"])
    if isinstance(values.get("image_size"), list):
        values["image_size"] = tuple(values["image_size"])
    return SearchRequest(**values, storage=storage)


def check_submission(request: SearchRequest) -> Submission:
    """Checks a search as `search run` does before it loads PyTorch and the data.

    Raises:
        InputError: if anything asked for is wrong.
    """
    _refuse_network(request.network)
    try:
        check_search(check_request(request))
        return Submission(options_of(request), _known_study(request))
    except OSError as error:  # links that lead to each other, a name that is too long
        raise InputError(
            "The files and folders that a search names must be readable, but "
            f"{error.filename or 'one of them'} is not ({error.strerror}); name others."
        ) from error


def _refuse_network(network: object) -> None:
    """Raises InputError for a file of networks: who submits is not who owns the machine."""
    if network is not None:
        raise InputError(
            "A search that a server runs must build networks of the search's own, as a server runs "
            f"no program of a client's, but got --network {network}; use 'search run'."
        )


def _known_study(request: SearchRequest) -> str | None:
    assert isinstance(request.dataset, str)
    if request.study is None and request.dataset == "auto":
        return None
    return study_name(request, request.dataset)


def possible_studies(options: Mapping[str, Any], storage: str) -> set[str]:
    """The names of studies of which a search may take one.

    Raises:
        InputError: if the options are none of a search that this version knows.
    """
    try:
        request = request_of(options, storage)
        known = _known_study(request)
        run_words(options)
        return {known} if known is not None else {study_name(request, name) for name in _AUTO}
    except _UNREADABLE as error:
        raise InputError(
            "The options of a job must be those of a search, but this version cannot read them "
            f"({error}); submit it again."
        ) from error


def run_words(options: Mapping[str, Any]) -> list[str]:
    """The words of the command that searches, without the program's name and the storage."""
    _refuse_network(options.get("network"))  # nor one that somebody wrote into the database
    words = ["run"]
    for name, value in options.items():
        flag = _FLAGS.get(name, f"--{name.replace('_', '-')}")
        if name == "confirm":
            words += [] if value else ["--no-confirm"]
        elif name == "target":
            words += [f"{flag}={100 * value['accuracy']:.12g}"]
            words += [f"--confidence={value['confidence']:.12g}"]
        elif name == "image_size":
            words += [f"{flag}={value if isinstance(value, int) else size_option(tuple(value))}"]
        elif name.endswith("_seconds"):
            words += [f"{flag}={math.ceil(value)}s"]
        elif value is not None:
            words += [f"{flag}={value}"]
    return words
