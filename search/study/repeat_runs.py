"""Further runs of a study's configurations, each stored as it ends in a study of their own.

That study is named after the first and says so in an attribute. It has one trial a run, and with
each the settings of the first study then, which may have been deleted and made again with others.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.exceptions import StudyDeletedError, StudyError
from search.storage.studies import stored_studies, study_names
from search.study.open import OF_IDENTITY, find_repeats, open_study
from search.study.record import TrialRecord
from search.study.settings import StudySettings, give_identity
from search.study.summary import repeats_name
from search.training.epochs import last_epochs_mean

NOT_FINITE = "the loss is not finite"


class RepeatStore:
    """The further runs of a study, in a study beside it.

    Args:
        purpose: what the runs are for: `CONFIRMS` or `ABLATES`.
    """

    def __init__(self, study: Study, purpose: str) -> None:
        self._study = study
        self._owner = study.study_name
        self._storage = study._storage
        self._purpose = purpose
        self.name = self._name()
        self._settings = StudySettings.from_study(study).digest

    @property
    def is_name_taken(self) -> bool:
        """Whether the name of the runs' study belongs to something else."""
        if self._find() is not None or self.name not in study_names(self._storage):
            return False
        repeats = open_study(self._storage, self.name)
        if self._purpose in repeats.user_attrs:
            return bool(repeats.user_attrs[self._purpose] != self._owner)
        # One without anything may be what a process that was killed has just made.
        attributes = (repeats.user_attrs, self._storage.get_study_system_attrs(repeats._study_id))
        return any(attributes) or bool(repeats.get_trials(deepcopy=False))

    def _find(self) -> Study | None:
        return find_repeats(self._storage, self._study, self._purpose)

    def _name(self) -> str:
        """Of the study of the runs: as it is, or else as it will be.

        Where a study was renamed, and another has its name now, the runs of the first have theirs.
        """
        found = self._find()
        if found is not None:
            return found.study_name
        name = repeats_name(self._owner, self._purpose)
        of_others = {
            each.study_name
            for each in stored_studies(self._storage)
            if OF_IDENTITY in each.user_attrs
        }
        return next(
            free for n in count(1) if (free := name if n == 1 else f"{name}-{n}") not in of_others
        )

    def check_name(self) -> None:
        """Raises StudyError where something else has the name of the runs' study."""
        if self.is_name_taken:
            raise StudyError(
                f"Further runs of {self._owner!r} must be kept in a study {self.name!r}, but that "
                "name is taken; rename or delete it."
            )

    def runs(self) -> list[FrozenTrial]:
        """Those of this very study, and not of another that had its name.

        Raises:
            StudyError: if the name is taken.
        """
        self.check_name()
        repeats = self._find()
        if repeats is None:
            return []
        return [
            run
            for run in repeats.get_trials(deepcopy=False)
            if TrialRecord.read(run).settings == self._settings
        ]

    def add(
        self,
        record: TrialRecord,
        *,
        params: dict[str, Any] | None = None,
        distributions: dict[str, BaseDistribution] | None = None,
    ) -> float | None:
        """Stores a run that has ended; returns its value, None where its loss was not finite.

        Args:
            record: with its epochs, how it came about, and what it is a run of.

        Raises:
            StudyError: if the name is taken.
            StudyDeletedError: if the study that they are runs of was deleted.
        """
        is_finite = record.epochs[-1].is_finite
        value = last_epochs_mean(record.epochs) if is_finite else None
        reason = None if is_finite else NOT_FINITE
        record = replace(record, settings=self._settings, reason=reason)
        self._create_or_open().add_trial(
            create_trial(
                state=TrialState.COMPLETE if is_finite else TrialState.FAIL,
                value=value,
                params=params,
                distributions=distributions,
                intermediate_values={
                    result.epoch: result.accuracy for result in record.epochs if result.is_finite
                },
                user_attrs=record.to_attributes(),
            )
        )
        return value

    def _create_or_open(self) -> Study:
        """The study of the runs, made where it is missing."""
        if self._owner not in study_names(self._storage):
            raise StudyDeletedError(
                f"The study must stay while its recipes are trained, but {self._owner!r} was "
                "deleted."
            )
        self.check_name()
        repeats = optuna.create_study(
            study_name=self.name,
            storage=self._storage,
            direction="maximize",
            load_if_exists=True,
        )
        repeats.set_user_attr(self._purpose, self._owner)
        repeats.set_user_attr(OF_IDENTITY, give_identity(self._study))
        return repeats
