"""Routes of studies and their trials, also of searches that no job runs.

A study is named behind the question mark, as its name may have strokes.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query
from optuna.study import Study

from search.exceptions import InputError, JobError, UnknownJobError, UnknownStudyError
from search.results.confirmed import confirmation_of
from search.service.channels import Channel
from search.service.pages import Cursor, Json, Limit, finite, page, read_cursor, read_number
from search.service.plain_searches import stop_search
from search.service.services import Served, Service
from search.service.streams import add_search_events, open_channel
from search.storage.studies import study_names
from search.study.open import open_study
from search.study.settings import stored_settings
from search.study.summary import summarize_study, summarize_trial
from search.study.trials import trials_of

Name = Annotated[str, Query(min_length=1, max_length=500, description="Name of the study.")]
TrialNumber = Annotated[int, Query(ge=0, le=2**31 - 1)]


def study_channel(service: Served, name: Name) -> Channel:
    """The channel of the study that a query names, which may be one to come."""
    try:
        service.queue.of_study(name)
    except UnknownJobError:
        _find(service, name)
    return open_channel(service, name)


router = APIRouter(tags=["studies"])


@router.get("/studies", summary="List studies, the newest first")
def studies(service: Served, limit: Limit = 50, cursor: Cursor = None) -> Json:
    names = study_names(service.queue.storage)[::-1]
    before = read_cursor(cursor)
    if before is not None:
        if before not in names:
            raise InputError(
                f"A cursor must be about a study that is there, but {before[:100]!r} is not, or "
                "not any more; leave it out for the first page."
            )
        names = names[names.index(before) + 1 :]
    found: list[Json] = []
    for name in names:
        study = _own_study(service, name)
        if study is not None:
            found.append(_summary(study))
        if len(found) > limit:
            break
    last = None if len(found) <= limit else str(found[limit - 1]["name"])
    return page("studies", found, limit, last)


@router.get("/study", summary="A study")
def study(service: Served, name: Name) -> Json:
    return _summary(_find(service, name))


@router.post("/study/stop", summary="Stop its search, also one that no job runs")
def stop(service: Served, name: Name) -> Json:
    try:
        job = service.queue.stop_study(name)
    except JobError:
        owner = stop_search(service.queue.storage, name)
        if owner is None:
            raise
        return {"job": None, "process": owner.pid, "host": owner.host}
    service.look()
    return {"job": job.to_json(), "process": None, "host": None}


add_search_events(router, "/study/events", study_channel)


@router.get("/study/trials", summary="The trials of a study, by number")
def trials(service: Served, name: Name, limit: Limit = 100, cursor: Cursor = None) -> Json:
    before = read_number(cursor)
    first = 0 if before is None else before + 1
    found = [t for t in trials_of(_find(service, name)) if t.number >= first][: limit + 1]
    last = None if len(found) <= limit else str(found[limit - 1].number)
    return page("trials", [finite(asdict(summarize_trial(t))) for t in found], limit, last)


@router.get("/study/trial", summary="A trial of a study")
def trial(service: Served, name: Name, number: TrialNumber) -> Json:
    for found in trials_of(_find(service, name)):
        if found.number == number:
            return finite(asdict(summarize_trial(found)))
    raise UnknownStudyError(f"A trial must be in its study, but {name!r} has no {number}.")


def _own_study(service: Service, name: str) -> Study | None:
    """The study of that name which a search has made; None where there is none (any more)."""
    try:
        study = open_study(service.queue.storage, name)
        return None if stored_settings(study) is None else study
    except (KeyError, UnknownStudyError):
        return None


def _summary(study: Study) -> Json:
    return finite(asdict(summarize_study(study, trials_of(study), confirmation_of(study))))


def _find(service: Service, name: str) -> Study:
    study = open_study(service.queue.storage, name)
    if stored_settings(study) is None:
        raise UnknownStudyError(f"A study must have been made by a search, but {name!r} was not.")
    return study
