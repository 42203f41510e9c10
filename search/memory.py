"""What a sampler learns from in a long study: its best trials and its latest.

The tree-structured Parzen estimator (TPE, Bergstra et al. 2011) models good trials and all others,
and what one draw costs grows with their number. Of the good ones Optuna takes 25 at most, and to
the others it gives the less weight the older they are. So the best and the latest are nearly all
that it goes by; what is lost without the rest, measured, stands in `docs/scaling.md`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Container, Iterable, Sequence

import numpy as np
from optuna.study import Study, StudyDirection
from optuna.study._multi_objective import _fast_non_domination_rank
from optuna.trial import FrozenTrial, TrialState

N_BEST, N_LATEST = 50, 450


class Memory:
    """The best and the latest finished trials of a study, at most 500."""

    def __init__(self) -> None:
        self._best: list[FrozenTrial] = []
        self._latest: deque[FrozenTrial] = deque(maxlen=N_LATEST)

    def add(self, trials: Iterable[FrozenTrial], directions: Sequence[StudyDirection]) -> None:
        """Takes note of trials that have finished; those that failed teach nothing."""
        learnt = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
        if learnt:
            self._latest.extend(learnt)
            self._best = _best([*self._best, *learnt], directions)

    def view(self, study: Study, open_trials: Sequence[FrozenTrial]) -> Study:
        """The study as it looks with only these trials and those that are open."""
        if type(study) is not Study:  # Hyperband's: one bracket's trials, of which it is the judge
            return study
        kept = {trial.number: trial for trial in (*self._best, *self._latest, *open_trials)}
        return _View(study, [kept[number] for number in sorted(kept)])


class _View(Study):
    """A study with some of its trials, to read them."""

    def __init__(self, study: Study, trials: list[FrozenTrial]) -> None:
        self.__dict__.update(study.__dict__)
        self._trials = trials

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        return [trial for trial in self._trials if states is None or trial.state in states]


def _best(trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection]) -> list[FrozenTrial]:
    """The best of them, in the order in which TPE prefers them: complete ones first."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    pruned = [trial for trial in trials if trial.state == TrialState.PRUNED]
    sign = np.array([1 if way == StudyDirection.MINIMIZE else -1 for way in directions])
    if complete:
        losses = np.array([trial.values for trial in complete]) * sign
        ranks = _fast_non_domination_rank(losses, n_below=min(N_BEST, len(complete)))
        complete = [complete[place] for place in np.argsort(ranks, kind="stable")]

    def progress(trial: FrozenTrial) -> tuple[int, float]:
        """The further, then the better where it was stopped, the lower."""
        if not trial.intermediate_values:
            return 1, 0.0
        step, value = max(trial.intermediate_values.items())
        return -step, math.inf if math.isnan(value) else sign[0] * value

    return [*complete, *sorted(pruned, key=progress)][:N_BEST]
