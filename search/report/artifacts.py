"""Learning curves and weights of a study's best trials, as optuna-dashboard shows them.

An artifact is a file and an entry that tells of it. A file is written before its entry and deleted
after it, so that no entry is without its file. A file without an entry shows nowhere, and the next
start of a search gets it entered or deleted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from optuna.study import Study
from optuna.trial import FrozenTrial

from search.files import write_bytes
from search.report.artifact_files import (
    CURVE,
    DELETED,
    MISSING,
    WEIGHTS,
    ArtifactName,
    entered,
    entered_elsewhere,
    entry_key,
    entry_text,
    files_in,
    name_in,
    named_errors,
)
from search.storage.studies import stored_studies
from search.study.settings import give_identity, identity_of
from search.study.summary import by_accuracy, front
from search.study.trials import trials_of

N_BEST = 5  # trials whose artifacts are kept
_LONGEST_WRITE_SECONDS = 3600  # of a few MB: generous, as the clocks of hosts differ


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
        self._storage, self._study_id = study._storage, study._study_id
        self._identity = give_identity(study)
        self._folder = folder
        with named_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def weights_path(self, number: int) -> Path:
        """Where the weights of the trial of that number are to be written."""
        return self._folder / str(self._name(number, WEIGHTS))

    def settle(
        self, trials: Sequence[FrozenTrial], draw_curve: Callable[[FrozenTrial], bytes | None]
    ) -> Settlement:
        """Writes the files that the best few lack; returns what else makes theirs all there is.

        In a study that is a copy they are copied from the other's, and curves drawn where there is
        none. What somebody deleted in the dashboard stays deleted. An entry whose file is not in
        this folder goes, and comes back in a search whose folder has it.

        Args:
            draw_curve: a trial's learning curve as PNG; None where it cannot be drawn.

        Raises:
            ArtifactError: if a file cannot be read or written.
        """
        stored = self._storage.get_study_system_attrs(self._study_id)
        told, deleted = entered(stored), self._deleted(stored, trials)
        found = files_in(self._folder)
        entries: dict[str, str] = {}
        kept: set[str] = set()
        for trial in best_few(trials, by_size=len(self._study.directions) > 1):
            for kind, suffix in ((CURVE, "png"), (WEIGHTS, "safetensors")):
                name, shown = self._name(trial.number, kind), f"trial-{trial.number}.{suffix}"
                path = self._folder / str(name)
                kept.add(path.name)  # also where it is not entered: those of the best few stay
                if (trial.number, kind) in deleted:
                    continue
                if not path.exists():
                    self._copy(found, told, trial, name, shown)
                if kind == CURVE and not path.exists():
                    curve = draw_curve(trial)
                    if curve is not None:
                        with named_errors(self._folder):
                            write_bytes(curve, path)
                if path.exists():
                    entries[entry_key(trial._trial_id, name)] = entry_text(name, shown)
        for key in stored:
            if name_in(key) and key not in entries and stored[key] != DELETED:
                entries[key] = MISSING
        ended = [trial for trial in trials if trial.state.is_finished()]
        outdated = {p for p, name in found if self._is_own(name) and _is_of_one(name, ended)}
        outdated -= {self._folder / name for name in kept}
        if outdated:
            of_copies = entered_elsewhere(self._storage, self._study_id)
            outdated = {path for path in outdated if path.name not in of_copies}
        return Settlement(
            entries={key: value for key, value in entries.items() if stored.get(key) != value},
            outdated=sorted(outdated),
        )

    def _deleted(
        self, stored: Mapping[str, str], trials: Sequence[FrozenTrial]
    ) -> set[tuple[int, int]]:
        """Number and kind of what somebody deleted in the dashboard, here or before a copy."""
        numbers = {trial._trial_id: trial.number for trial in trials}
        names = [name_in(key) for key, value in stored.items() if value == DELETED]
        found = set()
        for name in filter(None, names):
            if name.identity is not None:
                found.add((name.trial, name.kind))
            elif self._is_own(name) and name.trial in numbers:
                found.add((numbers[name.trial], name.kind))
        return found

    def _copy(
        self,
        found: Sequence[tuple[Path, ArtifactName]],
        told: Mapping[str, str],
        trial: FrozenTrial,
        name: ArtifactName,
        shown: str,
    ) -> None:
        """Copies a file of the study that this one is a copy of, or that has an earlier name.

        Args:
            found: all files of the folder.
            told: files of which entries tell, and the names under which they are shown.
            name: what the file is to be called here.
            shown: the name under which it is shown.
        """
        # Of an earlier version: by Optuna's identifier of the trial.
        before = ArtifactName(None, self._study_id, trial._trial_id, name.kind)
        for path, other in sorted(found, key=lambda each: each[0].name not in told):
            if other.identity is None:
                is_its = other == before or told.get(path.name) == shown
            else:
                is_its = replace(other, study_id=self._study_id) == name
            if is_its and self._is_same(other, trial):
                with named_errors(self._folder), suppress(FileNotFoundError):  # it went just now
                    write_bytes(path.read_bytes(), self._folder / str(name))
                    return

    def _is_same(self, name: ArtifactName, trial: FrozenTrial) -> bool:
        """Whether a file is of this very trial, or of the one that it is a copy of.

        Of a study that is gone, nobody can tell any more. One that is there may have gone another
        way since it was copied.
        """
        studies = {each._study_id: each for each in self._storage.get_all_studies()}
        study = studies.get(name.study_id)
        if study is None:
            return True
        if identity_of(study) != self._identity:  # it has the identifier of one that is gone
            return name.identity is not None
        try:
            trial_id = self._storage.get_trial_id_from_study_id_trial_number(
                study._study_id, trial.number
            )
        except KeyError:
            return False
        twin = self._storage.get_trial(trial_id)
        is_of_twin = name.trial == (trial_id if name.identity is None else twin.number)
        return is_of_twin and (twin.params, twin.values) == (trial.params, trial.values)

    def sweep_old(self) -> None:
        """Deletes what was half-written an hour ago, by searches that died on any host."""
        oldest = time.time() - _LONGEST_WRITE_SECONDS
        for path in self._folder.glob(".*"):
            with suppress(FileNotFoundError):  # another search was quicker
                if ArtifactName.parse_half(path.name) and path.stat().st_mtime < oldest:
                    path.unlink()

    def sweep(self) -> None:
        """Deletes what a search that died left behind of this study, or of those it is a copy of.

        Files of other studies stay, also of such as are gone: the database that they are of may
        have been moved away, and this one begun in its place. (Names that version 0.1.0 gave, by
        identifiers alone, do not tell one database from another.)

        Only for who has the study to himself, before it trains; and once it is settled, as it may
        be a copy of one that is gone.
        """
        for path in self._folder.glob(".*"):
            name = ArtifactName.parse_half(path.name)
            if name is not None and self._is_own(name):
                path.unlink(missing_ok=True)
        found = files_in(self._folder)  # first: a study that is made meanwhile is known then
        studies = {each._study_id: identity_of(each) for each in stored_studies(self._storage)}
        of_copies = entered_elsewhere(self._storage, self._study_id)
        trials = trials_of(self._study)
        for path, name in found:
            if self._is_own(name):
                is_needed = _is_of_one(name, trials)
            elif name.identity is None:
                is_needed = name.study_id in studies
            else:
                is_of_copy = name.identity == self._identity
                is_needed = not is_of_copy or studies.get(name.study_id) == self._identity
            if not is_needed and path.name not in of_copies:
                path.unlink(missing_ok=True)

    def _is_own(self, name: ArtifactName) -> bool:
        return name.study_id == self._study_id and name.identity in (None, self._identity)

    def _name(self, number: int, kind: int) -> ArtifactName:
        return ArtifactName(self._identity, self._study_id, number, kind)


def _is_of_one(name: ArtifactName, trials: Iterable[FrozenTrial]) -> bool:
    """Whether a file of a study is of one of these trials of it."""
    is_old = name.identity is None
    return name.trial in ((t._trial_id if is_old else t.number) for t in trials)
