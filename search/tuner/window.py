"""What samplers and pruners go by: the trials that a search has written, of a long study not all.

Whatever another program has written is kept from them: its values may be any, and its
hyperparameters others. Each finished trial is looked at once.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from search.study.record import TrialRecord
from search.study.subset import StudyView
from search.study.summary import is_trained

N_BEST, N_LATEST = 50, 450


class History:
    """All trained trials of a study; those that failed teach nothing."""

    def __init__(self) -> None:
        self._trained: list[FrozenTrial] = []

    def add(self, trials: Iterable[FrozenTrial]) -> None:
        """Takes note of trials that have finished."""
        self._trained += filter(is_trained, trials)

    def view(self, study: Study, open_trials: Iterable[FrozenTrial]) -> Study:
        """The study as it looks with only these trials and those that searches run."""
        if type(study) is not Study:  # Hyperband's: one bracket's trials, of which it is the judge
            bracket = study.get_trials(deepcopy=False)
            shown = [t for t in bracket if is_trained(t) or _is_run_by_a_search(t)]
            return StudyView(study._study, shown)  # type: ignore[attr-defined]
        running = filter(_is_run_by_a_search, open_trials)
        kept = {trial.number: trial for trial in (*self._kept(), *running)}
        return StudyView(study, [kept[number] for number in sorted(kept)])

    def _kept(self) -> Iterable[FrozenTrial]:
        return self._trained


class HistoryWindow(History):
    """The best and the latest finished trials of a study that maximises one value, 500 at most.

    The tree-structured Parzen estimator (TPE, Bergstra et al. 2011) models good trials and all
    others, and what one draw costs grows with their number. Of the good ones Optuna takes 25 at
    most, and to the others it gives the less weight the older they are. So the best and the latest
    are nearly all that it goes by (`docs/scaling.md`).
    """

    def __init__(self) -> None:
        super().__init__()
        self._best: list[FrozenTrial] = []
        self._latest: deque[FrozenTrial] = deque(maxlen=N_LATEST)

    def add(self, trials: Iterable[FrozenTrial]) -> None:
        learnt = list(filter(is_trained, trials))
        if learnt:
            self._latest.extend(learnt)
            self._best = sorted([*self._best, *learnt], key=_rank)[:N_BEST]

    def _kept(self) -> Iterable[FrozenTrial]:
        return (*self._best, *self._latest)


def _is_run_by_a_search(trial: FrozenTrial) -> bool:
    return TrialRecord.read(trial).owner is not None


def _rank(trial: FrozenTrial) -> tuple[float, ...]:
    """The lower, the better to TPE: complete trials by value, then pruned by how far they came."""
    if trial.state == TrialState.COMPLETE:
        return 0.0, -(trial.value or 0.0)
    if not trial.intermediate_values:
        return 2.0, 0.0
    step, value = max(trial.intermediate_values.items())
    return 1.0, -step, math.inf if math.isnan(value) else -value
