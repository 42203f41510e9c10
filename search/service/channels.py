"""The events of searches for many who watch: each search is read once, however many they are.

What is kept of a search is bounded. Who falls behind, or comes back too late, begins anew with how
the study stands; who never reads costs what its connection holds, and nobody else anything.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from search.exceptions import SearchError
from search.service.queue import JobQueue
from search.service.watching import Watched, watch_job, watch_study

_N_EVENTS = 5000  # that are kept of a search; more are told anew as how the study stands
_PAUSE_SECONDS = 1.0  # between two looks at a study
_IDLE_SECONDS = 20.0  # without anybody who watches, after which nobody looks any more
_ASK_SECONDS = 0.25  # between two looks at what is kept
MOST_CHANNELS = 50

Event = tuple[int, dict[str, Any]]


class Channel:
    """The events of one search, read by a thread of its own as long as somebody watches.

    Args:
        search: the number of a job, or the name of a study, which may be a number as well.
    """

    def __init__(self, queue: JobQueue, search: int | str) -> None:
        self._queue = queue
        self._search = search
        self.nonce = secrets.token_hex(4)  # of this channel: numbers of another one are not its own
        self._events: list[Event] = []  # since the study was told of last
        self._number = 0
        self._watched_at = time.monotonic()
        self._lock = threading.Lock()
        self.is_over = False
        self.has_ended = False  # whether it is over because the search is
        threading.Thread(target=self._read, name=f"watch {search}", daemon=True).start()

    def after(self, number: int) -> list[Event]:
        """What came after an event; all that is kept where it is not any more."""
        self._watched_at = time.monotonic()
        with self._lock:
            if not self._events or number < self._events[0][0]:
                return list(self._events)
            return self._events[number - self._events[0][0] + 1 :]

    def _read(self) -> None:
        try:
            while self._read_once():
                pass
        except (SearchError, KeyError) as error:  # the study was deleted, the database is away
            words = str(error) if isinstance(error, SearchError) else "the study was deleted"
            self._add({"event": "error", "message": words})
        finally:
            self.is_over = True

    def _read_once(self) -> bool:
        """Reads a search to its end; true where it is to be told anew, as there was too much."""
        for event in self._watch():
            if event is None:
                if time.monotonic() - self._watched_at > _IDLE_SECONDS:
                    return False
                time.sleep(_PAUSE_SECONDS)
                if len(self._events) > _N_EVENTS:
                    with self._lock:
                        self._events.clear()
                    return True
            else:
                self._add(event)
        self.has_ended = True
        return False

    def _watch(self) -> Watched:
        if isinstance(self._search, int):
            return watch_job(self._queue, self._queue.job(self._search))
        return watch_study(self._queue, self._search)

    def _add(self, event: dict[str, Any]) -> None:
        with self._lock:
            self._number += 1
            self._events.append((self._number, event))


class Channels:
    """The searches that somebody watches. May be used by several threads."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        self._channels: dict[int | str, Channel] = {}
        self._lock = threading.Lock()

    def open(self, search: int | str) -> Channel | None:
        """The channel of a search; None where too many are watched already.

        Args:
            search: as `Channel` takes it, of one that is there.
        """
        with self._lock:
            self._channels = {n: c for n, c in self._channels.items() if not c.is_over}
            if search not in self._channels:
                if len(self._channels) >= MOST_CHANNELS:
                    return None
                self._channels[search] = Channel(self._queue, search)
            return self._channels[search]


async def channel_events(
    channel: Channel, last_id: str | None, should_stop: Callable[[], bool]
) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """What comes on a channel, each event with what tells it from all others; `over` at last.

    Where that does not come, the server ended, and not the search.

    Args:
        last_id: of the last event that the client had, of this channel perhaps.
    """
    nonce, _, text = (last_id or "").partition("-")
    is_known = nonce == channel.nonce and text.isascii() and text.isdecimal()
    number = int(text[:15]) if is_known else 0
    while not should_stop():
        # Asked first: what came before it was over is told after.
        is_over = channel.is_over
        for each, event in channel.after(number):
            number = each
            yield f"{channel.nonce}-{each}", event
        if is_over:
            if channel.has_ended:
                yield f"{channel.nonce}-{number}", {"event": "over"}
            return
        await asyncio.sleep(_ASK_SECONDS)


async def job_events(
    queue: JobQueue, after: int, should_stop: Callable[[], bool]
) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """What becomes of jobs after an event, each with its number."""
    while not should_stop():
        events = await asyncio.to_thread(queue.events_after, after)
        for event in events:
            after = event.number
            values = {"job": event.job, "kind": event.kind, "at": event.at}
            yield str(event.number), {"event": "job_event", **values}
        if not events:
            await asyncio.sleep(2 * _ASK_SECONDS)
