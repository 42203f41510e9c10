"""Studies as `search run` leaves them, made at once: their trials are written, not trained."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from search.results.confirmation import Confirmation
from search.results.folds import Folds
from search.results.race import SeedRace
from search.space.space import Space
from search.storage.open import opened_storage
from search.study.history import RunRecord, record_run
from search.study.open import create_or_open_study
from search.study.record import TrialRecord, is_foreign
from search.study.settings import StudySettings, identity_of
from search.study.trials import trials_of
from search.training.epochs import EpochResult, last_epochs_mean
from search.training.metrics import Metric


def record(accuracy: float, *, count: int = 1000, **others: Any) -> dict[str, Any]:
    """The attributes of a trial that a search has trained for one epoch, to that accuracy."""
    epochs = [EpochResult(1, 0.1, accuracy, 0.05, 0.1, accuracy, 2.0)]
    return {**TrialRecord(parameter_count=count, epochs=epochs).to_attributes(), **others}


@dataclass(frozen=True)
class MadeTrial:
    """A trial to be written; each of its epochs took two seconds.

    Args:
        accuracies: one an epoch.
        values: hyperparameters, where they are not those with which the space begins.
        loss: of the last epoch.
    """

    accuracies: Sequence[float] = ()
    state: TrialState = TrialState.COMPLETE
    values: dict[str, Any] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    loss: float = 0.1

    def frozen(self, space: Space, budget: int, n_objectives: int) -> FrozenTrial:
        params = {**space.first(), **self.values}
        count = space.hyperparameters(params).spec.parameter_count
        results = [
            EpochResult(epoch, 0.1, accuracy, 0.05, 0.1, accuracy, 2.0)
            for epoch, accuracy in enumerate(self.accuracies, start=1)
        ]
        epochs = [result.to_dict() for result in results]
        if epochs and self.loss != self.loss:
            epochs[-1]["loss"] = None
        attributes: dict[str, Any] = {"parameter_count": count, "training_seed": 7}
        if epochs:
            attributes |= {"epochs": epochs, "seconds": 2.0 * len(epochs)}
        is_complete = self.state == TrialState.COMPLETE
        values = [last_epochs_mean(results), count][:n_objectives] if is_complete else None
        return optuna.create_trial(
            state=self.state,
            values=values,
            params=params,
            distributions=space.distributions,
            user_attrs={**attributes, **self.attributes},
        )


def make_study(
    url: str,
    name: str,
    trials: Sequence[MadeTrial],
    *,
    budget: int = 3000,
    epochs: int = 3,
    dataset: str = "digits",
    objective: str = "accuracy",
    metric: Metric = "accuracy",
    space: Space | None = None,
    attributes: dict[str, Any] | None = None,
) -> Study:
    """Writes a study with those trials into the database at `url`, made where it is missing."""
    space = space or Space.load("standard", parameter_cap=budget)
    if objective != "accuracy":
        space = space.with_open_size()
    settings = StudySettings(
        budget=budget,
        epochs=epochs,
        dataset=dataset,
        data_fingerprint=f"images of {dataset}",
        split_fingerprint="a split",
        input_shape=(1, 28, 28),
        n_classes=10,
        space_name=space.name,
        space=dict(space.table),
        objective=objective,
        metric=metric,
    )
    n_objectives = len(settings.directions)
    with opened_storage(url, create=True) as storage:
        study = create_or_open_study(storage, name, settings)
        add_as_ours(study, [trial.frozen(space, budget, n_objectives) for trial in trials])
        assert not any(map(is_foreign, trials_of(study)))
        record_run(study, run_record(len(trials)))
        for key, value in (attributes or {}).items():
            study.set_user_attr(key, value)
    return study


def run_record(n_trials: int, patience: int | None = None) -> RunRecord:
    """A run of a search that was to be as long as that."""
    return RunRecord.now(
        sampler="random",
        pruner="none",
        seed=3,
        device="cpu",
        n_workers=2,
        n_trials=n_trials,
        patience=patience,
        target=None,
    )


def add_as_ours(study: Study, trials: Sequence[FrozenTrial]) -> None:
    """Adds trials as if searches of the study had written them next."""
    first = len(study.get_trials(deepcopy=False))
    for number, trial in enumerate(trials, first):
        mark = TrialRecord(study=identity_of(study), number=number)
        added = copy.copy(trial)
        added.user_attrs = {**trial.user_attrs, **mark.to_attributes()}
        study.add_trial(added)


def confirmation(
    search_best: int,
    values: Mapping[int, Sequence[float]],
    *,
    n_parts: int = 4,
    n_images: int | None = 359,
) -> dict[str, object]:
    """What a race over those fresh values stores, where the search had `search_best` on top.

    Each value is of another seed, and another of `n_parts` parts of the data.
    """
    race = SeedRace(list(values), (), n_images)
    for candidate, found in values.items():
        for run, value in zip(Folds(n_parts, 0).runs(len(found), first_seed=1), found, strict=True):
            race.add(candidate, run, value)
    searched = dict.fromkeys(values, 0.9) | {search_best: 0.95}
    return Confirmation(
        tuple(race.standings()),
        searched,
        search_best,
        len(values),
        race.luck_of_winning(),
        n_images,
    ).to_attribute()
