"""Policies, and a search by one of them in simulated time.

A policy is written SPACE/SAMPLER/PRUNER, or with `/first` or `/baselines` behind it:

- SPACE: `standard` as it is shipped, where widths are proportions, scaled to the cap; `even`, the
  same with widths that differ less; `broad` with the ranges that the recorded points are drawn
  from; `wide`. Behind them `-drawn`: widths are drawn as they are, and again where over the cap.
  `SPACE+NAME=VALUE` is that space with one hyperparameter fixed, a text by its name
  or by its number among the choices, from 1: `wide+schedule=cosine+topology=2`
- SAMPLER: `random`, `qmc`, `gp`, `cmaes`, `tpe`, or `tpe-N` with N random trials first
- PRUNER: `none`, `median-W`, `percentile-P-W`, `halving-R-F`, `hyperband-R-F`: none before epoch
  W or R; the best P percent, or one in F, go on; `patient-N-PRUNER`: only without progress for N
- `first`: the first trial has the values with which the space begins, as in `search run`;
  `baselines`: hand-tuned recipes are the first trials

`reference` is Optuna as its users write it: `broad-drawn` with its own TPE and median pruner, where
a network over the cap is raised as pruned inside the objective. That costs no training, is no
trained trial, and teaches the sampler. `reference-standard` is the same on `standard-drawn`.
"""

from __future__ import annotations

import functools
import heapq
import tomllib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import Trial, TrialState

from scripts.experiments.record_curves import BROAD, CAP, EPOCHS
from scripts.experiments.surrogate import N_LAST, Answer, Surrogate
from search.space.space import Space
from search.space.toml import STANDARD, WIDE
from search.study.record import TrialRecord
from search.training.epochs import EpochResult
from search.tuner.sampler import SAMPLERS, CappedSampler

Floats = NDArray[np.float64]

REFERENCE = "reference"
_REFERENCES = {REFERENCE: "broad-drawn", "reference-standard": "standard-drawn"}
N_TRIALS, N_WORKERS = 50, 2

# The hand-tuned networks for this cap, and their training as far as the spaces have it.
_BASELINE_WIDTHS = ((8, 10, 12, 16, 16), (8, 10, 14, 18, 18))
_BASELINE_TRAINING: dict[str, Any] = {
    "topology": "c3, c3, drop, pool, c3, drop, pool, c3, c3, out+bias, gap",
    "learning_rate": 0.05,
    "momentum": 0.9,
    "weight_decay": 5e-5,
    "dropout": 0.0,
    "rotation_degrees": 7.0,
    "translation": 0.1,
    "scale": 0.0,
    "shear_degrees": 0.0,
    "optimizer": "nesterov",
    "schedule": "one-cycle",
    "batch_size": 128,
}

_EVEN_WIDTHS = {
    "width_1": {"low": 8, "high": 16},
    **{f"width_{i}": {"low": 8, "high": 24} for i in range(2, 6)},
}
_SPACES: dict[str, tuple[str, dict[str, Any]]] = {
    "standard": (STANDARD, {}),
    "standard-drawn": (STANDARD, {"budget_share": 0.0}),
    "even": (STANDARD, _EVEN_WIDTHS),
    "broad": (STANDARD, BROAD),
    "broad-drawn": (STANDARD, {**BROAD, "budget_share": 0.0}),
    "wide": (WIDE, {}),
    "wide-drawn": (WIDE, {"budget_share": 0.0}),
}

# --- Policies ---


@dataclass(frozen=True)
class Policy:
    """How a search is run.

    Args:
        raises: whether a network over the cap becomes a trial, pruned before it trains.
        first: values of the trials that are queued before the search.
    """

    name: str
    space: Space
    sampler: Callable[[int], BaseSampler]
    pruner: Callable[[], BasePruner]
    raises: bool = False
    first: tuple[dict[str, Any], ...] = ()


