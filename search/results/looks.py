"""Looks at the test set by commands that have weights or a recipe, and no study, before them."""

from __future__ import annotations

from optuna.study import Study

from search.exceptions import StorageError, StudyError
from search.space.hyperparameters import Hyperparameters
from search.storage.checks import has_studies
from search.storage.open import opened_storage
from search.study.findings import Findings, add_looks
from search.study.open import open_studies, open_study, open_trial, rebuild
from search.study.settings import StudySettings, stored_settings
from search.wording import seen_words


def add_looks_of_network(
    url: str, hyperparameters: Hyperparameters, trial: int, fingerprint: str, *, n: int, by: str
) -> str:
    """Counts looks with the study of `url` that found a network; returns the words to print.

    To be called before the looks are taken. A study may have been renamed since: its trial's recipe
    and its data tell it.

    Args:
        trial: the number of the trial that found it.
        fingerprint: of the data set.
        by: the command that looks.
    """
    not_counted = "this look at the test set is not counted."
    try:
        name = _finder(url, hyperparameters, trial, fingerprint)
    except StorageError as error:
        return f"{not_counted.capitalize()} {error}"
    if name is None:
        return f"No study here has found this network, so that {not_counted}"
    try:
        with opened_storage(url, write=True) as storage:
            study = open_study(storage, name)
            add_looks(study, n, by=by, trial=trial)
            return looks_words(study)
    except StorageError as error:  # the network may be somebody else's, and so the database
        return f"{name} has found this network, but {not_counted} {error}"


def _finder(url: str, hyperparameters: Hyperparameters, trial: int, fingerprint: str) -> str | None:
    """The name of the study that found a network; None where there is none."""
    if not has_studies(url):
        return None
    with opened_storage(url) as storage:
        for study in open_studies(storage):
            if _has_found(study, hyperparameters, trial, fingerprint):
                return study.study_name
    return None


def looks_words(study: Study) -> str:
    """How often the test set was seen, as a sentence."""
    n_looks = Findings.read(study).test_looks
    return f"By {study.study_name}, the test set was seen {seen_words(n_looks)}."


def _has_found(
    study: Study, hyperparameters: Hyperparameters, number: int, fingerprint: str
) -> bool:
    if stored_settings(study) is None:
        return False
    try:
        if StudySettings.from_study(study).data_fingerprint != fingerprint:
            return False
        return rebuild(study, open_trial(study, number)) == hyperparameters
    except StudyError:  # of a later version, or without such a trial
        return False
