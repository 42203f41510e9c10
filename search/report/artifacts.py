"""Learning curves and weights of a study's best trials, as optuna-dashboard shows them.

An artifact is a file and an entry that tells of it. The files of a database's studies lie in one
folder of its own, under the names STUDY-TRIAL-KIND: Optuna's identifiers of study and trial as
hexadecimal numbers, and 0 for a curve or 1 for weights. The entries are attributes of the study,
where optuna-dashboard looks as well, because Optuna lets nobody change the attributes of a finished
trial: there, no entry could go again.

A file is written before its entry and deleted after it, so that no entry is without its file. A
file without an entry shows nowhere, and the next start of a search gets it entered or deleted.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from optuna.artifacts import FileSystemArtifactStore
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial

from search.exceptions import ArtifactError
from search.files import write_bytes
from search.storage.urls import database_label, sqlite_path
from search.study.summary import by_accuracy, front
from search.study.trials import trials_of

N_BEST = 5  # trials whose artifacts are kept
_CURVE, _WEIGHTS = 0, 1
_NAME = re.compile(r"(?P<study>[0-9a-f]+)-(?P<trial>[0-9a-f]+)-[01]")
_HALF = re.compile(rf"\.{_NAME.pattern}\.\d+")
_LONGEST_WRITE_SECONDS = 3600  # of a few MB: generous, as the clocks of hosts differ


def artifact_folder(url: str, folder: Path | None = None) -> Path | None:
    """Where the artifacts of a database's studies lie; None where none are kept.

    Args:
        folder: what a user names, in which each database has a folder of its own: its identifiers
            of studies and trials are those of other databases as well. Without it, that is a folder
            beside a SQLite database; for a server there is none, as its users need not share a
            disk.
    """
    if folder is not None:
        return folder / database_label(url)
    path = sqlite_path(url)
    if path is None:
        return None
    path = path.resolve()  # a link's database is the one that it leads to
    return path.with_name(f"{path.name}-artifacts")


class ArtifactFolder(FileSystemArtifactStore):
    """Optuna's store in a folder, made when something is first written there; no half files.

    To remove what is not there is no error: else nobody could delete a study that lacks a file.
    """

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        path = self._get_filepath(artifact_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(content_body.read(), path)

    def remove(self, artifact_id: str) -> None:
        with suppress(ArtifactNotFound):
            super().remove(artifact_id)


def best_few(trials: Iterable[FrozenTrial], *, by_size: bool) -> list[FrozenTrial]:
    """The trials whose artifacts are kept: the most accurate, `by_size` those of the front."""
    return front(trials)[-N_BEST:] if by_size else by_accuracy(trials)[:N_BEST]


@dataclass(frozen=True, slots=True)
class Settlement:
    """What makes the artifacts of a study those of its best few.

    Args:
        entries: attributes of the study, to be set first.
        outdated: files, to be deleted once they are.
    """

    entries: dict[str, str]
    outdated: list[Path]


class StudyArtifacts:
    """The artifacts of one study.

    Args:
        folder: where the files lie; it is made where it is missing.

    Raises:
        ArtifactError: if that folder cannot be made.
    """

    def __init__(self, study: Study, folder: Path) -> None:
        self._study = study
        self._folder = folder
        with _named_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def weights_path(self, trial_id: int) -> Path:
        """Where the weights of a trial are to be written, by Optuna's identifier of it."""
        return self._folder / self._name(trial_id, _WEIGHTS)

    def settle(
        self, trials: Sequence[FrozenTrial], draw_curve: Callable[[FrozenTrial], bytes | None]
    ) -> Settlement:
        """Writes the curves that the best few lack; returns what else makes theirs all there is.

        What somebody deleted in the dashboard stays deleted. An entry whose file is not in this
        folder goes, and comes back in a search whose folder has it.

        Args:
            draw_curve: a trial's learning curve as PNG; None where it cannot be drawn.

        Raises:
            ArtifactError: if a file cannot be written.
        """
        study_id = self._study._study_id
        stored = self._study._storage.get_study_system_attrs(study_id)
        entries: dict[str, str] = {}
        kept: set[str] = set()
        for trial in best_few(trials, by_size=len(self._study.directions) > 1):
            for kind, file_name in (
                (_CURVE, f"trial-{trial.number}.png"),
                (_WEIGHTS, f"trial-{trial.number}.safetensors"),
            ):
                name = self._name(trial._trial_id, kind)
                key, path = _key(trial._trial_id, name), self._folder / name
                kept.add(name)  # also where it is not entered: no file of the best few is deleted
                if stored.get(key) == _DELETED:
                    continue
                if kind == _CURVE and not path.exists():
                    curve = draw_curve(trial)
                    if curve is not None:
                        with _named_errors(self._folder):
                            write_bytes(curve, path)
                if path.exists():
                    entries[key] = _entry(name, file_name)
        for key in stored:
            is_own = key.startswith(_PREFIX) and _NAME.fullmatch(key.rpartition(":")[2])
            if is_own and key not in entries and stored[key] != _DELETED:
                entries[key] = _MISSING
        ended = {f"{trial._trial_id:x}" for trial in trials if trial.state.is_finished()}
        return Settlement(
            entries={key: value for key, value in entries.items() if stored.get(key) != value},
            outdated=[
                path
                for path, match in _files(self._folder)
                if match["study"] == f"{study_id:x}"
                and match["trial"] in ended
                and path.name not in kept
            ],
        )

    def sweep_old(self) -> None:
        """Deletes what was half-written an hour ago, by searches that died on any host."""
        oldest = time.time() - _LONGEST_WRITE_SECONDS
        for path in self._folder.glob(".*"):
            with suppress(FileNotFoundError):  # another search was quicker
                if _HALF.fullmatch(path.name) and path.stat().st_mtime < oldest:
                    path.unlink()

    def sweep(self) -> None:
        """Deletes what a search that died left behind, and files of studies that are gone.

        Only for who has the study to himself, before it trains.
        """
        own = f"{self._study._study_id:x}"
        for path in self._folder.glob(f".{own}-*"):  # half-written
            path.unlink(missing_ok=True)
        found = _files(self._folder)  # first: a study that is made meanwhile is known then
        known = {f"{study._study_id:x}" for study in self._study._storage.get_all_studies()}
        trials = {f"{trial._trial_id:x}" for trial in trials_of(self._study)}
        for path, match in found:
            is_gone = match["study"] not in known
            if is_gone or (match["study"] == own and match["trial"] not in trials):
                path.unlink(missing_ok=True)

    def _name(self, trial_id: int, kind: int) -> str:
        return f"{self._study._study_id:x}-{trial_id:x}-{kind}"