def make_policy(name: str) -> Policy:
    """The policy of that name, see the head of this file.

    Raises:
        ValueError, KeyError: if there is none.
    """
    if name in _REFERENCES:
        space = _space(_REFERENCES[name])
        return Policy(name, space, _user_sampler, optuna.pruners.MedianPruner, raises=True)
    shape, sampler_name, pruner_name, *rest = name.split("/")
    if rest not in ([], ["first"], ["baselines"]):
        raise ValueError(f"A policy ends with its pruner, first or baselines, but got {name!r}.")
    space = _space(shape)
    sampler = functools.partial(_capped_sampler, sampler_name, space)
    pruner = functools.partial(make_pruner, pruner_name)
    sampler(0), pruner()  # so that a wrong name is refused before anything runs
    first = {"first": (space.first(),), "baselines": _baselines(space)}
    return Policy(name, space, sampler, pruner, first=first[rest[0]] if rest else ())


def _user_sampler(seed: int) -> BaseSampler:
    return TPESampler(seed=seed)


def _space(name: str) -> Space:
    shape, *fixed = name.split("+")
    text, changes = _SPACES[shape]
    table = {**tomllib.loads(text), **changes}
    for part in fixed:
        key, _, value = part.partition("=")
        table[key] = _fixed(table[key], value)
    return Space(name, table, parameter_cap=CAP)


def _fixed(entry: Any, text: str) -> str | float:
    if isinstance(entry, list) and isinstance(entry[0], str):
        names = dict(zip(map(str, range(1, len(entry) + 1)), entry, strict=True))
        return str(names[text] if text.isdigit() else text)
    return int(text) if text.isdigit() else float(text)


def _capped_sampler(name: str, space: Space, seed: int) -> BaseSampler:
    family, _, n_startup_trials = name.partition("-")
    if n_startup_trials and family != "tpe":
        raise ValueError(f"Only tpe takes a number of random trials, but got {name!r}.")
    kind = SAMPLERS[family]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = kind.make(seed)
    if n_startup_trials:
        sampler = TPESampler(seed=seed, n_startup_trials=int(n_startup_trials))
    return CappedSampler(sampler, space, max_redraws=kind.max_redraws, seed=seed)


def make_pruner(name: str) -> BasePruner:
    """The pruner of that name, see the head of this file.

    Raises:
        ValueError: if there is none.
    """
    kind, *rest = name.split("-")
    pruners = optuna.pruners
    match kind, rest:
        case "none", []:
            return pruners.NopPruner()
        case "median", (first,):
            return pruners.MedianPruner(n_warmup_steps=int(first))
        case "percentile", (percent, first):
            return pruners.PercentilePruner(float(percent), n_warmup_steps=int(first))
        case "halving", (first, factor):
            return pruners.SuccessiveHalvingPruner(
                min_resource=int(first), reduction_factor=int(factor)
            )
        case "hyperband", (first, factor):
            return pruners.HyperbandPruner(
                min_resource=int(first), max_resource=EPOCHS, reduction_factor=int(factor)
            )
        case "patient", (patience, *inner):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                return pruners.PatientPruner(make_pruner("-".join(inner)), patience=int(patience))
    raise ValueError(f"There is no pruner {name!r}.")


def _baselines(space: Space) -> tuple[dict[str, Any], ...]:
    """What is left open is for the sampler to draw."""
    recipes = []
    for widths in _BASELINE_WIDTHS:
        named = {f"width_{i}": width for i, width in enumerate(widths, start=1)}
        values = {**_BASELINE_TRAINING, **named}
        recipes.append(
            {name: value for name, value in values.items() if name in space.distributions}
        )
    return tuple(recipes)


# --- One search ---


@dataclass(frozen=True)
class Record:
    """One trained trial.

    Args:
        value: the mean accuracy of its last three epochs, as the search sees it; None if pruned.
        true_value: the same without noise, had it trained to its end.
        spent: training seconds of the whole search when the trial ended.
    """

    parameter_count: int
    n_epochs: int
    epoch_seconds: float
    value: float | None
    true_value: float
    spent: float


@dataclass
class Replay:
    """One search: its trained trials in the order in which they ended.

    Args:
        spent: training seconds, those of both workers added up.
        n_over: trials over the cap that the policy raised as pruned.
    """

    records: list[Record] = field(default_factory=list)
    spent: float = 0.0
    n_over: int = 0

    def named_best(self) -> tuple[Floats, Floats]:
        """Seconds spent, and the true value of the trial with the best value so far.

        One entry for each complete trial.
        """
        spent, named, best = [], [], (-np.inf, 0.0)
        for record in self.records:
            if record.value is not None:
                best = max(best, (record.value, record.true_value), key=lambda pair: pair[0])
                spent.append(record.spent)
                named.append(best[1])
        return np.array(spent), np.array(named)


