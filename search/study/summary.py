"""A study as plain values and tables: what is stored, read back. Pure; writes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from search.study.findings import Findings
from search.study.history import is_exhausted, last_used
from search.study.locks import is_searched, searching_process
from search.study.owners import is_owner_dead
from search.study.record import TrialRecord, is_foreign
from search.study.settings import stored_settings


def is_trained(trial: FrozenTrial) -> bool:
    """Whether a trial counts: it trained at least one epoch and ended COMPLETE or PRUNED."""
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED) and bool(
        TrialRecord.read(trial).epochs
    )


def is_diverged(trial: FrozenTrial) -> bool:
    """Whether a trained trial ended because its loss was not finite."""
    return not TrialRecord.read(trial).epochs[-1].is_finite


def is_all_diverged(trials: Iterable[FrozenTrial]) -> bool:
    """Whether a study's trials were trained, and each of them diverged."""
    trained = [trial for trial in trials if is_trained(trial)]
    return bool(trained) and all(map(is_diverged, trained))


_SMALLER_RATES = (
    "search smaller learning rates, as another study ('search run' with --space and --study), "
    "because the loss of each trial so far grew beyond all bounds"
)


def how_to_complete(study: Study, trials: Sequence[FrozenTrial]) -> str:
    """What helps a study none of whose trials is complete, as the end of a sentence."""
    if is_all_diverged(trials):
        return _SMALLER_RATES
    # This process is about to end with these words; `confirm` may hold the lock as it does.
    owner = searching_process(study, is_leaving=True)
    if owner is not None:  # another search of it is refused
        return f"wait for process {owner.pid} on {owner.host}, which is searching it"
    if is_exhausted(study) and not tally(trials).n_waiting:
        return (
            "search a larger space, as another study ('search run' with --space and --study), "
            "because this one has no untried configuration left"
        )
    return "go on with 'search run'"


def why_none_complete(trials: Sequence[FrozenTrial]) -> str:
    """Says that no trial is complete yet and, where more of the same would not be, what helps."""
    how = f"; {_SMALLER_RATES}" if is_all_diverged(trials) else ""
    return f"No trial is complete yet{how}."


def training_seconds(trial: FrozenTrial) -> float:
    """For how long a trial trained; of one that failed, nothing is known but its epochs."""
    record = TrialRecord.read(trial)
    if record.seconds is not None:
        return float(record.seconds)
    return float(sum(epoch.seconds for epoch in record.epochs))


@dataclass(frozen=True, slots=True)
class Tally:
    """How many trials of a study are in which state.

    `n_trained` counts what `is_trained` says, `n_pruned` the pruned ones among them.
    `n_interrupted` are failed trials that were put back in the queue through no fault of theirs,
    `n_foreign` what other programs have written, which counts as nothing else.
    """

    n_trained: int = 0
    n_pruned: int = 0
    n_failed: int = 0
    n_interrupted: int = 0
    n_running: int = 0
    n_waiting: int = 0
    n_redraws: int = 0
    n_foreign: int = 0


def tally(trials: Iterable[FrozenTrial]) -> Tally:
    """Counts the trials of a study."""
    counts: Counter[str] = Counter()
    for trial in trials:
        record = TrialRecord.read(trial)
        if is_foreign(trial, record):
            counts["n_foreign"] += 1
            continue
        counts["n_redraws"] += record.redraws or 0
        match trial.state:
            case TrialState.FAIL:
                counts["n_interrupted" if record.is_interrupted else "n_failed"] += 1
            case TrialState.RUNNING:
                counts["n_running"] += 1
            case TrialState.WAITING:
                counts["n_waiting"] += 1
            case _ if record.epochs:
                counts["n_trained"] += 1
                counts["n_pruned"] += trial.state == TrialState.PRUNED
    return Tally(**counts)


def accuracy_of(trial: FrozenTrial) -> float | None:
    """What a complete trial of a search reached, the first of its values; None for any other."""
    is_complete = trial.state == TrialState.COMPLETE and not is_foreign(trial)
    return trial.values[0] if is_complete else None


def parameter_count_of(trial: FrozenTrial) -> int | None:
    """How many trainable parameters a trial's network has; None where it came to none."""
    return TrialRecord.read(trial).parameter_count


