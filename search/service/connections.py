"""Connections of clients: those that say nothing, or half of a request, take nobody's room."""

from __future__ import annotations

import asyncio
import time

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_REQUEST_SECONDS = 5.0  # in which a request must be there as a whole, its body, too
_MOST_WAITING = 200  # connections at a time on which no request is being answered


class BoundedConnection(H11Protocol):
    """A connection that is closed where its request does not come within seconds.

    Of those that wait for a request only so many are kept: a further one closes the oldest. Whoever
    sends a whole request at once is served, however many others hold theirs back; connections on
    which one is being answered, as streams of events, stay.
    """

    _waits_since = 0.0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        waiting = [c for c in self.connections if isinstance(c, BoundedConnection) and c._waits()]
        if len(waiting) >= _MOST_WAITING:
            min(waiting, key=lambda each: each._waits_since).transport.abort()
        super().connection_made(transport)
        self._waits_since = time.monotonic()
        self._bound()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unbound()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._bound()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._waits_since = time.monotonic()
        self._bound()

    def _waits(self) -> bool:
        is_answering = self.cycle is not None and not self.cycle.response_complete
        return not self.transport.is_closing() and not (is_answering and self._is_whole())

    def _is_whole(self) -> bool:
        """Whether nothing of the request is missing that was begun."""
        return self.conn.their_state not in (h11.IDLE, h11.SEND_BODY)

    def _bound(self) -> None:
        """Has the connection closed in time while a request is missing, or a part of it."""
        is_kept_alive = self.timeout_keep_alive_task is not None  # has a time of its own
        if self._is_whole() or is_kept_alive or self.transport.is_closing():
            self._unbound()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(_REQUEST_SECONDS, self.transport.abort)

    def _unbound(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
