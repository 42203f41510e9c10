"""What a server answers, as `search.Client` reads it; anything else that listens there is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2

import search.exceptions
from search.exceptions import InputError, SearchError, ServiceError
from search.service.jobs import Job, JobState


def read_jobs(answer: Any) -> tuple[list[Job], str | None]:
    """A page of jobs, and the cursor of the next one."""
    return [Job.from_json(values) for values in answer["jobs"]], answer["next_cursor"]


def read_counts(answer: Any) -> dict[JobState, int]:
    """How many jobs there are in each state."""
    return {JobState(state): n for state, n in answer["counts"].items()}


def event_of(answer: httpx2.Response, text: str) -> dict[str, Any]:
    """What an event says.

    Raises:
        ServiceError: if it is none of a search.
    """
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise no_words(answer, "otherwise")
    return values


def no_words(answer: httpx2.Response, how: str) -> ServiceError:
    """Of an answer that no server of searches gives."""
    return ServiceError(
        f"A server of searches must answer in words, but {answer.url.host} answered {how}; see "
        "whether another program, or one of another version, listens there."
    )


def silent_words(url: str, error: Exception) -> str:
    """Of a server that does not answer."""
    return (
        f"A server must answer, but {url} does not ({error or type(error).__name__}); start it, "
        "with 'search serve', and give the same command again."
    )


def raise_error(answer: httpx2.Response) -> None:
    """Raises what the server raised, as far as it told."""
    if answer.is_success:
        return
    try:
        told = answer.json()["error"]
        kind, message = str(told["type"]), str(told["message"])
    except (ValueError, KeyError, TypeError) as error:
        raise no_words(answer, f"{answer.status_code} alone") from error
    found = getattr(search.exceptions, kind, None)
    is_ours = isinstance(found, type) and issubclass(found, SearchError)
    try:
        raise found(message) if is_ours and found is not None else ServiceError(message)
    except TypeError:  # one that must be told more
        raise InputError(message) from None


def read_events(lines: Iterator[str]) -> Iterator[tuple[str | None, str]]:
    """Server-sent events: what tells each, and its data."""
    key: str | None = None
    data: list[str] = []
    for line in lines:
        if line.startswith("id:"):
            key = line.removeprefix("id:").strip()
        elif line.startswith("data:"):
            data.append(line.removeprefix("data:").removeprefix(" "))
        elif not line and data:
            yield key, "\n".join(data)
            data = []
