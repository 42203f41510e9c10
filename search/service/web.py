"""The page: the queue as HTML, rendered here; reports of studies; what the interface has."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import FileResponse, HTMLResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from search.data.names import SPLITS
from search.plain_text import printable
from search.service.guard import LOGIN, STYLE
from search.service.jobs import ENDED, JobState
from search.service.services import Served, Service
from search.wording import percent, thousands

_FOLDER = Path(__file__).parent
_N_WAITING, _N_ENDED = 50, 20  # shown
_REPORT_SECONDS = 10  # after which a report that had to wait may be asked for again
# Nothing is loaded from elsewhere, and no script but our own runs; reports bring their styles.
_POLICY = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; form-action 'self'"
_REPORT_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; font-src data:"

_environment = Environment(
    loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)
_environment.filters.update(percent=percent, thousands=thousands)

router = APIRouter(include_in_schema=False)


@router.get("/")
def index(service: Served, request: Request) -> Response:
    return _html("page.html", **_queue(service, request), datasets=["auto", *SPLITS])


@router.get("/queue")
def queue(service: Served, request: Request) -> Response:
    return _html("queue.html", **_queue(service, request))


@router.get(STYLE)
def style() -> Response:
    return FileResponse(_FOLDER / "page.css", media_type="text/css")


@router.get("/page.js")
def script() -> Response:
    return FileResponse(_FOLDER / "page.js", media_type="text/javascript")


@router.get("/api/v1/docs")
def docs(request: Request) -> Response:
    description = request.app.openapi()
    schemas = description["components"]["schemas"]

    def fields_of(route: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """What the body of a call has."""
        body = route.get("requestBody", {}).get("content", {}).get("application/json", {})
        name = body.get("schema", {}).get("$ref", "").rpartition("/")[2]
        yield from schemas.get(name, {}).get("properties", {}).items()

    return _html("api.html", paths=description["paths"], fields_of=fields_of)


@router.get("/report")
async def report(
    service: Served, name: Annotated[str, Query(min_length=1, max_length=500)]
) -> Response:
    """A study's report, as `search report` writes it without --train."""
    drawn = service.reports.ask(name)
    if drawn is None:
        raise HTTPException(
            503,
            "Reports are drawn one at a time, and that of another study is being drawn; ask again "
            f"in {_REPORT_SECONDS} seconds.",
            {"Retry-After": str(_REPORT_SECONDS)},
        )
    page = await asyncio.shield(asyncio.wrap_future(drawn))  # who leaves takes it from nobody else
    return HTMLResponse(page, headers={"Content-Security-Policy": _REPORT_POLICY})


def login_page(code: str) -> Response:
    """What a link shows: a button, so that what only previews it does not spend it."""
    answer = _html("login.html", path=f"{LOGIN}?{urlencode({'code': code})}")
    answer.headers["Referrer-Policy"] = "same-origin"  # without one, no origin is sent either
    return answer


def _queue(service: Service, request: Request) -> dict[str, Any]:
    jobs, counts = service.queue, service.queue.count()
    running = jobs.page((JobState.RUNNING,), limit=1000)
    waiting = jobs.page((JobState.WAITING,), limit=_N_WAITING)
    ended = jobs.page(ENDED, limit=_N_ENDED)
    return {
        "role": str(request.state.role),
        "n_slots": service.n_slots,
        "running": counts[JobState.RUNNING],
        "waiting": counts[JobState.WAITING],
        "running_jobs": running,
        "waiting_jobs": waiting,
        "n_more_waiting": counts[JobState.WAITING] - len(waiting),
        "ended_jobs": ended,
        "names": {job.number: printable(job.search) for job in (*running, *waiting, *ended)},
    }


def _html(template: str, **values: Any) -> Response:
    text = _environment.get_template(template).render(values)
    return HTMLResponse(text, headers={"Content-Security-Policy": _POLICY})
