"""Looks at the test set by commands that have weights or a recipe, and no study, before them."""

from __future__ import annotations

from optuna.study import Study

from search.exceptions import StorageError, StudyError
from search.space.hyperparameters import Hyperparameters
from search.storage.checks import has_studies
from search.storage.open import opened_storage
from search.study.findings import Findings, add_looks
from search.study.open import open_studies, open_trial, rebuild
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
    try:
        if has_studies(url):
            with opened_storage(url, write=True) as storage:
                for study in open_studies(storage):
                    if _has_found(study, hyperparameters, trial, fingerprint):
                        add_looks(study, n, by=by, trial=trial)
                        return looks_words(study)
    except StorageError:  # it may be read-only, and the network is somebody else's
        pass
    return "No study here has found this network, so that this look at the test set is not counted."


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