@dataclass(slots=True)
class _Running:
    trial: Trial
    answer: Answer
    parameter_count: int
    n_epochs: int = 0


class Search:
    """A search by a policy, epoch by epoch.

    Each worker trains a trial; the one whose epoch ends first reports first, and a worker whose
    trial is over asks for the next. It ends as `replay` says.
    """

    def __init__(
        self, policy: Policy, surrogate: Surrogate, seed: int, n_trials: int, seconds: float
    ) -> None:
        self._policy = policy
        self._surrogate = surrogate
        self._seed = seed
        self._n_trials = n_trials
        self._seconds = seconds
        # Hyperband makes its brackets by the study's name.
        self._study = optuna.create_study(
            study_name=f"{policy.name} {seed}",
            direction="maximize",
            sampler=policy.sampler(seed),
            pruner=policy.pruner(),
        )
        for values in policy.first:
            self._study.enqueue_trial(values)
        self._running: list[tuple[float, int, _Running]] = []  # by when the next epoch ends
        self._replay = Replay()

    def run(self) -> Replay:
        now = 0.0
        while True:
            self._start_trials(now)
            if not self._running:
                return self._replay
            now, _, running = heapq.heappop(self._running)
            self._end_epoch(now, running)

    def _start_trials(self, now: float) -> None:
        while len(self._running) < N_WORKERS and self._goes_on():
            trial = self._study.ask()
            recipe = self._policy.space.suggest(trial)
            count = recipe.spec.parameter_count
            if count >= CAP and self._policy.raises:
                self._study.tell(trial, state=TrialState.PRUNED)
                self._replay.n_over += 1
                continue
            answer = self._surrogate.answer(recipe, self._seed)
            self._wait(now, _Running(trial, answer, count))

    def _goes_on(self) -> bool:
        n_started = len(self._replay.records) + len(self._running)
        return n_started < self._n_trials or self._replay.spent < self._seconds

    def _wait(self, now: float, running: _Running) -> None:
        entry = (now + running.answer.epoch_seconds, running.trial.number, running)
        heapq.heappush(self._running, entry)

    def _end_epoch(self, now: float, running: _Running) -> None:
        trial, answer = running.trial, running.answer
        accuracy = answer.accuracies[running.n_epochs]
        running.n_epochs += 1
        self._replay.spent += answer.epoch_seconds
        trial.report(accuracy, step=running.n_epochs)
        if running.n_epochs == EPOCHS:
            self._end_trial(running, float(np.mean(answer.accuracies[-N_LAST:])))
        elif trial.should_prune():
            self._end_trial(running, None)
        else:
            self._wait(now, running)

    def _end_trial(self, running: _Running, value: float | None) -> None:
        trial, answer = running.trial, running.answer
        epochs = [
            EpochResult(epoch, 0.1, accuracy, 0.01, 0.1, accuracy, answer.epoch_seconds)
            for epoch, accuracy in enumerate(answer.accuracies[: running.n_epochs], start=1)
        ]
        # By this the sampler knows it as one of its own, and learns of it.
        record = TrialRecord(epochs=epochs, parameter_count=running.parameter_count)
        record.write(self._study, trial._trial_id)
        state = TrialState.PRUNED if value is None else TrialState.COMPLETE
        self._study.tell(trial, value, state=state)
        self._replay.records.append(
            Record(
                running.parameter_count,
                running.n_epochs,
                answer.epoch_seconds,
                value,
                answer.true_value,
                self._replay.spent,
            )
        )


def replay(
    policy: Policy,
    surrogate: Surrogate,
    seed: int,
    *,
    n_trials: int = N_TRIALS,
    seconds: float = 0.0,
) -> Replay:
    """One search, of so many trained trials and at least so many training seconds.

    The same seed gives the same search.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return Search(policy, surrogate, seed, n_trials, seconds).run()
