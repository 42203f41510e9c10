"""Which hyperparameters set a study's best trials apart, and how much of that chance makes, too.

Of Optuna's evaluators, PED-ANOVA (Watanabe, Bansal and Hutter, IJCAI 2023) suits a search with
early stopping: it asks by what the best trials differ from all of them, so that one that was
stopped counts as not being among the best. The others model final accuracies, which it lacks.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial

from search.study.record import TrialRecord
from search.study.summary import accuracy_of, is_trained

BEST_SHARE = 0.25  # of the trained trials: "the best"
LEAST_TRIALS = 20  # that make five best ones, fewer than which Optuna advises against
MOST_TRIALS = 500  # that are asked; each of a hundred shuffles costs what their number does
_N_SHUFFLES = 100
_CHANCE = 0.95  # of the shuffles are below what is taken for chance


@dataclass(frozen=True, slots=True)
class Influence:
    """How much one hyperparameter sets the best trials apart.

    Args:
        importance: by PED-ANOVA; without a unit, 0 where the best trials are spread as all are.
        chance: what 95 % of shuffled studies stay below: the same trials, and others taken for
            the best.
        positions: where each trial's value lies in the searched range, from 0 (its low end) to 1,
            on its own scale.
        is_best: of each trial, whether it is among the best.
        low, high: the ends of the range; the first and last choice.
    """

    name: str
    importance: float
    chance: float
    positions: tuple[float, ...]
    is_best: tuple[bool, ...]
    low: Any
    high: Any

    @property
    def relative_importance(self) -> float:
        """The importance in units of what chance makes; above 1 it is more."""
        return self.importance / self.chance if self.chance else 0.0

    @property
    def is_beyond_chance(self) -> bool:
        return self.relative_importance > 1


def influences(trials: Iterable[FrozenTrial]) -> list[Influence]:
    """What each searched hyperparameter does, the least like chance first; none of too few trials.

    Of many trials, `MOST_TRIALS` at most are asked, evenly from the first to the last. Shuffled
    with a fixed seed: the same trials give the same answer.
    """
    trained = [trial for trial in trials if is_trained(trial)]
    trained = trained[:: math.ceil(len(trained) / MOST_TRIALS) or 1]
    searched = _searched(trained)
    if len(trained) < LEAST_TRIALS or not searched:
        return []
    scores = np.array([_score(trial) for trial in trained])
    evaluate = _evaluator(trained, list(searched))
    found = evaluate(scores)
    random = np.random.default_rng(0)
    shuffled = [evaluate(random.permutation(scores)) for _ in range(_N_SHUFFLES)]
    n_best = round(BEST_SHARE * len(trained))
    is_best = tuple((scores >= np.sort(scores)[-n_best]).tolist())
    rows = [
        Influence(
            name=name,
            importance=found[name],
            chance=float(np.quantile([each[name] for each in shuffled], _CHANCE)),
            positions=tuple(_position(distribution, trial.params[name]) for trial in trained),
            is_best=is_best,
            low=_ends(distribution)[0],
            high=_ends(distribution)[1],
        )
        for name, distribution in searched.items()
    ]
    return sorted(rows, key=lambda row: -row.relative_importance)


def _score(trial: FrozenTrial) -> float:
    """What ranks a trial: its value; of one that was stopped its last accuracy, below them all."""
    value = accuracy_of(trial)
    return TrialRecord.read(trial).epochs[-1].accuracy - 1 if value is None else value


def _searched(trials: Sequence[FrozenTrial]) -> dict[str, BaseDistribution]:
    """What all trials have drawn from one distribution with more than one value."""
    if not trials:
        return {}
    return {
        name: distribution
        for name, distribution in trials[0].distributions.items()
        if not distribution.single()
        and all(trial.distributions.get(name) == distribution for trial in trials)
    }


def _evaluator(
    trials: Sequence[FrozenTrial], names: list[str]
) -> Callable[[np.ndarray[Any, Any]], dict[str, float]]:
    """PED-ANOVA as a function of one score a trial, the higher the better."""
    # Brings scikit-learn, two fifths of what a report imports; of few trials none is needed.
    from optuna.importance import PedAnovaImportanceEvaluator

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.add_trials(
        [
            optuna.create_trial(value=0.0, params=trial.params, distributions=trial.distributions)
            for trial in trials
        ]
    )
    evaluator = PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE)

    def evaluate(scores: np.ndarray[Any, Any]) -> dict[str, float]:
        with warnings.catch_warnings():  # that low targets are taken for good, as is meant here
            warnings.simplefilter("ignore")
            return evaluator.evaluate(study, names, target=lambda trial: -scores[trial.number])

    return evaluate


def _position(distribution: BaseDistribution, value: Any) -> float:
    match distribution:
        case CategoricalDistribution(choices=choices):
            return choices.index(value) / (len(choices) - 1)
        case FloatDistribution() | IntDistribution():
            scale = np.log if distribution.log else float
            low, high = scale(distribution.low), scale(distribution.high)
            return float((scale(value) - low) / (high - low))
    raise AssertionError(distribution)


def _ends(distribution: BaseDistribution) -> tuple[Any, Any]:
    match distribution:
        case CategoricalDistribution(choices=choices):
            return choices[0], choices[-1]
        case FloatDistribution() | IntDistribution():
            return distribution.low, distribution.high
    raise AssertionError(distribution)
