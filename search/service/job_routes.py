"""Routes of jobs: submit, list, look, stop, resume, cancel, move; their logs and events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from search.exceptions import InputError
from search.service.access import Role
from search.service.channels import Channel, job_events
from search.service.jobs import Job, JobState
from search.service.logs import read_log
from search.service.pages import Cursor, Json, Limit, page, read_number
from search.service.schemas import JobRequest, LinkRequest, Move, options_from
from search.service.services import Served, Service
from search.service.streams import LastEvent, add_search_events, as_event, open_channel
from search.service.submission import check_submission, request_of

_LARGEST = 2**63 - 1


def job_of_path(service: Served, number: int) -> Job:
    """The job that a path names."""
    return service.queue.job(number)


OfPath = Annotated[Job, Depends(job_of_path)]
Key = Annotated[
    str | None, Header(max_length=200, description="Unlike all others: again, it is the same job.")
]
States = Annotated[list[JobState] | None, Query(description="Only in these states.")]
LookupName = Annotated[str, Query(min_length=1, max_length=500)]
Offset = Annotated[int, Query(ge=0, le=_LARGEST, description="In bytes.")]


def job_channel(service: Served, job: OfPath) -> Channel:
    """The channel of the job that a path names."""
    return open_channel(service, job.number)


router = APIRouter(tags=["jobs"])


@router.post(
    "/jobs",
    status_code=201,
    summary="Submit a search",
    responses={200: {"description": "It was submitted before, with this key."}},
)
def submit(
    service: Served, body: JobRequest, response: Response, idempotency_key: Key = None
) -> Json:
    options = service.folders.check(options_from(body))
    if options.get("engine") == "ray" and service.ray_address is not None:
        options["ray_address"] = service.ray_address
    if idempotency_key is not None and not idempotency_key.isprintable():
        raise InputError("A key must be of characters that can be printed; give another.")
    submission = check_submission(request_of(options, service.url))
    job, is_new = service.queue.submit(
        submission.options, study=submission.study, key=idempotency_key, first=body.first
    )
    response.status_code = 201 if is_new else 200
    return _done(service, job)


@router.get("/jobs", summary="List jobs, the newest first; those that wait alone, in their order")
def jobs(service: Served, state: States = None, limit: Limit = 100, cursor: Cursor = None) -> Json:
    queue = service.queue
    before = read_number(cursor)
    after = None if before is None else queue.job(before)
    states = tuple(JobState) if not state else tuple(dict.fromkeys(state))
    found = queue.page(states, limit=limit + 1, after=after)
    last = None if len(found) <= limit else str(found[limit - 1].number)
    counts = {str(each): n for each, n in queue.count().items()}
    return {**page("jobs", [job.to_json() for job in found], limit, last), "counts": counts}


@router.get("/jobs/lookup", summary="The job of a number, or of the name of a study")
def lookup(service: Served, name: LookupName) -> Json:
    return service.queue.find(name).to_json()


@router.get("/jobs/{number}", summary="A job")
def job(job: OfPath) -> Json:
    return job.to_json()


@router.post("/jobs/{number}/stop", summary="Stop it, or hold it where it waits")
def stop(service: Served, job: OfPath) -> Json:
    return _done(service, service.queue.stop(str(job.number)))


@router.post("/jobs/{number}/resume", summary="Queue it again, at the end")
def resume(service: Served, job: OfPath) -> Json:
    return _done(service, service.queue.resume(str(job.number)))


@router.post("/jobs/{number}/cancel", summary="Take it out of the queue")
def cancel(service: Served, job: OfPath) -> Json:
    return _done(service, service.queue.cancel(str(job.number)))


@router.post("/jobs/{number}/move", summary="Have it run next, or last")
def move(service: Served, job: OfPath, body: Move) -> Json:
    return _done(service, service.queue.move(str(job.number), first=body.to == "first"))


@router.get("/jobs/{number}/log", summary="What its search printed", response_class=Response)
def log(service: Served, job: OfPath, offset: Offset = 0) -> Response:
    text = read_log(service.url, job, offset)
    return Response(text, media_type="text/plain; charset=utf-8")


add_search_events(router, "/jobs/{number}/events", job_channel)


@router.get(
    "/events",
    summary="What becomes of all jobs, from now on or behind the last event",
    response_class=EventSourceResponse,
)
async def all_events(
    service: Served, last_event_id: LastEvent = None
) -> AsyncIterator[ServerSentEvent]:
    text = last_event_id or ""
    is_number = text.isascii() and text.isdecimal() and len(text) < 19
    last = await asyncio.to_thread(service.queue.last_event)
    after = int(text) if is_number else last
    if after > last:  # of a database that was deleted since: in this one, all is new
        after = 0
    async for key, values in job_events(service.queue, after, service.should_stop):
        yield as_event(key, values)


@router.post("/links", status_code=201, summary="A link that opens the page in a browser, once")
def link(service: Served, request: Request, body: LinkRequest) -> Json:
    role = Role.READER if body.read_only else Role.WRITER
    code = service.access.make_link_code(role)
    return {"url": f"{request.base_url}login?code={code}", "read_only": body.read_only}


def _done(service: Service, job: Job) -> Json:
    service.look()
    return job.to_json()
