"""What may be asked of a search: options as values, in groups, each with its text and its default.

`search run` takes each as an option, Python as a field of `SearchRequest`. Imports nothing slow:
`search run --help` reads this module.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from search.data.names import FOLDER, ImageSize
from search.exceptions import InputError
from search.folders import DATABASE_URL, as_path
from search.study import defaults

if TYPE_CHECKING:  # it imports torch
    from search.data.dataset import Dataset


LARGEST_NUMBER = 2**53  # up to it, whole numbers are floats, too, which they are multiplied with


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


def _text(text: str, *, default_words: str = "") -> dict[str, str]:
    """What is said of an option.

    Args:
        text: what it is for, as a sentence.
        default_words: what the default comes to, where its value does not say that.
    """
    return {"text": text, "default_words": default_words}


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What to search."""

    budget: int = field(
        kw_only=False, metadata=_text("A network must have fewer trainable parameters than this.")
    )
    epochs: int = field(
        kw_only=False,
        metadata=_text(
            "Epochs that each network is trained. A trial's value is the mean of the last three."
        ),
    )
    space: str = field(
        default=defaults.SPACE, metadata=_text("adaptive, standard, wide, or a TOML file.")
    )
    network: Path | None = field(
        default=None,
        metadata=_text("A Python file of yours that builds the networks; it is run."),
    )
    objective: str = field(
        default=defaults.OBJECTIVE,
        metadata=_text("accuracy, or accuracy,size to search the best of each size."),
    )
    metric: str = field(
        default=defaults.METRIC,
        metadata=_text("accuracy, or balanced-accuracy: the mean of each class's own accuracy."),
    )
    target: Target | None = field(
        default=None, metadata=_text("Find the smallest network that reaches this accuracy.")
    )
    confirm: bool = field(
        default=True,
        metadata=_text("At the end of 8 trials or more, race the best over fresh seeds."),
    )


@dataclass(frozen=True, kw_only=True)
class Length:
    """How long."""

    n_trials: int | None = field(
        default=None,
        kw_only=False,
        metadata=_text(
            "Trained trials that the study shall have in total.",
            default_words="at most 100, until nothing better comes",
        ),
    )
    timeout_seconds: float | None = field(default=None, metadata=_text("Stop after this time."))
    patience: int | None = field(
        default=None,
        metadata=_text(
            "Stop after this many trained trials in a row without a better one.",
            default_words="8 to 40, the more the less there is to train; never with --trials",
        ),
    )
    trial_timeout_seconds: float | None = field(
        default=None,
        metadata=_text(
            "Take a trial for hung after this time.", default_words="10 times the slowest's"
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Images:
    """On what."""

    dataset: str | Dataset = field(
        default="auto",
        metadata=_text(
            "auto, mnist, fashion-mnist, kmnist, digits, or folder:PATH for images of yours."
        ),
    )
    image_size: int | ImageSize | None = field(
        default=None,
        metadata=_text(
            "Pixels along each side to which a folder's images are scaled, or height x width.",
            default_words="their own, within reason",
        ),
    )
    data_dir: Path | None = field(
        default=None, metadata=_text("Folder of the data sets.", default_words="user cache")
    )


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where."""

    study: str | None = field(
        default=None, metadata=_text("Name of the study.", default_words="as mnist-8000x15")
    )
    storage: str = field(
        default=DATABASE_URL, metadata=_text("URL of the database that keeps the trials.")
    )
    n_workers: int | None = field(
        default=None,
        metadata=_text("Training processes, one thread each.", default_words="one per core"),
    )
    device: str = field(
        default="auto", metadata=_text("auto, cpu or cuda; auto takes a GPU if there is one.")
    )
    artifacts: Path | None = field(
        default=None,
        metadata=_text(
            "Folder of the best trials' curves and weights.",
            default_words="beside a SQLite database",
        ),
    )
    engine: str = field(
        default="local", metadata=_text("local, or ray for workers on a Ray cluster.")
    )
    ray_address: str | None = field(
        default=None,
        metadata=_text(
            "The Ray cluster, or auto for this machine's.", default_words="one made for the search"
        ),
    )
    resources: str | None = field(
        default=None,
        metadata=_text(
            "What each worker takes of the cluster, as gpu=0.25 or cpu=2,gpu=1.",
            default_words="cpu=1",
        ),
    )
    lost_after_seconds: float = field(
        default=120.0,
        metadata=_text(
            "Take over trials of another host on the study once it is silent for so long.",
            default_words="2m",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Method:
    """How it searches."""

    sampler: str = field(default=defaults.SAMPLER, metadata=_text("tpe, random, qmc, gp or cmaes."))
    pruner: str = field(
        default=defaults.PRUNER, metadata=_text("halving, median, percentile, hyperband or none.")
    )
    seed: int = field(
        default=defaults.SEED, metadata=_text("From which all random numbers follow.")
    )
    from_study: str | None = field(
        default=None,
        metadata=_text("Start a new study from the best trials of this one, of any budget."),
    )


@dataclass(frozen=True, kw_only=True)
class Output:
    """Output."""

    worker_log: Path | None = field(
        default=None, metadata=_text("Folder in which each worker logs every epoch, for an audit.")
    )


# The groups in which an option is looked for; the everyday ones first.
GROUPS = (Goal, Length, Images, Place, Method, Output)


@dataclass(frozen=True, kw_only=True)
class SearchRequest(Output, Method, Place, Images, Length, Goal):
    """What a user asks for: the fields of all groups, of which `budget` and `epochs` are needed.

    In Python a time is a number of seconds, a target a `Target`, and `dataset` may be the data
    themselves. Paths may be text, and a network the function of that name in a file.
    `check_request` says whether the values go together.

    Raises:
        InputError: if what should be a path is none.
    """

    def __post_init__(self) -> None:
        if self.network is not None:
            from search.space.network_files import network_path

            object.__setattr__(self, "network", network_path(self.network))
        for name in ("data_dir", "artifacts", "worker_log"):
            path = getattr(self, name)
            if path is not None:
                object.__setattr__(self, name, as_path(path, name))
        space: object = self.space
        dataset: object = self.dataset
        if isinstance(space, os.PathLike):
            object.__setattr__(self, "space", str(as_path(space, "space")))
        if isinstance(dataset, os.PathLike):
            object.__setattr__(self, "dataset", f"{FOLDER}{as_path(dataset, 'dataset')}")
