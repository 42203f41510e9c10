"""What is said of a search as it begins, goes on and ends: the same in a terminal and in Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna.trial import TrialState

from search.study.history import StudyLength
from search.tuner.events import Outcome, TrialEnded
from search.wording import counted, percent

if TYPE_CHECKING:  # it imports torch
    from search.tuner.session import Search


def describe_start(search: Search) -> str:
    """Whether its study is new, and what an earlier search left."""
    n_before = search.before.n_trained
    known = f"goes on with {counted(n_before, 'trained trial')}" if n_before else "new"
    if search.n_requeued:
        known += f"; {search.n_requeued} that a search left unfinished are queued again"
    return known


def describe_end(event: TrialEnded) -> str:
    """A line on how a trial ended."""
    size = "" if event.parameter_count is None else f", {event.parameter_count:,} parameters"
    match event.state:
        case TrialState.COMPLETE:
            how = percent(event.value)
        case TrialState.PRUNED:
            how = f"pruned: {event.reason}"
        case TrialState.FAIL:
            how = f"failed: {event.reason}"
        case _:
            how = f"dropped: {event.reason}"
    if event.is_requeued:
        how += " (queued again)"
    where = "" if event.host is None else f" on {event.host}"
    return f"trial {event.number}{where}{size}: {how}"


def describe_length(length: StudyLength) -> str:
    """When a search is to end, as a line of its plan has it."""
    if length.patience is None:
        return f"{length.n_trials} trained in total"
    return (
        f"until {length.patience} in a row bring nothing better, at most {length.n_trials} trained "
        "in total"
    )


def describe_outcome(outcome: Outcome, n_trained: int, length: StudyLength) -> str:
    """Why a search ended, as a sentence.

    Args:
        n_trained: trained trials that the study has.
        length: when it was to end.
    """
    match outcome:
        case Outcome.INTERRUPTED:
            return "Interrupted."
        case Outcome.TIMED_OUT:
            return "The time is over."
        case Outcome.REACHED:
            return f"The study has its {counted(n_trained, 'trained trial')}."
        case Outcome.NO_BETTER:
            return f"No better trial in the last {length.patience}."
        case Outcome.EXHAUSTED:
            return "The space has no untried configuration left."
