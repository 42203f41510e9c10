"""The files of artifacts: where they lie, how they are called, and the entries that tell of them.

The files of a database's studies lie in one folder of its own, under the names
IDENTITY-STUDY-TRIAL-KIND: the study's identity and Optuna's identifier of it, the trial's number,
these two as hexadecimal numbers, and 0 for a curve or 1 for weights. A study that is copied or
renamed keeps its identity and its trials' numbers, so that it finds the files of the one that it
is a copy of; by its identifier, which is another, the files of the two are told apart.

The entries are attributes of the study, where optuna-dashboard looks as well, because Optuna lets
nobody change the attributes of a finished trial: there, no entry could go again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from optuna.artifacts import FileSystemArtifactStore
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.storages import BaseStorage

from search.exceptions import ArtifactError
from search.files import write_bytes
from search.storage.studies import stored_studies
from search.storage.urls import database_label, sqlite_path
from search.study.settings import identity_of

CURVE, WEIGHTS = 0, 1
# What stands in the place of an entry: optuna-dashboard puts the first there where a person deletes
# one. The second is ours, for a file that is not here; as JSON it says the same, and shows nothing.
DELETED, MISSING = "null", "null "
_PREFIX = "dashboard:artifacts:"
_NAME = re.compile(r"(?:([0-9a-f]{32})-)?([0-9a-f]+)-([0-9a-f]+)-([01])")
_HALF = re.compile(r"\.(.+)\.[0-9a-f]+")


def artifact_folder(url: str, folder: Path | None = None) -> Path | None:
    """Where the artifacts of a database's studies lie; None where none are kept.

    Args:
        folder: what a user names, in which each database has a folder of its own: its identifiers
            of studies are those of other databases as well. Without it, that is a folder beside a
            SQLite database; for a server there is none, as its users need not share a disk.
    """
    if folder is not None:
        return folder / database_label(url)
    path = sqlite_path(url)
    if path is None:
        return None
    path = path.resolve()  # a link's database is the one that it leads to
    return path.with_name(f"{path.name}-artifacts")


@dataclass(frozen=True, slots=True)
class ArtifactName:
    """What the name of a file tells.

    Args:
        identity: of its study; None in names that earlier versions gave.
        study_id: Optuna's identifier of the study.
        trial: its number; in names without an identity, Optuna's identifier of it.
        kind: `CURVE` or `WEIGHTS`.
    """

    identity: str | None
    study_id: int
    trial: int
    kind: int

    @classmethod
    def parse(cls, text: str) -> ArtifactName | None:
        """The name of an artifact; None of any other file."""
        match = _NAME.fullmatch(text)
        if match is None:
            return None
        identity, study_id, trial, kind = match.groups()
        return cls(identity, int(study_id, 16), int(trial, 16), int(kind))

    @classmethod
    def parse_half(cls, text: str) -> ArtifactName | None:
        """The name that a half-written file was to have; None of any other file."""
        match = _HALF.fullmatch(text)
        return None if match is None else cls.parse(match[1])

    def __str__(self) -> str:
        identity = "" if self.identity is None else f"{self.identity}-"
        return f"{identity}{self.study_id:x}-{self.trial:x}-{self.kind}"


class ArtifactFolder(FileSystemArtifactStore):
    """Optuna's store in a folder, made when something is first written there; no half files.

    To remove what is not there is no error: else nobody could delete a study that lacks a file. And
    a file of which two studies tell stays: one is a copy of the other, and has yet to copy it.
    """

    def __init__(self, folder: Path, storage: BaseStorage) -> None:
        super().__init__(folder)
        self._storage = storage

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        path = self._get_filepath(artifact_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(content_body.read(), path)

    def remove(self, artifact_id: str) -> None:
        studies = self._storage.get_all_studies()
        if sum(artifact_id in entered(study.system_attrs) for study in studies) > 1:
            return
        with suppress(ArtifactNotFound):
            super().remove(artifact_id)


def files_in(folder: Path) -> list[tuple[Path, ArtifactName]]:
    """The files of all studies, and what their names tell."""
    found = [(path, ArtifactName.parse(path.name)) for path in folder.glob("*-*-*")]
    return [(path, name) for path, name in found if name is not None]


def entry_key(trial_id: int, name: ArtifactName) -> str:
    """The attribute of a study that is the entry of a file, by Optuna's identifier of the trial."""
    return f"{_PREFIX}{trial_id}:{name}"