def delete_files(folder: Path, study_id: int) -> None:
    """Deletes the files of a study that is deleted, by Optuna's identifier of it."""
    for path, match in _files(folder):
        if match["study"] == f"{study_id:x}":
            path.unlink(missing_ok=True)


def copy_artifacts(folder: Path, copy: Path, storage: BaseStorage) -> None:
    """Copies the files of a database that was copied to `storage`, which is made to agree.

    A search may have deleted a file since; then its entry goes from the copy.

    Raises:
        ArtifactError: if a file cannot be read or written.
    """
    for path in filter(Path.is_file, folder.glob("[!.]*")):
        with _named_errors(folder):
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                continue
        with _named_errors(copy):
            copy.mkdir(parents=True, exist_ok=True)
            write_bytes(data, copy / path.name)
    for study in storage.get_all_studies():
        for key, value in study.system_attrs.items():
            is_entry = key.startswith(_PREFIX) and json.loads(value) is not None
            if is_entry and not (copy / key.rpartition(":")[2]).exists():
                storage.set_study_system_attr(study._study_id, key, _MISSING)


_PREFIX = "dashboard:artifacts:"
# What stands in the place of an entry: optuna-dashboard puts the first there where a person deletes
# one. The second is ours, for a file that is not here; as JSON it says the same, and shows nothing.
_DELETED, _MISSING = "null", "null "


def _key(trial_id: int, name: str) -> str:
    return f"{_PREFIX}{trial_id}:{name}"


def _entry(name: str, file_name: str) -> str:
    is_picture = file_name.endswith(".png")
    return json.dumps(
        {
            "artifact_id": name,
            "filename": file_name,
            "mimetype": "image/png" if is_picture else "application/octet-stream",
            "encoding": None,
        }
    )


def _files(folder: Path) -> list[tuple[Path, re.Match[str]]]:
    """The files of all studies, and what their names say."""
    found = [(path, _NAME.fullmatch(path.name)) for path in folder.glob("*-*-*")]
    return [(path, match) for path, match in found if match is not None]


@contextmanager
def _named_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ArtifactError(
            f"The folder of artifacts must have room and let files be read and written, but "
            f"{folder} does not ({error.strerror}); mend that, and the same command goes on."
        ) from error
