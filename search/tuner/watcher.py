"""Who watches a search: the terminal, a Python program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from search.storage.retry import Waiting

if TYPE_CHECKING:  # they import torch
    from search.results.confirm import ConfirmationRun, RepeatEnded
    from search.results.confirmation import Confirmation
    from search.results.target import Step
    from search.tuner.events import Outcome, SearchEvent
    from search.tuner.plan import SearchPlan
    from search.tuner.session import Search

Listener = Callable[["SearchEvent"], None]
ShouldStop = Callable[[], bool]


def _ignore(event: object) -> None:
    """What nobody listens to."""


class SearchWatcher:
    """Is told what happens in a search, in this order; by itself it does nothing.

    Under a target all but `until_stopped`, which happens once, happens for each cap, and
    `target_ends` at last. A search that is interrupted while its trials train is not judged.
    """

    def loading(self) -> AbstractContextManager[object]:
        """While the data are loaded. Nothing is written yet."""
        return nullcontext()

    def until_stopped(self) -> AbstractContextManager[ShouldStop]:
        """While the search runs: gives what says whether it is to stop."""
        return nullcontext(lambda: False)

    def waiting(self, should_stop: ShouldStop) -> Waiting | None:
        """How to wait for a database server that goes away; None does not wait."""
        return None

    def begins(self, search: Search) -> None:
        """The study is open."""

    def listening(self, search: Search) -> AbstractContextManager[Listener]:
        """While trials are trained: gives what is told of each event."""
        return nullcontext(_ignore)

    def ends(self, search: Search, outcome: Outcome) -> None:
        """No more trials are trained."""

    def race_begins(self, run: ConfirmationRun) -> None:
        """The best trials race over fresh seeds."""

    def racing(self, search: Search, run: ConfirmationRun) -> AbstractContextManager[object]:
        """While runs of a race are trained."""
        return nullcontext()

    def race_goes_on(self, event: RepeatEnded) -> None:
        """A run of the race has ended."""

    def race_ends(
        self, search: Search, confirmation: Confirmation | None, *, is_stopped: bool
    ) -> None:
        """The race is over, or stopped; `confirmation` is None where no run came to an end."""

    def race_is_elsewhere(self) -> None:
        """Another search of the study runs the race."""

    def judged(self, search: Search, outcome: Outcome, *, is_stopped: bool) -> None:
        """Search and race are over; `outcome` is the search's."""

    def target_ends(self, plan: SearchPlan, steps: Sequence[Step], *, is_timed_out: bool) -> None:
        """The search for a target is over.

        Args:
            plan: of the last cap.
            steps: what the race under each cap said.
            is_timed_out: whether the time ended it, before a cap was too low.
        """
