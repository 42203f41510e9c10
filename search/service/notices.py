"""Tells a URL when a search has ended, or has found a better network: a small JSON, signed.

What was told is kept beside the database, so that nothing is left out while the server is down, and
what the URL did not take is sent again. It may come twice, with the same number.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx2

from search.exceptions import DatabaseError, InputError, UnknownJobError
from search.files import write_text
from search.service.access import kept_secret
from search.service.jobs import BETTER, ENDED
from search.service.queue import JobEvent, JobQueue

_TOLD = (*map(str, ENDED), BETTER)
_PAUSE_SECONDS = 1.0  # between two looks for what is new
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.5, 300.0
_N_TRIES = 30  # over about two hours, after which an event is given up
_TIMEOUT = httpx2.Timeout(10.0)


def check_notify_url(url: str) -> str:
    """The URL, if it can be posted to.

    Raises:
        InputError: if it cannot.
    """
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one:
        raise InputError(
            f"--notify must be a URL, as https://example.org/searches, but got {url[:200]!r}."
        )
    return url


class Notifier:
    """Tells one URL, by a thread of its own, until it is closed.

    Args:
        folder: that keeps the key, and what was told.
        notice: is told what could not be sent, in words.
    """

    def __init__(
        self, queue: JobQueue, url: str, folder: Path, notice: Callable[[str], None]
    ) -> None:
        self._queue = queue
        self._url = url
        self._notice = notice
        self._key = kept_secret(folder / "notify-key")
        # A URL may have a secret in it, which is in no name of a file.
        self._path = folder / f"notified-{hashlib.sha256(url.encode()).hexdigest()[:12]}"
        self._told = 0  # the number of the event that was told last
        self._noted: int | None = None  # as the file has it
        self._is_noting = True  # whether it could be noted
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notify", daemon=True)

    def start(self) -> None:
        """Begins with what happens from now on or, where it told before, behind that.

        Where it told of a database that was deleted since, it begins with the first of this one.
        """
        with suppress(OSError, ValueError):
            self._noted = int(self._path.read_text())
        last = self._queue.last_event()
        self._told = last if self._noted is None else self._noted
        if self._told > last:
            self._told = 0
        self._thread.start()

    def close(self) -> None:
        """Ends it; what was not told is told when a server starts again."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        with httpx2.Client(timeout=_TIMEOUT) as client:
            self._note()
            while not self._closing.wait(_PAUSE_SECONDS):
                with suppress(DatabaseError):  # it is away; it is asked again
                    self._tell_new(client)
                self._note()

    def _tell_new(self, client: httpx2.Client) -> None:
        for event in self._queue.events_after(self._told):
            if event.kind in _TOLD and not self._tell(client, event):
                return
            self._told = event.number
            self._note()

    def _note(self) -> None:
        """Notes what was told, so that it is not told again when a server starts again."""
        if self._noted == self._told:
            return
        try:
            write_text(str(self._told), self._path)
        except OSError as error:
            if self._is_noting:
                self._notice(f"What was told cannot be noted: {error}. It is tried again.")
            self._is_noting = False
        else:
            self._noted, self._is_noting = self._told, True

    def _tell(self, client: httpx2.Client, event: JobEvent) -> bool:
        """Tells of an event; false where it is to be told later, as the server ends."""
        try:
            job = self._queue.job(event.job)
        except UnknownJobError:
            return True
        values = {"number": event.number, "at": event.at, "event": event.kind, "job": job.to_json()}
        body = json.dumps(values).encode()
        headers = {
            "Content-Type": "application/json",
            "X-Search-Signature": f"sha256={sign(self._key, body)}",
        }
        wait = _FIRST_WAIT_SECONDS
        for _ in range(_N_TRIES):
            try:
                answer = client.post(self._url, content=body, headers=headers)
                if answer.is_success:
                    return True
                why = f"it answered {answer.status_code}"
            except (httpx2.HTTPError, UnicodeError) as error:  # that of a name which can be none
                why = str(error) or type(error).__name__
            if self._closing.wait(wait):
                return False
            wait = min(2 * wait, _LONGEST_WAIT_SECONDS)
        host = urlsplit(self._url).hostname
        self._notice(f"{host} was not told that {job.name} is {event.kind}: {why}.")
        return True


def sign(key: str, body: bytes) -> str:
    """The signature of a body, in hexadecimal digits: HMAC with SHA-256."""
    return hmac.new(key.encode(), body, hashlib.sha256).hexdigest()
