"""What is new of a study's trials since they were last read, judged; each finished trial once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optuna.study import Study
from optuna.trial import FrozenTrial

from search.storage.cached import CachedStorage
from search.study.trials import StudyRules, judge_all, rules_of


@dataclass(frozen=True, slots=True)
class News:
    """What is new of a study's trials.

    Args:
        finished: trials that were not published before.
        open: all that wait or run, by number.
    """

    finished: Sequence[FrozenTrial]
    open: Sequence[FrozenTrial]


class TrialNews:
    """Publishes each finished trial of a study once, so that a refresh costs what is new."""

    def __init__(self) -> None:
        self._n_published = 0
        self._published: set[int] = set()  # where the storage does not keep them in order
        self._rules: StudyRules | None = None

    def take_new(self, study: Study) -> News:
        """Publishes what is new since the last call, which was for the same study."""
        if self._rules is None:
            # Hyperband's studies are of one bracket, and tell nothing else.
            self._rules = rules_of(getattr(study, "_study", study))
        news = self._read_new(study)
        judge_all(news.finished, self._rules)
        judge_all(news.open, self._rules)
        return news

    def _read_new(self, study: Study) -> News:
        storage, study_id = study._storage, study._study_id
        if isinstance(storage, CachedStorage):
            finished, open_trials = storage.finished_and_open(study_id)
            new, self._n_published = finished[self._n_published :], len(finished)
            return News(new, open_trials)
        trials = storage.get_all_trials(study_id, deepcopy=False)
        new = [t for t in trials if t.state.is_finished() and t.number not in self._published]
        self._published.update(trial.number for trial in new)
        return News(new, [trial for trial in trials if not trial.state.is_finished()])
