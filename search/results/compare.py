"""Studies side by side: what each asked, what it found, and what may be compared. Reads only."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial
from scipy.special import stdtrit

from search.exceptions import StudyError
from search.results.confirmed import confirmation_of
from search.results.folds import weights
from search.results.race import moved_confidence
from search.study.open import rebuild
from search.study.settings import StudySettings
from search.study.summary import (
    accuracy_of,
    chosen_trial,
    confirmed_number,
    is_trained,
    parameter_count_of,
    tally,
    training_seconds,
)
from search.study.trials import trials_of
from search.training.metrics import metric_words


@dataclass(frozen=True, slots=True)
class Confirmed:
    """What fresh seeds gave the winner of a study's race: accuracies as shares, one a run.

    Args:
        low, high: the 95 % interval of the mean, as the race tells it.
        luck_of_winning: what may be too much of the mean, for having won; None where nothing tells.
        n_raced: how many candidates were run.
        parts: of the data, which validated each run.
    """

    mean: float
    low: float | None
    high: float | None
    luck_of_winning: float | None
    n_raced: int
    values: tuple[float, ...]
    parts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One study of a comparison.

    Args:
        trials: how many are in which state, as `search.study.summary.Tally` names them.
        best_trial: the one that the study stands for; None where none is complete.
        best_value: what that trial reached in the search, as a share from 0 to 1.
        confirmed: None where it was not confirmed, or the search has found a better one since.
        seconds_until_best: what all trials that had ended by then had trained, the best included.
        seconds: what all trials have trained.
        recipe: of the best trial, as plain values by name; empty where it cannot be rebuilt.
    """

    name: str
    dataset: str
    data: str
    budget: int
    epochs: int
    space: str
    objective: str
    metric: str
    trials: dict[str, int]
    best_trial: int | None
    best_value: float | None
    parameter_count: int | None
    confirmed: Confirmed | None
    seconds_until_best: float | None
    seconds: float
    recipe: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """By how much a study's confirmed winner is better than another's.

    Args:
        mean: of its accuracies over fresh seeds, less that of the other; as shares.
        interval: of that, at 95 %.
    """

    study: str
    other: str
    mean: float
    interval: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Studies in the order in which they were named.

    Args:
        recipes: the hyperparameters in which the best trials differ, each with a value a study;
            None where a recipe does not have it.
        differences: between the study that is confirmed to be best and each other one that it may
            be compared with.
        notes: what cannot be compared, and why.
    """

    entries: list[Entry]
    recipes: dict[str, list[Any]]
    differences: list[Difference]
    notes: list[str]


def compare(studies: Sequence[Study]) -> Comparison:
    """Puts studies beside each other.

    Raises:
        StudyError: if one was made by something else than `search run`.
    """
    entries = [_entry(study) for study in studies]
    names = dict.fromkeys(name for entry in entries for name in entry.recipe)
    columns = [entry.recipe for entry in entries if entry.recipe]
    configurations = {
        name: [entry.recipe.get(name) for entry in entries]
        for name in names
        if any(hyperparameters.get(name) != columns[0].get(name) for hyperparameters in columns)
    }
    return Comparison(entries, configurations, _differences(entries), _notes(entries))


def difference_interval(
    ours: Confirmed, theirs: Confirmed, *, n_beaten: int
) -> tuple[float, float] | None:
    """The 95 % interval of the difference of two winners' means.

    Their values scatter differently (Welch, "The Generalization of 'Student's' Problem when Several
    Different Population Variances are Involved", 1947), and each mean is rather too high than too
    low, as the highest of several: of ours the lower bound allows for it, of theirs the upper one.
    None for fewer than two values of either, or without any scatter.

    Args:
        n_beaten: how many candidates ours is the highest of, itself included.
    """
    values = ours.values, theirs.values
    if min(map(len, values)) < 2:
        return None
    parts = [
        statistics.variance(each.values) * sum(weight**2 for weight in weights(each.parts))
        for each in (ours, theirs)
    ]
    if sum(parts) == 0:
        return None
    pairs = zip(parts, values, strict=True)
    freedom = sum(parts) ** 2 / sum(part**2 / (len(each) - 1) for part, each in pairs)
    error, mean = math.sqrt(sum(parts)), ours.mean - theirs.mean
    below, above = moved_confidence(n_beaten), moved_confidence(theirs.n_raced)
    return (
        mean - float(stdtrit(freedom, below)) * error,
        mean + float(stdtrit(freedom, above)) * error,
    )


def _entry(study: Study) -> Entry:
    settings = StudySettings.from_study(study)
    trials = trials_of(study)
    best = chosen_trial(study, trials)
    trained = [trial for trial in trials if is_trained(trial)]
    return Entry(
        name=study.study_name,
        dataset=settings.dataset,
        data=f"{settings.data_fingerprint}/{settings.split_fingerprint}",
        budget=settings.budget,
        epochs=settings.epochs,
        space=settings.space_name,
        objective=settings.objective,
        metric=metric_words(settings.metric),
        trials=asdict(tally(trials)),
        best_trial=None if best is None else best.number,
        best_value=None if best is None else accuracy_of(best),
        parameter_count=None if best is None else parameter_count_of(best),
        confirmed=_confirmed(study, trials),
        seconds_until_best=None if best is None else _seconds_until(best, trained),
        seconds=sum(map(training_seconds, trained)),
        recipe={} if best is None else _hyperparameters(study, best),
    )


def _confirmed(study: Study, trials: Sequence[FrozenTrial]) -> Confirmed | None:
    number, stored = confirmed_number(study, trials), confirmation_of(study)
    if number is None or stored is None:
        return None
    (winner,) = (row for row in stored["candidates"] if row["trial"] == number)
    values = tuple(winner["values"])
    return Confirmed(
        mean=stored["mean"],
        low=stored["low"],
        high=stored["high"],
        luck_of_winning=stored["luck_of_winning"],
        n_raced=sum(bool(row["values"]) for row in stored["candidates"]),
        values=values,
        parts=tuple(winner.get("parts", [0] * len(values))),
    )


def _seconds_until(best: FrozenTrial, trained: Sequence[FrozenTrial]) -> float:
    ended = best.datetime_complete
    return sum(
        training_seconds(trial)
        for trial in trained
        if ended and trial.datetime_complete and trial.datetime_complete <= ended
    )


def _hyperparameters(study: Study, trial: FrozenTrial) -> dict[str, Any]:
    """A recipe's values by name, without levels."""
    try:
        hyperparameters = rebuild(study, trial)
    except StudyError:
        return {}
    values, augmentation = hyperparameters.to_dict(), asdict(hyperparameters.augmentation)
    del values["augmentation"]  # which leaves out what is off
    network, schedule = values.pop("spec")["network"], values.pop("schedule")
    kind = schedule.pop("kind")
    return {"network": network, **values, "schedule": kind, **schedule, **augmentation}


def _is_comparable(one: Entry, other: Entry) -> bool:
    """Whether their accuracies are answers to one question."""
    return (one.data, one.epochs, one.metric) == (other.data, other.epochs, other.metric)


def _differences(entries: Sequence[Entry]) -> list[Difference]:
    confirmed = [entry for entry in entries if entry.confirmed is not None]
    found = []
    for entry in sorted(confirmed, key=lambda entry: -_mean(entry)):
        rivals = [other for other in confirmed if _is_comparable(entry, other)]
        first = max(rivals, key=_mean)
        if entry is first or entry.confirmed is None or first.confirmed is None:
            continue
        raced = [other.confirmed.n_raced for other in rivals if other.confirmed is not None]
        n_beaten = sum(raced) - entry.confirmed.n_raced
        interval = difference_interval(first.confirmed, entry.confirmed, n_beaten=n_beaten)
        if interval is not None:
            mean = first.confirmed.mean - entry.confirmed.mean
            found.append(Difference(first.name, entry.name, mean, interval))
    return found


def _mean(entry: Entry) -> float:
    return 0.0 if entry.confirmed is None else entry.confirmed.mean


def _notes(entries: Sequence[Entry]) -> list[str]:
    notes = []
    if len({entry.data for entry in entries}) > 1:
        of = _listed(entries, "dataset")
        same_name = len({entry.dataset for entry in entries}) < len({e.data for e in entries})
        why = "other images or another split, " if same_name else ""
        notes.append(f"Accuracies on different data cannot be compared: {why}{of}.")
    if len({entry.epochs for entry in entries}) > 1:
        notes.append(
            "Accuracies after different numbers of epochs are answers to different questions, and "
            f"cannot be compared: {_listed(entries, 'epochs')}."
        )
    if len({entry.metric for entry in entries}) > 1:
        notes.append(
            f"An accuracy and a balanced accuracy cannot be compared: {_listed(entries, 'metric')}."
        )
    if len({entry.budget for entry in entries}) > 1:
        notes.append(
            "Under a larger cap a network may be better for its size alone: "
            f"{_listed(entries, 'budget')}."
        )
    for entry in entries:
        if entry.best_trial is None:
            notes.append(f"{entry.name} has no complete trial yet.")
        elif entry.confirmed is None:
            notes.append(
                f"{entry.name} is not confirmed: a search's best value is the luckiest of many."
            )
    return notes


def _listed(entries: Sequence[Entry], name: str) -> str:
    values = [(entry.name, getattr(entry, name)) for entry in entries]
    return ", ".join(
        f"{study} {value:,}" if isinstance(value, int) else f"{study} {value}"
        for study, value in values
    )
