"""Looks at the test set by commands that have weights or a recipe, and no study, before them."""

from __future__ import annotations

from optuna.study import Study

from search.exceptions import StorageError, StudyError
from search.storage.checks import has_studies
from search.storage.open import opened_storage
from search.study.findings import Findings, add_looks
from search.study.open import open_studies, open_study, open_trial, rebuild
from search.study.settings import StudySettings, stored_settings
from search.training.card import Card
from search.wording import seen_words


def add_looks_of_network(url: str, card: Card, fingerprint: str, *, n: int, by: str) -> str:
    """Counts looks with the study of `url` that found a network; returns the words to print.

    To be called before the looks are taken. A study may have been renamed since: the recipe of its
    trial and its data tell it. Of several that have the same, as twins begin with the same trial,
    it is the one that keeps the retraining of the card, or else the one of its name.

    Args:
        card: of the network's weights.
        fingerprint: of the data set that is looked at.
        by: the command that looks.
    """
    not_counted = "this look at the test set is not counted."
    try:
        name = _finder(url, card, fingerprint)
    except StorageError as error:
        return f"{not_counted.capitalize()} {error}"
    if name is None:
        return f"No study here has found this network, so that {not_counted}"
    try:
        with opened_storage(url, write=True) as storage:
            study = open_study(storage, name)
            add_looks(study, n, by=by, trial=card.trial)
            return looks_words(study)
    except StorageError as error:  # the network may be somebody else's, and so the database
        return f"{name} has found this network, but {not_counted} {error}"


def _finder(url: str, card: Card, fingerprint: str) -> str | None:
    """The name of the study that found a network; None where there is none."""
    if not has_studies(url):
        return None

    def likeliness(study: Study) -> tuple[bool, bool]:
        return _keeps_retraining(study, card), study.study_name == card.study

    with opened_storage(url) as storage:
        found = [each for each in open_studies(storage) if _has_found(each, card, fingerprint)]
        finder = max(found, key=likeliness, default=None)
        return None if finder is None else finder.study_name


def looks_words(study: Study) -> str:
    """How often the test set was seen, as a sentence."""
    n_looks = Findings.read(study).test_looks
    return f"By {study.study_name}, the test set was seen {seen_words(n_looks)}."


def _has_found(study: Study, card: Card, fingerprint: str) -> bool:
    if stored_settings(study) is None:
        return False
    try:
        if StudySettings.from_study(study).data_fingerprint != fingerprint:
            return False
        return rebuild(study, open_trial(study, card.trial)) == card.hyperparameters
    except StudyError:  # of a later version, or without such a trial
        return False


def _keeps_retraining(study: Study, card: Card) -> bool:
    """Whether it was a retraining of this study that wrote a card."""
    written = card.created.isoformat(timespec="seconds"), card.mean_accuracy
    return written in [
        (kept.get("created"), kept["test_accuracy"]["mean"])
        for kept in Findings.read(study).retrainings
    ]
