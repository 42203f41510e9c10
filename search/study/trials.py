"""The trials of a study, each judged as it is read: written by its searches, or foreign.

Whose a trial is, its record alone does not tell: it may be a copy from another study of ours, or be
made by hand. So whoever chooses, races, draws or counts reads trials here, and `is_foreign` says
from then on what was found.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Container, Sequence
from dataclasses import dataclass, field

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from search.exceptions import SpaceError, StudyError
from search.space.distributions import is_alike, is_inside
from search.space.space import Space
from search.study.record import TrialRecord, judge
from search.study.settings import StudySettings, identity_of, marked_from

_DRAWN = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class StudyRules:
    """What the searches of a study can have written.

    A trial says from its first moment in which study a search began it. Those of before a study's
    `marked_from` do not: they are taken for its own where they could be.

    Args:
        digest: of the settings.
        identity: of the study; None of one that has none yet.
        marked_from: as the function of that name gives it.
    """

    digest: str
    identity: str | None
    marked_from: int | None
    settings: StudySettings = field(compare=False)

    @functools.cached_property
    def space(self) -> Space:
        return self.settings.search_space()

    def allow(self, trial: FrozenTrial, record: TrialRecord) -> bool:
        if trial.state == TrialState.WAITING:  # anybody may queue
            return True
        if trial.state == TrialState.FAIL and not trial.params and record.study is None:
            return True  # a person failed it before it began
        return (
            self._is_of_study(trial, record)
            and self._is_in_space(trial)
            and self._can_be_trained(trial, record)
        )

    def _is_of_study(self, trial: FrozenTrial, record: TrialRecord) -> bool:
        if self.marked_from is None or trial.number < self.marked_from:
            return record.study in (None, self.identity)
        has_number = record.number is not None or trial.state not in _DRAWN
        return record.study is not None and record.study == self.identity and has_number

    def _is_in_space(self, trial: FrozenTrial) -> bool:
        own, params = self.space.distributions, trial.params
        # What ended before its time may lack some.
        if self.space.foreign_names(params) or (trial.state in _DRAWN and own.keys() - params):
            return False
        return all(
            is_alike(own[name], trial.distributions[name]) and is_inside(own[name], value)
            for name, value in params.items()
            if name in own
        )

    def _can_be_trained(self, trial: FrozenTrial, record: TrialRecord) -> bool:
        n_epochs, count = len(record.epochs), record.parameter_count
        if n_epochs == 0:  # it did not train: it may be one over the cap, made by hand
            return True
        n_whole = self.settings.epochs
        is_over = n_epochs == n_whole if trial.state == TrialState.COMPLETE else n_epochs <= n_whole
        if not is_over or count is None or count >= self.settings.budget:
            return False
        return self.space.could_be(trial.params, count)


@functools.lru_cache(maxsize=64)
def _same(rules: StudyRules) -> StudyRules:
    """Of equal rules the first, whose space is made already."""
    return rules


def rules_of(study: Study) -> StudyRules | None:
    """The rules of a study; None of one without settings that this version can read."""
    try:
        settings = StudySettings.from_study(study)
        identity, first = identity_of(study), marked_from(study)
        rules = _same(StudyRules(settings.digest, identity, first, settings))
        _ = rules.space
    except (StudyError, SpaceError):
        return None
    return rules


def trials_of(study: Study, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
    """The trials of a study, by number, those that its searches cannot have written made foreign.

    Not copies: they are to be left as they are.

    Args:
        states: only of these; None for all.
    """
    trials = study.get_trials(deepcopy=False, states=states)
    judge_all(trials, rules_of(study))
    return trials


def judge_all(trials: Sequence[FrozenTrial], rules: StudyRules | None) -> None:
    """Makes foreign what a study's searches cannot have written of its trials."""
    if rules is not None:
        for trial in trials:
            judge(trial, rules)


def standing_of(study: Study) -> str:
    """What is another text as soon as anything in a study has changed."""
    trials = study.get_trials(deepcopy=False)
    told = repr((study._study_id, study.user_attrs, study.metric_names, trials))
    return hashlib.sha256(told.encode(errors="replace")).hexdigest()
