"""What a sampler learns from in a long study: its best trials and its latest.

The tree-structured Parzen estimator (TPE, Bergstra et al. 2011) models good trials and all others,
and what one draw costs grows with their number. Of the good ones Optuna takes 25 at most, and to
the others it gives the less weight the older they are. So the best and the latest are nearly all
that it goes by (`docs/scaling.md`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from search.study.subset import StudyView

N_BEST, N_LATEST = 50, 450


class HistoryWindow:
    """The best and the latest finished trials of a study that maximises one value, 500 at most."""

    def __init__(self) -> None:
        self._best: list[FrozenTrial] = []
        self._latest: deque[FrozenTrial] = deque(maxlen=N_LATEST)

    def add(self, trials: Iterable[FrozenTrial]) -> None:
        """Takes note of trials that have finished; those that failed teach nothing."""
        learnt = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
        if learnt:
            self._latest.extend(learnt)
            self._best = sorted([*self._best, *learnt], key=_rank)[:N_BEST]

    def view(self, study: Study, open_trials: Sequence[FrozenTrial]) -> Study:
        """The study as it looks with only these trials and those that are open."""
        if type(study) is not Study:  # Hyperband's: one bracket's trials, of which it is the judge
            return study
        kept = {trial.number: trial for trial in (*self._best, *self._latest, *open_trials)}
        return StudyView(study, [kept[number] for number in sorted(kept)])


def _rank(trial: FrozenTrial) -> tuple[float, ...]:
    """The lower, the better to TPE: complete trials by value, then pruned by how far they came."""
    if trial.state == TrialState.COMPLETE:
        return 0.0, -(trial.value or 0.0)
    if not trial.intermediate_values:
        return 2.0, 0.0
    step, value = max(trial.intermediate_values.items())
    return 1.0, -step, math.inf if math.isnan(value) else -value
