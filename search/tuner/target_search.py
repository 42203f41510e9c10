"""The search for the smallest network that reaches a target."""

from __future__ import annotations

import time
from dataclasses import replace

from search.data.dataset import Dataset
from search.results.confirm import ConfirmationRun
from search.results.target import Step, judge
from search.tuner.plan import SearchPlan
from search.tuner.request import (
    SearchRequest,
)
from search.tuner.session import Search


def judge_target(search: Search, confirming: ConfirmationRun) -> Step | None:
    """What a finished race says of the target that was asked for."""
    request = search.plan.request
    assert request.target is not None
    return judge(
        confirming,
        cap=request.budget,
        target=request.target.accuracy,
        confidence=request.target.confidence,
    )


def next_request(search: Search, step: Step) -> SearchRequest | None:
    """The search under the next lower cap; None where no network of the space fits under it."""
    request = search.plan.request
    if replace(search.plan.space, parameter_cap=step.next_cap).smallest_count() >= step.next_cap:
        return None
    timeout = request.timeout_seconds
    if timeout is not None:
        timeout = max(1.0, timeout - (time.monotonic() - search.started))
    return replace(
        request,
        budget=step.next_cap,
        dataset=_same_dataset(search.plan),
        study=None if request.study is None else _lower_name(request, step.next_cap),
        from_study=search.plan.study_name,
        timeout_seconds=timeout,
    )


def _same_dataset(plan: SearchPlan) -> str | Dataset:
    """What `auto` came to, or what was asked for."""
    asked = plan.request.dataset
    return asked if isinstance(asked, Dataset) else plan.dataset.info.name


def _lower_name(request: SearchRequest, cap: int) -> str:
    """A named study's name with a lower budget behind it."""
    assert request.study is not None
    return f"{request.study.removesuffix(f'-{request.budget}')}-{cap}"
