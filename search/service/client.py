"""`search.Client`: a queue of searches, reached over HTTP."""

from __future__ import annotations

import os
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx2

from search.addresses import is_this_machine
from search.exceptions import InputError, ServiceError, UnknownJobError
from search.folders import DATABASE_URL
from search.service.access import read_token
from search.service.answers import (
    event_of,
    no_words,
    raise_error,
    read_counts,
    read_events,
    read_jobs,
    silent_words,
)
from search.service.folder import ServiceFolder
from search.service.jobs import Job, JobState

_T = TypeVar("_T")

_API = "/api/v1"
_PAGE = 500
_SECONDS = httpx2.Timeout(60.0, connect=10.0)
_SILENT_SECONDS = 60.0  # for which a server is waited for that does not answer, and starts or ends
_PAUSE_SECONDS = 0.5  # between two looks for a server that has gone
_EVENT_SECONDS = 40.0  # without anything on a stream, on which something comes every 15


class Client:
    """The queue of a server.

    client = search.Client()
    job = client.submit(budget=8000, epochs=15)
    client.wait(job.number)

    Args:
        url: of the server; by default SEARCH_SERVER or, where that is not set, that of the
            database's server on this machine.
        token: by default SEARCH_TOKEN or, of a server on this machine, that which it has made.
        storage: the database whose server it is, where `url` does not say.
        away_seconds: for which `watch` and `wait` look for a server that has gone.

    Raises:
        ServiceError: if there is no server.
        InputError: if there is no token.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        storage: str = DATABASE_URL,
        away_seconds: float = 60.0,
    ) -> None:
        self._away_seconds = away_seconds
        self._folder: ServiceFolder | None = None
        url = url or os.environ.get("SEARCH_SERVER") or None
        if url is None:
            self._folder = folder = ServiceFolder(storage)
            url = folder.address()
            if url is None:
                raise ServiceError(
                    "A server must run on this machine, or be named by its URL, but none does; "
                    "'search serve' is one."
                )
            token = token or read_token(folder.path)
        token = token or os.environ.get("SEARCH_TOKEN")
        if not token:
            raise InputError(
                "A server that is named by its URL must be given a token as well, but there is "
                "none; set SEARCH_TOKEN, to what 'search serve' keeps in the file 'token'."
            )
        host = _check_address(url, token)
        self.url = url.rstrip("/")
        self._http = httpx2.Client(
            base_url=f"{self.url}{_API}",
            headers={"Authorization": f"Bearer {token}"},
            timeout=_SECONDS,
            trust_env=not is_this_machine(host),  # no proxy stands before this machine
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes its connections."""
        self._http.close()

    # --- Jobs ---

    def submit(
        self,
        budget: int,
        epochs: int,
        *,
        first: bool = False,
        key: str | None = None,
        **options: Any,
    ) -> Job:
        """Queues a search; returns its job.

        Where the connection breaks, it is safe to call it again with the same key.

        Args:
            first: whether it is to run before all that waits.
            key: unlike all others; by default one is made.
            options: of a search, by the names of `SearchRequest`, as JSON has them.

        Raises:
            InputError: if anything asked for is wrong.
            ServiceError: if the server does not answer.
        """
        body = {"budget": budget, "epochs": epochs, "first": first, **options}
        headers = {"Idempotency-Key": key or uuid.uuid4().hex}
        return self._call("POST", "/jobs", Job.from_json, json=body, headers=headers)

    def job(self, name: int | str) -> Job:
        """A job by its number, or the name of its study.

        Raises:
            UnknownJobError: if there is none.
        """
        return self._call("GET", "/jobs/lookup", Job.from_json, params={"name": str(name)})

    def jobs(
        self, states: Sequence[JobState] = tuple(JobState), limit: int | None = None
    ) -> list[Job]:
        """Jobs in some states, the newest first; those that wait alone, in their order.

        Args:
            limit: how many at most; None for all.
        """
        found: list[Job] = []
        cursor: str | None = None
        while limit is None or len(found) < limit:
            n = _PAGE if limit is None else min(_PAGE, limit - len(found))
            params = {"state": [str(each) for each in states], "limit": n}
            page, cursor = self._call(
                "GET", "/jobs", read_jobs, params=params | ({"cursor": cursor} if cursor else {})
            )
            found += page
            if cursor is None:
                break
        return found

    def count(self) -> dict[JobState, int]:
        """How many jobs there are in each state."""
        return self._call("GET", "/jobs", read_counts, params={"limit": 1})

    def stop(self, name: int | str) -> Job:
        """Stops the search of a job, which can be resumed; one that waits is held."""
        return self._act(name, "stop")

    def resume(self, name: int | str) -> Job:
        """Queues a job again, at the end, that was stopped or cancelled, or failed."""
        return self._act(name, "resume")

    def cancel(self, name: int | str) -> Job:
        """Takes a job out of the queue; one that runs is stopped first."""
        return self._act(name, "cancel")

    def move(self, name: int | str, *, first: bool = True) -> Job:
        """Has a job that waits run next, or last."""
        return self._act(name, "move", json={"to": "first" if first else "last"})

    def log(self, name: int | str, offset: int = 0) -> bytes:
        """A part of what the search of a job printed, from an offset on; nothing at its end."""
        number = self._number(name)
        return self._send("GET", f"/jobs/{number}/log", params={"offset": offset}).content

    def wait(self, name: int | str) -> Job:
        """Waits until a job has ended; returns it.

        Raises:
            ServiceError: if the server goes away for good.
        """
        number = self._number(name)
        for _ in self.watch(number):
            pass
        return self.job(number)

    def watch(self, name: int | str) -> Iterator[dict[str, Any]]:
        """What happens in a search, each event as values, until it is over.

        `docs/service.md` lists them. Where the connection breaks, it goes on behind the last one.

        Args:
            name: the number of a job, or the name of a study.

        Raises:
            UnknownJobError, UnknownStudyError: if there is neither.
            ServiceError: if the server goes away for good.
        """
        try:
            number = self._number(name)
        except UnknownJobError:
            if isinstance(name, int):
                raise
            number = None
        if str(name) == str(number):
            yield from self._events(f"/jobs/{number}/events", {})
        else:  # its job, if it has one, may not be who searches it now
            yield from self._events("/study/events", {"name": str(name)})

    # --- Studies ---

    def studies(self) -> list[dict[str, Any]]:
        """All studies of the database, as `search studies --json` has them, the newest first."""
        return self._pages("/studies", "studies", {})

    def study(self, name: str) -> dict[str, Any]:
        """A study, as `search studies --json` has it."""
        return self._call("GET", "/study", dict, params={"name": name})

    def trials(self, name: str) -> list[dict[str, Any]]:
        """The trials of a study, each as `search show --json` has it."""
        return self._pages("/study/trials", "trials", {"name": name})

    def stop_study(self, name: str) -> dict[str, Any]:
        """Stops the search of a study, also one that no job runs, on the server's machine."""
        return self._call("POST", "/study/stop", dict, params={"name": name})

    def link(self, *, read_only: bool = True) -> str:
        """A link that opens the server's page in a browser, once, within ten minutes."""
        body = {"read_only": read_only}
        return self._call("POST", "/links", lambda answer: str(answer["url"]), json=body)

    # --- HTTP ---

    def _act(self, name: int | str, what: str, **more: Any) -> Job:
        path = f"/jobs/{self._number(name)}/{what}"
        return self._call("POST", path, Job.from_json, **more)

    def _number(self, name: int | str) -> int:
        return self.job(name).number

    def _pages(self, path: str, key: str, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            page, following = self._call(
                "GET",
                path,
                lambda answer: (list(answer[key]), answer["next_cursor"]),
                params={**params, **cursor},
            )
            found += page
            if following is None:
                return found
            cursor = {"cursor": following}

    def _call(self, method: str, path: str, read: Callable[[Any], _T], **more: Any) -> _T:
        """What a function reads of the values that a server answers."""
        answer = self._send(method, path, **more)
        try:
            return read(answer.json())
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise no_words(answer, "otherwise") from error

    def _send(self, method: str, path: str, **more: Any) -> httpx2.Response:
        with self._in_words():
            answer = self._http.request(method, path, **more)
            raise_error(answer)
        return answer

    def _events(self, path: str, params: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        last: str | None = None
        away_at: float | None = None  # since when the server is; by the monotonic clock
        why: Exception = ConnectionError("it has ended")
        while True:
            headers = {} if last is None else {"Last-Event-ID": last}
            timeout = httpx2.Timeout(_EVENT_SECONDS, connect=10.0)
            try:
                with self._http.stream(
                    "GET", path, params=dict(params), headers=headers, timeout=timeout
                ) as answer:
                    if answer.status_code != 200:
                        answer.read()
                        raise_error(answer)
                    if not answer.headers.get("content-type", "").startswith("text/event-stream"):
                        raise no_words(answer, "otherwise")
                    for key, text in read_events(answer.iter_lines()):
                        last = key or last
                        values, away_at = event_of(answer, text), None
                        match values.get("event"):
                            case "over":
                                return
                            case "error":
                                raise ServiceError(f"{values['message']}")
                        yield values
            except (httpx2.HTTPError, UnicodeError) as error:
                why = error
            # The server ended, and not the search: it may be started again.
            away_at = away_at or time.monotonic()
            is_there = self._folder is not None and self._folder.has_server()
            limit = max(self._away_seconds, _SILENT_SECONDS if is_there else 0.0)
            if time.monotonic() - away_at >= limit:
                raise ServiceError(silent_words(self.url, why)) from why
            time.sleep(_PAUSE_SECONDS)
            self._find_again()

    def _find_again(self) -> None:
        """Looks where the server of this machine is now, which may have another port."""
        address = None if self._folder is None else self._folder.address()
        if address is not None and address != self.url:
            self.url = address
            self._http.base_url = httpx2.URL(f"{address}{_API}")

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except (httpx2.HTTPError, UnicodeError) as error:  # that of a name which can be none
            raise ServiceError(silent_words(self.url, error)) from error


def _check_address(url: str, token: str) -> str:
    """The host of a server's URL.

    Raises:
        InputError: if that can be no such URL, or the token no token.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        httpx2.URL(url)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except (ValueError, httpx2.InvalidURL):
        is_one = False
    if not is_one:
        raise InputError(
            "A server must be named by its URL, as http://127.0.0.1:8765, but got "
            f"{url[:200]!r}; mend --server or SEARCH_SERVER."
        )
    if not (token.isascii() and token.isprintable()):
        raise InputError(
            "A token must be one line of ASCII characters, but the one that is given has others; "
            "set SEARCH_TOKEN to what 'search serve' keeps in the file 'token'."
        )
    return parts.hostname or ""
