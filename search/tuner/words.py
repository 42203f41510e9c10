"""What is said of a search as it begins, goes on and ends: the same in a terminal and in Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna.trial import TrialState

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


def describe_outcome(outcome: Outcome, n_trained: int, patience: int | None) -> str:
    """Why a search ended, as a sentence.

    Args:
        n_trained: trained trials that the study has.
        patience: after how many without a better one it was to end.
    """
    match outcome:
        case Outcome.INTERRUPTED:
            return "Interrupted."
        case Outcome.TIMED_OUT:
            return "The time is over."
        case Outcome.REACHED:
            return f"The study has its {counted(n_trained, 'trained trial')}."
        case Outcome.NO_BETTER:
            return f"No better trial in the last {patience}."
        case Outcome.EXHAUSTED:
            return "The space has no untried configuration left."
