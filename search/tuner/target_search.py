"""From cap to cap in the search for the smallest network that reaches a target."""

from __future__ import annotations

import time
from dataclasses import replace

from search.data.dataset import Dataset
from search.data.names import ImageSize, folder_of
from search.exceptions import SpaceError
from search.results.confirm import ConfirmationRun
from search.results.target import Step, Verdict, judge
from search.space.file_space import FileSpace
from search.space.probe import probe
from search.tuner.events import Outcome
from search.tuner.options import SearchRequest
from search.tuner.plan import SearchPlan
from search.tuner.session import Search


class TargetSearch:
    """What the caps have shown so far.

    Attributes:
        steps: what the race under each cap said.
        is_timed_out: whether the time ended the search before a cap was too low.
    """

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.is_timed_out = False

    def next_request(
        self, search: Search, outcome: Outcome, race: ConfirmationRun | None
    ) -> SearchRequest | None:
        """Judges what a cap has shown; returns the search under the next lower one.

        None where the last race did not reach the target, the time is over, or no network of the
        space fits under a lower cap.
        """
        if race is None:
            self.is_timed_out = outcome is Outcome.TIMED_OUT or search.is_time_over()
            return None
        step = judge_target(search, race)
        if step is not None:
            self.steps.append(step)
        reached = step if step is not None and step.verdict is Verdict.REACHED else None
        # A search leaves time to its race, so its own outcome does not tell.
        is_cut = reached is not None or race.next() is not None
        self.is_timed_out = search.is_time_over() and is_cut
        return None if reached is None or self.is_timed_out else lower_request(search, reached)


def judge_target(search: Search, race: ConfirmationRun) -> Step | None:
    """What a finished race says of the target that was asked for."""
    request = search.plan.request
    assert request.target is not None
    return judge(
        race,
        cap=request.budget,
        target=request.target.accuracy,
        confidence=request.target.confidence,
    )


def lower_request(search: Search, step: Step) -> SearchRequest | None:
    """The search under the next lower cap; None where no network of the space fits under it."""
    request = search.plan.request
    space = replace(search.plan.space, parameter_cap=step.next_cap)
    try:
        if isinstance(space, FileSpace):
            probe(space)
        else:
            space.check_fits()
    except SpaceError:
        return None
    timeout = request.timeout_seconds
    if timeout is not None:
        timeout = max(1.0, timeout - (time.monotonic() - search.started))
    return replace(
        request,
        budget=step.next_cap,
        dataset=_same_dataset(search.plan),
        image_size=_same_size(search.plan),
        study=None if request.study is None else _lower_name(request, step.next_cap),
        from_study=search.plan.study_name,
        timeout_seconds=timeout,
    )


def _same_dataset(plan: SearchPlan) -> str | Dataset:
    """What `auto` came to, or what was asked for."""
    asked = plan.request.dataset
    return asked if isinstance(asked, Dataset) else plan.dataset.info.name


def _same_size(plan: SearchPlan) -> int | ImageSize | None:
    """The size of a folder's images; other data have their own."""
    info = plan.dataset.info
    is_folder = folder_of(info.name) is not None
    return info.input_shape[1:] if is_folder else plan.request.image_size


def _lower_name(request: SearchRequest, cap: int) -> str:
    """A named study's name with a lower budget behind it."""
    assert request.study is not None
    return f"{request.study.removesuffix(f'-{request.budget}')}-{cap}"
