"""Studies: made, opened again, and what is remembered of how they were made."""

from __future__ import annotations

import hashlib
import importlib.metadata
import itertools
import json
import os
import platform
import socket
import subprocess
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from search.data.names import TENSORS, find_data_words
from search.exceptions import StudyDeletedError, StudyError
from search.space.hyperparameters import Hyperparameters
from search.space.space import Space, toml_value
from search.splits import SPLITS, Split
from search.study.summary import ABLATES, CONFIRMS, chosen_trial, repeats_name
from search.training.metrics import Metric
from search.wording import meant

if TYPE_CHECKING:  # it imports torch, which reading a study does not need
    from search.data.dataset import Dataset, DatasetInfo

DISTRIBUTION = "budget-search"
_CHOSEN = "chosen"  # when the study was made the one used last, without a search
_DIRECTIONS = {"accuracy": StudyDirection.MAXIMIZE, "size": StudyDirection.MINIMIZE}
_N_DIFFERENCES, _LONGEST_VALUE = 4, 60  # of a space that is refused; characters
_LONGEST_NAME = 200  # characters: a server's column takes 512, and a suffix may follow
OBJECTIVES = ("accuracy", "accuracy,size")


@dataclass(frozen=True, slots=True)
class StudySettings:
    """What belongs to a study and never changes: runs that differ in it are other studies.

    Args:
        metric: which accuracy is meant wherever the study speaks of accuracy.
        split: how many images train, validate and test, where the data set's name does not tell.
    """

    budget: int
    epochs: int
    dataset: str
    data_fingerprint: str
    split_fingerprint: str
    input_shape: tuple[int, int, int]
    n_classes: int
    space_name: str
    space: dict[str, Any]
    objective: str = "accuracy"
    metric: Metric = "accuracy"
    split: tuple[int, int, int] | None = None

    @classmethod
    def of(
        cls,
        *,
        budget: int,
        epochs: int,
        info: DatasetInfo,
        space: Space,
        objective: str,
        metric: Metric,
    ) -> StudySettings:
        is_known = info.name in SPLITS
        return cls(
            budget=budget,
            epochs=epochs,
            dataset=info.name,
            data_fingerprint=info.fingerprint,
            split_fingerprint=info.split_fingerprint,
            input_shape=info.input_shape,
            n_classes=info.n_classes,
            space_name=space.name,
            space=dict(space.table),
            objective=objective,
            metric=metric,
            split=None if is_known else (info.n_training, info.n_validation, info.n_test),
        )

    @classmethod
    def from_study(cls, study: Study) -> StudySettings:
        """What was stored when the study was made.

        Raises:
            StudyError: if the study was made by something else.
        """
        values = study.user_attrs.get("settings")
        if values is None:
            raise StudyError(
                f"A study must have been made by 'search run', but {study.study_name!r} holds no "
                "settings of it; name another with --study."
            )
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise StudyError(
                f"A study must have been made by this version or an earlier one, but "
                f"{study.study_name!r} holds settings of a later one ({', '.join(unknown)}); "
                "install that version, or name another study with --study."
            )
        # JSON knows no tuples.
        shapes = {key: tuple(values[key]) for key in ("input_shape", "split") if values.get(key)}
        return cls(**{**values, **shapes})

    @property
    def digest(self) -> str:
        """Tells these settings from all others."""
        values = asdict(self)
        for key in ("metric", "split"):  # studies of before these were kept have the same digest
            if values[key] == type(self).__dataclass_fields__[key].default:
                del values[key]
        text = json.dumps(values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def known_split(self) -> Split | None:
        """How many images train, validate and test; None where that was not kept."""
        return SPLITS.get(self.dataset) if self.split is None else Split(*self.split)

    @property
    def is_of_tensors(self) -> bool:
        """Whether a program gave the images: commands cannot have them."""
        return self.dataset.startswith(TENSORS)

    @property
    def image_size(self) -> int:
        """The side of an image, in pixels."""
        return self.input_shape[-1]

    @property
    def directions(self) -> list[StudyDirection]:
        """Optuna's, one for each objective: accuracy up, size down."""
        return [_DIRECTIONS[name] for name in self.objective.split(",")]

    def search_space(self) -> Space:
        return Space(self.space_name, self.space, self.input_shape, self.n_classes, self.budget)


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run of the search on a study: what may change from run to run, and on what it ran."""

    started: str
    sampler: str
    pruner: str
    seed: int
    device: str
    n_workers: int
    n_trials: int
    patience: int | None
    target: float | None
    versions: dict[str, str]
    git_commit: str | None
    host: str

    @classmethod
    def now(
        cls,
        *,
        sampler: str,
        pruner: str,
        seed: int,
        device: str,
        n_workers: int,
        n_trials: int,
        patience: int | None,
        target: float | None,
    ) -> RunRecord:
        packages = ("torch", "optuna", DISTRIBUTION)
        return cls(
            started=_now(),
            sampler=sampler,
            pruner=pruner,
            seed=seed,
            device=device,
            n_workers=n_workers,
            n_trials=n_trials,
            patience=patience,
            target=target,
            versions={
                "python": platform.python_version(),
                **{name: importlib.metadata.version(name) for name in packages},
            },
            git_commit=_git_commit(),
            host=socket.gethostname(),
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _git_commit() -> str | None:
    """The commit of this package's source, where it runs from a git checkout."""
    folder = Path(__file__).parents[1]
    if not (folder.parent / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def check_study_name(name: str) -> str:
    """The name of a new study, if it can be one.

    Raises:
        StudyError: if it cannot.
    """
    if not 1 <= len(name) <= _LONGEST_NAME or not name.isprintable() or name != name.strip():
        raise StudyError(
            f"The name of a study must be 1 to {_LONGEST_NAME} characters that can be printed, "
            f"without blanks at its ends, but got {name[:_LONGEST_NAME]!r}; name another with "
            "--study."
        )
    return name


def study_names(storage: BaseStorage) -> list[str]:
    """The names of all studies, oldest first."""
    return list(optuna.get_all_study_names(storage))


def open_study(storage: BaseStorage, name: str) -> Study:
    """The study of that name.

    Raises:
        StudyError: if there is none.
    """
    known = study_names(storage)
    if name not in known:  # not by asking for it: a database does not take every text
        kept = {repeats_name(study, purpose) for study in known for purpose in (CONFIRMS, ABLATES)}
        own = [study for study in known if study not in kept]
        raise StudyError(
            f"A study must be in the storage, which has {', '.join(own) or 'none'}, but there is "
            f"no {name!r}{meant(name, own)}"
        )
    return optuna.load_study(study_name=name, storage=storage)


def find_repeats(storage: BaseStorage, name: str, purpose: str) -> Study | None:
    """The study that keeps a study's runs for a purpose; None where there is none of its own."""
    kept_in = repeats_name(name, purpose)
    if kept_in not in study_names(storage):
        return None
    repeats = open_study(storage, kept_in)
    return repeats if repeats.user_attrs.get(purpose) == name else None


def select_study(storage: BaseStorage, name: str | None) -> Study:
    """The study of that name; without a name, the one that was used last.

    Raises:
        StudyError: if there is none.
    """
    if name is not None:
        return open_study(storage, name)
    names = [
        study.study_name
        for study in optuna.get_all_study_summaries(storage)
        if "settings" in study.user_attrs
    ]
    if not names:
        raise StudyError(
            "The storage must hold a study of 'search run', but it has none; make one with it."
        )
    studies = [open_study(storage, name) for name in names]
    return max(studies, key=last_used)


def last_used(study: Study) -> str:
    """When the study was last searched or chosen, as text that sorts; empty if it never was."""
    times = [str(record["started"]) for record in run_records(study)]
    return max([*times, str(study.user_attrs.get(_CHOSEN, ""))])


def make_last_used(study: Study) -> None:
    """Makes the study the one that commands take where none is named."""
    study.set_user_attr(_CHOSEN, _now())


def open_trial(study: Study, number: int | None = None) -> FrozenTrial:
    """The trial of that number; without one, the confirmed winner or else the best.

    Raises:
        StudyError: if there is none.
    """
    trials = study.get_trials(deepcopy=False)
    if number is None:
        best = chosen_trial(study.user_attrs, trials)
        if best is None:
            raise StudyError(
                f"The study {study.study_name!r} must have a complete trial, but it has none yet; "
                "go on with 'search run'."
            )
        return best
    for trial in trials:
        if trial.number == number:
            return trial
    raise StudyError(
        f"A trial must be in the study, but {study.study_name!r} has no trial {number}; it has "
        f"{len(trials)} trials, counted from 0."
    )


def create_or_open_study(storage: BaseStorage, name: str, settings: StudySettings) -> Study:
    """The study of that name, made where it is missing.

    Raises:
        StudyError: if it is there and differs from `settings`, naming the differences.
    """
    study = optuna.create_study(
        study_name=name, storage=storage, directions=settings.directions, load_if_exists=True
    )
    if "settings" not in study.user_attrs and study.directions != settings.directions:
        raise StudyError(
            f"A study must have the objective {settings.objective}, but {name!r} was made by "
            "something else and has another; name another study with --study."
        )
    if "settings" not in study.user_attrs and not study.get_trials(deepcopy=False):
        study.set_user_attr("settings", asdict(settings))
        return study
    _check_same(name, StudySettings.from_study(study), settings)
    return study


# A built-in space may have changed since an earlier version, and then its name is not enough.
_SPACE_HINT = " What differs in the space can stand in a file for --space."


def _check_same(name: str, stored: StudySettings, wanted: StudySettings) -> None:
    # A space is what it holds, not the file it came from; an earlier version's says less of it.
    before_space, space = dict(stored.search_space().table), dict(wanted.search_space().table)
    in_this_space = replace(stored, space_name=wanted.space_name, space=space)
    if before_space == space and in_this_space == replace(wanted, space=space):
        return
    differences = []
    for key in ("budget", "epochs", "dataset", "objective", "metric"):
        before, now = getattr(stored, key), getattr(wanted, key)
        if before != now:
            differences.append(f"{key} {before} there and {now} here")
    if stored.dataset == wanted.dataset:
        if stored.image_size != wanted.image_size:
            differences.append(f"image size {stored.image_size} there and {wanted.image_size} here")
        elif stored.data_fingerprint != wanted.data_fingerprint:
            differences.append("the images or labels of the data set")
        elif stored.split_fingerprint != wanted.split_fingerprint:
            differences.append("the split into training and validation images")
    differences += _space_differences(stored.search_space(), wanted.search_space())
    raise StudyError(
        f"A run must agree with its study, but {name!r} differs in: {'; '.join(differences)}. "
        "Give what the study was made with, or name another study with --study."
        f"{_SPACE_HINT if before_space != space else ''}"
    )


def _space_differences(before: Space, now: Space) -> list[str]:
    """In what two spaces differ, the first few of it, as a space file writes it."""
    if before.is_built_in and now.is_built_in and before.name != now.name:
        return [f"space {before.name} there and {now.name} here"]
    pairs = {
        key: (before.table.get(key), now.table.get(key))
        for key in sorted({*before.table, *now.table})
        if before.table.get(key) != now.table.get(key)
    }
    shown = [
        f"{key} of the space: {_value_text(there, here)} there and {_value_text(here, there)} here"
        for key, (there, here) in itertools.islice(pairs.items(), _N_DIFFERENCES)
    ]
    n_more = len(pairs) - len(shown)
    return [*shown, f"{n_more} more of the space"] if n_more else shown


def _value_text(value: Any, other: Any) -> str:
    """A value of a space; of two ranges, what the other has not."""
    if value is None:
        return "nothing"
    if isinstance(value, dict) and isinstance(other, dict):
        own = [f"{key} {each}" for key, each in value.items() if other.get(key) != each]
        return ", ".join(own) or "nothing"
    return textwrap.shorten(toml_value(value), _LONGEST_VALUE, placeholder=" …")


def rebuild(study: Study, trial: FrozenTrial) -> Hyperparameters:
    """The recipe of a stored trial, by the code that suggested it.

    Raises:
        StudyError: if the trial ended before it had one.
    """
    try:
        return StudySettings.from_study(study).search_space().suggest(trial)
    except ValueError as error:
        raise StudyError(
            f"A trial must have all hyperparameters of its space, but trial {trial.number} of "
            f"{study.study_name!r} ended before ({error}); take another with --trial."
        ) from error


def load_study_data(study: Study, data_dir: Path | None = None) -> Dataset:
    """The data set that a study was made with.

    Raises:
        DataError: if it is not to be had.
        StudyError: if it has other images or labels now.
    """
    from search.data.dataset import load_dataset

    settings = StudySettings.from_study(study)
    dataset = load_dataset(settings.dataset, data_dir, image_size=settings.image_size)
    check_same_data(study, dataset.info)
    return dataset


def check_same_data(study: Study, info: DatasetInfo) -> None:
    """Raises StudyError where the data set is not the one that the study was made with."""
    settings = StudySettings.from_study(study)
    if (settings.data_fingerprint, settings.split_fingerprint) != (
        info.fingerprint,
        info.split_fingerprint,
    ):
        raise StudyError(
            f"The data must be those of the study {study.study_name!r}, but {info.name} in "
            f"{info.origin} has other images or labels; {find_data_words(info.name)}."
        )


def record_run(study: Study, record: RunRecord) -> None:
    """Adds a run to the study's history, under a key of its own, so that none replaces another."""
    study.set_user_attr(f"run_{record.started}_{record.host}_{os.getpid()}", asdict(record))


def run_records(study: Study) -> list[dict[str, Any]]:
    """The study's history, oldest run first."""
    attributes = study.user_attrs
    return [attributes[key] for key in sorted(attributes) if key.startswith("run_")]


def search_words(
    name: str,
    settings: StudySettings,
    *,
    n_trials: int,
    space: str | None = None,
    options: Sequence[str] = (),
) -> list[str] | None:
    """The words of the command that searches a study, without the program's name.

    Where its data lie a study does not know. None where they are tensors, which no command has.

    Args:
        space: the file that holds the study's space, where it is another than at first.
        options: what may change from run to run.
    """
    if settings.is_of_tensors:
        return None
    words = ["run", "--dataset", settings.dataset, "--budget", str(settings.budget)]
    words += ["--epochs", str(settings.epochs), "--trials", str(n_trials)]
    for option, value, default in (
        ("--space", space or settings.space_name, "standard"),
        ("--objective", settings.objective, "accuracy"),
        ("--metric", settings.metric, "accuracy"),
        # Only a folder's images have a size that is asked for, and it is a folder's that is 28.
        ("--image-size", str(settings.image_size), "28"),
    ):
        words += [option, value] if value != default else []
    return [*words, *options, "--study", name]


@contextmanager
def unless_deleted(study: Study) -> Iterator[None]:
    """Raises StudyDeletedError where something inside fails because the study was deleted."""
    try:
        yield
    except KeyError as error:
        if study.study_name in study_names(study._storage):
            raise  # the error is about something else
        raise StudyDeletedError(
            f"The study must stay while it is searched, but {study.study_name!r} was deleted."
        ) from error