def entry_text(name: ArtifactName, shown: str) -> str:
    """The entry of a file that is shown under a name."""
    is_curve = name.kind == CURVE
    return json.dumps(
        {
            "artifact_id": str(name),
            "filename": shown,
            "mimetype": "image/png" if is_curve else "application/octet-stream",
            "encoding": None,
        }
    )


def name_in(key: str) -> ArtifactName | None:
    """The file of which an attribute of a study tells; None where it tells of none of ours."""
    return ArtifactName.parse(key.rpartition(":")[2]) if key.startswith(_PREFIX) else None


def entered(attributes: Mapping[str, Any]) -> dict[str, str]:
    """The files of which a study's attributes tell, and under which names they are shown."""
    found = {key: _shown_name(text) for key, text in attributes.items() if name_in(key)}
    return {key.rpartition(":")[2]: shown for key, shown in found.items() if shown is not None}


def _shown_name(entry: Any) -> str | None:
    """The name that an entry shows its file under; None where it is deleted, or none of ours."""
    with suppress(ValueError, TypeError):
        match json.loads(entry):
            case {"filename": str(shown)}:
                return shown
    return None


def entries_of_copy(attributes: Mapping[str, Any], trial_ids: Mapping[int, int]) -> dict[str, Any]:
    """The entries of a study as those of a copy of it, whose trials have other identifiers.

    Args:
        attributes: of the study.
        trial_ids: Optuna's identifiers of the copy's trials, by those that they are copies of.
    """
    found = {}
    for key, value in attributes.items():
        trial_id, _, artifact = key.removeprefix(_PREFIX).rpartition(":")
        if key.startswith(_PREFIX) and not trial_id:
            found[key] = value
        elif key.startswith(_PREFIX) and trial_id.isdecimal() and int(trial_id) in trial_ids:
            found[f"{_PREFIX}{trial_ids[int(trial_id)]}:{artifact}"] = value
    return found


def entered_elsewhere(storage: BaseStorage, study_id: int) -> set[str]:
    """The files of which all other studies tell: that of a copy may be another's."""
    others = [each for each in storage.get_all_studies() if each._study_id != study_id]
    return {name for study in others for name in entered(study.system_attrs)}


def delete_files(folder: Path, storage: BaseStorage, study_id: int, identity: str | None) -> None:
    """Deletes the files of a study that was deleted, but for those of which a copy of it tells.

    Args:
        study_id: Optuna's identifier of the study.
        identity: its own.
    """
    of_copies = entered_elsewhere(storage, study_id)
    # Of a study that was renamed, some may have the identifier that it had before.
    is_last = identity not in map(identity_of, stored_studies(storage))
    for path, name in files_in(folder):
        if name.identity is None:
            is_its = name.study_id == study_id
        else:
            is_its = name.identity == identity and (is_last or name.study_id == study_id)
        if is_its and path.name not in of_copies:
            path.unlink(missing_ok=True)


def copy_artifacts(folder: Path, copy: Path, storage: BaseStorage) -> None:
    """Copies the files of a database that was copied to `storage`, which is made to agree.

    A search may have deleted a file since; then its entry goes from the copy.

    Raises:
        ArtifactError: if a file cannot be read or written.
    """
    with named_errors(folder):  # a glob would find nothing where it may not look
        found = list(folder.iterdir()) if folder.exists() else []
    for path in found:
        with named_errors(folder):
            if path.name.startswith(".") or not path.is_file():
                continue
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                continue
        with named_errors(copy):
            copy.mkdir(parents=True, exist_ok=True)
            write_bytes(data, copy / path.name)
    for study in storage.get_all_studies():
        for key, value in study.system_attrs.items():
            name = name_in(key)  # what a person keeps elsewhere stays entered
            is_told = name is not None and _shown_name(value) is not None
            if is_told and not (copy / str(name)).exists():
                storage.set_study_system_attr(study._study_id, key, MISSING)


@contextmanager
def named_errors(folder: Path) -> Iterator[None]:
    """Raises ArtifactError where a file in a folder cannot be read or written."""
    try:
        yield
    except OSError as error:
        raise ArtifactError(
            f"The folder of artifacts must have room and let files be read and written, but "
            f"{folder} does not ({error.strerror}); mend that, and the same command goes on."
        ) from error
