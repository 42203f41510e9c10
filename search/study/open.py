"""Studies of a database: created, opened, chosen, and their trials rebuilt."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from search.data.at_hand import check_at_hand
from search.data.names import find_data_words
from search.exceptions import StudyDeletedError, StudyError, UnknownStudyError
from search.space.hyperparameters import Hyperparameters
from search.storage.studies import stored_studies, study_names
from search.study.history import last_used, remembered_data_dir
from search.study.record import TrialRecord, is_foreign
from search.study.settings import (
    StudySettings,
    check_same,
    give_identity,
    identity_of,
    store_settings,
    stored_settings,
)
from search.study.summary import (
    ABLATES,
    CONFIRMS,
    by_accuracy,
    chosen_trial,
    how_to_complete,
    parameter_count_of,
    repeats_name,
)
from search.study.trials import judge_all, rules_of, trials_of
from search.wording import counted, meant

if TYPE_CHECKING:  # it imports torch, which reading a study does not need
    from search.data.dataset import Dataset, DatasetInfo

_LONGEST_NAME = 200  # characters: a server's column takes 512, and a suffix may follow
_HIGHEST_NUMBER = 2**31 - 1  # of a trial: what a server's column takes


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


def open_study(storage: BaseStorage, name: str) -> Study:
    """The study of that name.

    Raises:
        StudyError: if there is none.
    """
    known = study_names(storage)
    if name not in known:  # not by asking for it: a database does not take every text
        repeats = {repeats_name(study, each) for study in known for each in (CONFIRMS, ABLATES)}
        own = [study for study in known if study not in repeats]
        raise UnknownStudyError(
            f"A study must be in the storage, which has {', '.join(own) or 'none'}, but there is "
            f"no {name!r}{meant(str(name), own)}"
        )
    return optuna.load_study(study_name=name, storage=storage)


def open_studies(storage: BaseStorage) -> Iterator[Study]:
    """All studies, oldest first; each is opened when it is asked for, if it is still there."""
    for name in study_names(storage):
        try:
            study = optuna.load_study(study_name=name, storage=storage)
        except KeyError:
            continue
        yield study


# An attribute of a study of runs: the identity of the study that they are runs of.
OF_IDENTITY = "of_identity"


def find_repeats(storage: BaseStorage, study: Study, purpose: str) -> Study | None:
    """The study that keeps a study's runs for a purpose; None where there is none of its own.

    A study may have been renamed since: its identity tells, and the name where one has none yet.
    """
    identity = identity_of(study)
    for each in stored_studies(storage):
        whose = each.user_attrs.get(OF_IDENTITY)
        is_told = whose is not None and identity is not None
        has_name = each.user_attrs.get(purpose) == study.study_name
        if purpose in each.user_attrs and (whose == identity if is_told else has_name):
            return optuna.load_study(study_name=each.study_name, storage=storage)
    return None


def has_copy(storage: BaseStorage, study: Study) -> bool:
    """Whether another study is a copy of this one, or this one of it."""
    identity = identity_of(study)
    return identity is not None and any(
        identity_of(each) == identity and each._study_id != study._study_id
        for each in stored_studies(storage)
    )


def select_study(storage: BaseStorage, name: str | None) -> Study:
    """The study of that name; without a name, the one that was used last.

    Raises:
        StudyError: if there is none.
    """
    if name is not None:
        return open_study(storage, name)
    # Not Optuna's summaries of studies, for which it copies every trial of each.
    found = [study for study in stored_studies(storage) if stored_settings(study) is not None]
    if not found:
        raise StudyError(
            "The storage must hold a study of 'search run', but it has none; make one with it."
        )
    return open_study(storage, max(found, key=last_used).study_name)


def open_trial(study: Study, number: int | None = None) -> FrozenTrial:
    """The trial of that number; without one, the confirmed winner or else the best.

    Raises:
        StudyError: if there is none.
    """
    if number is not None:
        return _open_numbered(study, number)
    chosen = _open_chosen(study)
    if chosen is None:
        raise StudyError(
            f"The study {study.study_name!r} must have a complete trial, but it has none yet; "
            f"{how_to_complete(study, trials_of(study))}."
        )
    return chosen


def _open_chosen(study: Study) -> FrozenTrial | None:
    """`chosen_trial` of a study, of whose trials only those are judged that may be it."""
    rules, complete = rules_of(study), (TrialState.COMPLETE,)
    # Of what is below Optuna's cache, which would read all trials, whatever their states.
    storage = getattr(study._storage, "_backend", study._storage)
    ordered = by_accuracy(storage.get_all_trials(study._study_id, deepcopy=False, states=complete))
    for place, best in enumerate(ordered):
        judge_all([best], rules)
        if not is_foreign(best):
            chosen = chosen_trial(study, ordered[place:]) or best
            judge_all([chosen], rules)
            return chosen
    return None


def _open_numbered(study: Study, number: int) -> FrozenTrial:
    """The trial of that number, without a look at the others."""
    storage, study_id = study._storage, study._study_id
    try:
        operator.index(number)
    except TypeError as error:
        raise StudyError(
            f"The number of a trial must be a whole number (int), but got {number!r}; give one, as "
            "number=3."
        ) from error
    try:
        if number > _HIGHEST_NUMBER:
            raise KeyError(number)
        trial_id = storage.get_trial_id_from_study_id_trial_number(study_id, number)
        trial = storage.get_trial(trial_id)
    except KeyError as error:
        raise StudyError(
            f"A trial must be in the study, but {study.study_name!r} has no trial {number}; it has "
            f"{counted(storage.get_n_trials(study_id), 'trial')}, counted from 0."
        ) from error
    judge_all([trial], rules_of(study))
    return trial


def create_or_open_study(storage: BaseStorage, name: str, settings: StudySettings) -> Study:
    """The study of that name, made where it is missing.

    Raises:
        StudyError: if it is there and differs from `settings`, naming the differences.
    """
    study = optuna.create_study(
        study_name=name, storage=storage, directions=settings.directions, load_if_exists=True
    )
    is_new = stored_settings(study) is None
    if is_new and study.directions != settings.directions:
        raise StudyError(
            f"A study must have the objective {settings.objective}, but {name!r} was made by "
            "something else and has another; name another study with --study."
        )
    if is_new and not study.get_trials(deepcopy=False):
        store_settings(study, settings)
        return study
    check_same(name, StudySettings.from_study(study), settings)
    give_identity(study)
    return study


def rebuild(study: Study, trial: FrozenTrial) -> Hyperparameters:
    """The hyperparameters of a stored trial, by the code that suggested them.

    Raises:
        StudyError: if the trial ended before it had them, or another program has written it.
    """
    foreign = StudyError(
        f"A trial must have been written by a search, but trial {trial.number} of "
        f"{study.study_name!r} was by another program; take another with --trial."
    )
    if is_foreign(trial):
        raise foreign
    try:
        space = StudySettings.from_study(study).search_space()
        hyperparameters = space.recall(trial, TrialRecord.read(trial).recipe)
    except ValueError as error:
        raise StudyError(
            f"A trial must have all hyperparameters of its space, but trial {trial.number} of "
            f"{study.study_name!r} ended before ({error}); take another with --trial."
        ) from error
    if parameter_count_of(trial) not in (None, hyperparameters.spec.parameter_count):
        raise foreign
    return hyperparameters


def check_study_data(study: Study, data_dir: Path | None = None) -> None:
    """Sees, before PyTorch is loaded, that there are data of the study's name.

    Args:
        data_dir: as that of `load_study_data`.

    Raises:
        DataError: if there are none, and none can be downloaded.
    """
    folder = data_dir or remembered_data_dir(study)
    check_at_hand(StudySettings.from_study(study).dataset, folder)


def load_study_data(study: Study, data_dir: Path | None = None) -> Dataset:
    """The data set that a study was made with.

    Args:
        data_dir: where its files lie; by default, where the study's last search was told.

    Raises:
        DataError: if it is not to be had.
        StudyError: if it has other images or labels now.
    """
    from search.data.load import load_dataset

    settings = StudySettings.from_study(study)
    folder = data_dir or remembered_data_dir(study)
    dataset = load_dataset(settings.dataset, folder, image_size=settings.image_size)
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


@contextmanager
def unless_deleted(study: Study) -> Iterator[None]:
    """Raises StudyDeletedError where something inside fails because the study was deleted."""
    identity = identity_of(study)
    try:
        yield
    except (KeyError, StudyError) as error:
        if study.study_name in study_names(study._storage) and _has_identity(study, identity):
            raise  # the error is about something else
        raise StudyDeletedError(
            f"The study must stay while it is searched, but {study.study_name!r} was deleted."
        ) from error


def _has_identity(study: Study, identity: str | None) -> bool:
    """Whether a study is the one that it was, rather than a newer one of its name or number."""
    try:
        return identity_of(study) == identity
    except KeyError:
        return False