def by_accuracy(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """The complete trials, the best first; of equals, the earlier."""
    # Numbers for keys, and no pairs: ten thousand of those are a collection of garbage.
    complete = sorted(_complete(trials), key=lambda trial: trial.number)
    return sorted(complete, key=_value, reverse=True)


def best_trial(trials: Iterable[FrozenTrial]) -> FrozenTrial | None:
    """The complete trial with the highest accuracy; None where there is none."""
    return max(sorted(_complete(trials), key=lambda trial: trial.number), key=_value, default=None)


def first_trial(trials: Iterable[FrozenTrial]) -> int:
    """The number of the trial with which a study began, or of its last repeat.

    Args:
        trials: all, in their order.
    """
    number = 0
    for trial in trials:
        if TrialRecord.read(trial).repeats == number:
            number = trial.number
    return number


def front(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """The Pareto front, smallest network first: no other is as accurate and no larger."""
    best: list[FrozenTrial] = []
    # Of equal sizes, the most accurate comes first. A complete trial of a search has a size.
    for trial in sorted(by_accuracy(trials), key=lambda trial: parameter_count_of(trial) or 0):
        if not best or _value(trial) > _value(best[-1]):
            best.append(trial)
    return best


def _complete(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if accuracy_of(trial) is not None]


def _value(trial: FrozenTrial) -> float:
    """Of a complete trial."""
    return float(trial.values[0])


# Attributes of the studies that keep a race's runs and an ablation's: whose they are.
CONFIRMS = "confirms"
ABLATES = "ablates"
_SUFFIXES = {CONFIRMS: "-confirmed", ABLATES: "-ablated"}


def repeats_name(study_name: str, purpose: str) -> str:
    """The name of the study that keeps the runs which confirm or ablate another."""
    return study_name + _SUFFIXES[purpose]


def confirmed_number(study: Study, trials: Sequence[FrozenTrial]) -> int | None:
    """The trial that won a study's race; None where there was none, or it is out of date.

    That is so once the search has found a better trial, which was not in the race.
    """
    confirmation = Findings.read(study).confirmation
    best = best_trial(trials)
    if confirmation is None or best is None:
        return None
    raced = {candidate["trial"] for candidate in confirmation["candidates"]}
    return confirmation["trial"] if best.number in raced else None


def chosen_trial(study: Study, trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """The trial that a study stands for: the winner of its race, else the highest value."""
    number = confirmed_number(study, trials)
    for trial in trials:
        if trial.number == number:
            return trial
    return best_trial(trials)


# What is printed of an epoch under longer names.
_EPOCH_KEYS = {"loss": "validation_loss", "accuracy": "validation_accuracy"}


@dataclass(frozen=True, slots=True)
class TrialSummary:
    """One trial, as `search best` and `search show` print it; keys as in the events of a search.

    Args:
        trial: its number.
        value: a share from 0 to 1, of a complete trial.
        is_foreign: whether another program has written it; then there is no more to tell.
    """

    trial: int
    state: str
    is_foreign: bool
    value: float | None
    parameter_count: int | None
    hyperparameters: dict[str, Any]
    training_seed: int | None
    seconds: float | None
    worker: str | None
    reason: str | None
    epochs: list[dict[str, Any]]


def summarize_trial(trial: FrozenTrial) -> TrialSummary:
    record = TrialRecord.read(trial)
    return TrialSummary(
        trial=trial.number,
        state=trial.state.name,
        is_foreign=is_foreign(trial),
        value=accuracy_of(trial),
        parameter_count=record.parameter_count,
        hyperparameters=trial.params,
        training_seed=record.training_seed,
        seconds=record.seconds,
        worker=record.worker,
        reason=record.reason,
        epochs=[
            {_EPOCH_KEYS.get(key, key): value for key, value in result.to_dict().items()}
            for result in record.epochs
        ],
    )


@dataclass(frozen=True, slots=True)
class StudySummary:
    """One study, as `search studies` prints it.

    The best trial is the confirmed winner, where there is one; `best_value` is what it reached in
    the search, `confirmed_mean` what it reaches over fresh seeds.

    Args:
        confirmed_luck: what may be too much of that, for having won; None where nothing tells.
        last_used: when it was last searched or chosen, in UTC, as ISO 8601 has it; empty if never.
        n_training: how many of its trials train now, as far as this machine can tell.
        is_searched: whether a process searches it or races its trials, also while none trains.
    """

    name: str
    dataset: str
    budget: int
    epochs: int
    space: str
    trials: dict[str, int]
    best_value: float | None
    best_trial: int | None
    best_parameter_count: int | None
    confirmed_mean: float | None
    confirmed_luck: float | None
    test_looks: int
    last_used: str
    n_training: int
    is_searched: bool


def summarize_study(
    study: Study, trials: Sequence[FrozenTrial], confirmation: Mapping[str, Any] | None
) -> StudySummary:
    """A study that a search made, with its trials, even one of a later version.

    Args:
        confirmation: what its race told, as `confirmation_of` has it.
    """
    settings, findings = stored_settings(study), Findings.read(study)
    assert settings is not None
    best = chosen_trial(study, trials)
    if confirmed_number(study, trials) is None:
        confirmation = None
    n_training = sum(
        trial.state == TrialState.RUNNING
        and TrialRecord.read(trial).owner is not None
        and not is_owner_dead(trial)
        for trial in trials
    )
    return StudySummary(
        name=study.study_name,
        dataset=settings["dataset"],
        budget=settings["budget"],
        epochs=settings["epochs"],
        space=settings["space_name"],
        trials=asdict(tally(trials)),
        best_value=accuracy_of(best) if best else None,
        best_trial=best.number if best else None,
        best_parameter_count=parameter_count_of(best) if best else None,
        confirmed_mean=None if confirmation is None else confirmation["mean"],
        confirmed_luck=None if confirmation is None else confirmation["luck_of_winning"],
        test_looks=findings.test_looks,
        last_used=last_used(study),
        n_training=n_training,
        is_searched=n_training > 0 or is_searched(study),
    )
