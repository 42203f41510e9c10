"""Which study a search goes on with that names no data set. Imports nothing slow but Optuna."""

from __future__ import annotations

from pathlib import Path

from optuna.study import Study

from search.data.names import SPLITS
from search.results.folds import Folds
from search.storage.checks import has_studies
from search.storage.open import opened_storage
from search.study.history import (
    last_used,
    length_asked_before,
    remembered_data_dir,
    run_records,
)
from search.study.length import is_reached
from search.study.open import open_studies
from search.study.settings import StudySettings, stored_settings
from search.study.trials import trials_of
from search.tuner.final_race import race_at_the_end
from search.tuner.length import length_of
from search.tuner.options import SearchRequest
from search.tuner.request import study_name


def known_study(request: SearchRequest) -> tuple[str, StudySettings, Path | None] | None:
    """The study that this request would go on with, if there is one.

    Its name, its settings, and the folder of data that it remembers. That is the study which the
    request names; or else, of those of its budget and epochs on a built-in data set that still lack
    trials or their race, or whose search for a target may go on under lower caps, the one that was
    used last.
    """
    if not has_studies(request.storage):
        return None
    with opened_storage(request.storage) as storage:
        candidates = {study_name(request, dataset) for dataset in SPLITS}
        studies = [study for study in open_studies(storage) if study.study_name in candidates]
        found = [study for study in studies if stored_settings(study) is not None]
        if request.study is None:  # a folder of images may be called as a built-in data set
            found = [
                study
                for study in found
                if StudySettings.from_study(study).dataset in SPLITS
                and _lacks_something(study, request)
            ]
        if not found:
            return None
        study = max(found, key=last_used)
        return study.study_name, StudySettings.from_study(study), remembered_data_dir(study)


def _lacks_something(study: Study, request: SearchRequest) -> bool:
    """Whether a study lacks trials, its race, or a lower cap for the target of its last search."""
    settings = StudySettings.from_study(study)
    split = settings.known_split
    trials = trials_of(study)
    if split is None:
        return False
    before = length_asked_before(study)
    length = length_of(request, split.n_training, before=before, trials=lambda: trials)
    if not is_reached(length, trials, split.n_validation):
        return True
    folds = Folds.known(settings)
    if (
        request.target is None
        and folds is not None
        and race_at_the_end(study, request, folds) is not None
    ):
        return True
    records = run_records(study)
    target = None if request.target is None else request.target.accuracy
    return target is not None and bool(records) and records[-1].get("target") == target
