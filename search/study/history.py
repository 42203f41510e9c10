"""The runs of a study's searches, which study was used last, and the command that goes on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from optuna.study import Study

from search.data.names import folder_of, size_option
from search.study import defaults
from search.study.settings import HasAttributes, StudySettings
from search.study.stored import is_count, is_number

DISTRIBUTION = "budget-search"
_CHOSEN = "chosen"  # when the study was made the one used last, without a search
_EXHAUSTED = "space_exhausted"  # whether a search found nothing untried in it


@dataclass(frozen=True, slots=True)
class StudyLength:
    """When a study has been searched for long enough; `search/study/length.py` says whether it has.

    Args:
        n_trials: with so many trained trials.
        patience: or when so many of them, one after the other, brought nothing better; None where
            it does not end by that.
    """

    n_trials: int
    patience: int | None = None


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
    data_dir: str | None = None  # that was named, whole; None where none was
    network: str | None = None  # the user's file of networks, as it was named; it is shown alone

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
        data_dir: Path | None = None,
        network: Path | None = None,
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
            data_dir=None if data_dir is None else str(data_dir.resolve()),
            network=None if network is None else str(network),
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


def last_used(study: HasAttributes) -> str:
    """When the study was last searched or chosen, as text that sorts; empty if it never was."""
    times = [str(record["started"]) for record in run_records(study)]
    return max([*times, str(study.user_attrs.get(_CHOSEN, ""))])


def make_last_used(study: Study) -> None:
    """Makes the study the one that commands take where none is named."""
    study.set_user_attr(_CHOSEN, _now())


def mark_exhausted(study: Study) -> None:
    """Keeps that the study's space has no untried configuration left."""
    study.set_user_attr(_EXHAUSTED, True)


def is_exhausted(study: HasAttributes) -> bool:
    """Whether a search has found that the study's space has no untried configuration left."""
    return study.user_attrs.get(_EXHAUSTED) is True


def record_run(study: Study, record: RunRecord) -> None:
    """Adds a run to the study's history, under a key of its own, so that none replaces another."""
    study.set_user_attr(f"run_{record.started}_{record.host}_{os.getpid()}", asdict(record))


def run_records(study: HasAttributes) -> list[dict[str, Any]]:
    """The study's history, oldest run first."""
    # Another program may have made attributes that begin alike, as `run_id`.
    attributes = study.user_attrs
    keys = sorted(key for key in attributes if key.startswith("run_"))
    return [attributes[key] for key in keys if _is_run(attributes[key])]


def _is_run(stored: Any) -> bool:
    """Whether that is a run, of any version, as `RunRecord` is."""
    match stored:
        case {"started": str(), "n_trials": n_trials, **more}:
            counts = (n_trials, more.get("n_workers", 0), more.get("patience"))
            is_counted = all(each is None or is_count(each) for each in counts)
            target = more.get("target")
            return is_counted and n_trials is not None and (target is None or is_number(target))
    return False


def length_asked_before(study: HasAttributes) -> StudyLength | None:
    """How long its last search was to be; None where there was none."""
    records = run_records(study)
    if not records:
        return None
    return StudyLength(records[-1]["n_trials"], records[-1].get("patience"))


def remembered_data_dir(study: HasAttributes) -> Path | None:
    """The folder of data that was named last for a search of the study, and is there."""
    for record in reversed(run_records(study)):
        if record.get("data_dir") is not None:
            folder = Path(str(record["data_dir"]))
            return folder if folder.is_dir() else None
    return None


def network_words(study: HasAttributes, settings: StudySettings) -> list[str]:
    """The option that names the user's file of a study's networks, as it was named last."""
    if settings.network is None:
        return []
    named = [record.get("network") for record in run_records(study)]
    path = next((each for each in reversed(named) if isinstance(each, str)), None)
    return ["--network", path or settings.network["file"]]


def search_words(
    name: str,
    settings: StudySettings,
    *,
    n_trials: int | None,
    space: str | None = None,
    network: Sequence[str] | None = None,
    options: Sequence[str] = (),
) -> list[str] | None:
    """The words of the command that searches a study, without the program's name.

    Where its data lie the study remembers. None where they are tensors, which no command has.

    Args:
        n_trials: trained ones that it shall have in all; None until nothing better comes.
        space: the file that holds the study's space, where it is another than at first.
        network: the option that names the user's file of networks, where it is not called there as
            the study says.
        options: what may change from run to run.
    """
    if settings.is_of_tensors:
        return None
    words = ["run", "--dataset", settings.dataset, "--budget", str(settings.budget)]
    words += ["--epochs", str(settings.epochs)]
    words += [] if n_trials is None else ["--trials", str(n_trials)]
    if settings.network is not None:
        words += network or ["--network", settings.network["file"]]
    for option, value, default in (
        ("--space", space or settings.space_name, defaults.SPACE),
        ("--objective", settings.objective, defaults.OBJECTIVE),
        ("--metric", settings.metric, defaults.METRIC),
    ):
        words += [option, value] if value != default else []
    if folder_of(settings.dataset) is not None:  # no other data have a size that is asked for
        words += ["--image-size", size_option(settings.image_size)]
    return [*words, *options, "--study", name]
