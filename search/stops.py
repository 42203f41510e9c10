"""Calls of a database that does not answer: it is said, and a stop ends the command all the same.

Such a call hears no signal, or goes on in spite of it: a server that hangs is waited for until the
network gives up, a locked file for a minute. What was confirmed is kept, and the next start puts
right what such an end leaves, as after any kill.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

_LONGEST_SECONDS = 4.0  # that a call may take once the command was told to stop
_SILENT_SECONDS = 20.0  # after which it is said that the database does not answer
_LOOK_SECONDS = 0.2
_LAST_SECONDS = 0.5  # for what is done and said as a command is ended
_EXIT_INTERRUPTED = 130
_SHOWN_CURSOR = b"\x1b[?25h"  # a live display hides it
_STOPS = {getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")}


class DatabaseCall:
    """A call of a database, as long as a thread is in it.

    Args:
        tell_silence: told once, from another thread, where it gets no answer for long, and for how
            many seconds.
    """

    def __init__(self, tell_silence: Callable[[float], None] | None = None) -> None:
        self._tell_silence = tell_silence
        self._heard = time.monotonic()
        # Looks, as seconds would go on while this process is stopped or the machine sleeps.
        self._n_looks = self._n_looks_since_stop = 0
        self.is_told = False

    def answered(self) -> None:
        """The database has answered, and will be waited for again."""
        self._heard = time.monotonic()
        self._n_looks = 0

    @property
    def silent_seconds(self) -> float:
        """Since the database was heard, or the call begun."""
        return time.monotonic() - self._heard

    def look(self, *, is_stopped: bool) -> None:
        """Does what is due; called again and again by the thread that watches."""
        self._n_looks += 1
        self._n_looks_since_stop += is_stopped
        if self._n_looks_since_stop * _LOOK_SECONDS > _LONGEST_SECONDS:
            _end()
        if self._n_looks * _LOOK_SECONDS > _SILENT_SECONDS and not self.is_told:
            self.is_told = True
            if self._tell_silence is not None:
                with suppress(OSError):  # nobody may be left to read it
                    self._tell_silence(_SILENT_SECONDS)


_calls: dict[int, DatabaseCall] = {}  # by the thread that is in it
_last_acts: list[Callable[[], None]] = []


@contextmanager
def database_call(tell_silence: Callable[[float], None] | None = None) -> Iterator[DatabaseCall]:
    """While a database is asked for something, after a stop for some seconds only.

    Args:
        tell_silence: as that of `DatabaseCall`; only where `watch_stops` was called.
    """
    thread, call = threading.get_ident(), DatabaseCall(tell_silence)
    before, _calls[thread] = _calls.get(thread), call
    try:
        yield call
    finally:
        if before is None:
            del _calls[thread]
        else:
            _calls[thread] = before


def database_answered() -> None:
    """Says in the midst of a call that the database answers, and the call waits for another."""
    call = _calls.get(threading.get_ident())
    if call is not None:
        call.answered()


@contextmanager
def last_act(act: Callable[[], None]) -> Iterator[None]:
    """Has something done as a command is ended in the midst of such a call, by another thread."""
    _last_acts.append(act)
    try:
        yield
    finally:
        _last_acts.remove(act)


def watch_stops() -> None:
    """Has a thread look after calls of databases in this process, which is a command's own."""
    receiver, sender = socket.socketpair()  # Windows waits for no pipe
    sender.setblocking(False)
    signal.set_wakeup_fd(sender.detach(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(receiver,), daemon=True).start()


def _watch(receiver: socket.socket) -> None:
    is_stopped = False
    while True:
        if select.select([receiver], [], [], _LOOK_SECONDS)[0]:
            came = receiver.recv(4096)
            if not came:  # nobody is left to send
                return
            is_stopped = is_stopped or not _STOPS.isdisjoint(came)
            continue
        for call in list(_calls.values()):
            call.look(is_stopped=is_stopped)


def _end() -> NoReturn:
    # What is written may have to wait, for a terminal that was halted.
    timer = threading.Timer(_LAST_SECONDS, os._exit, [_EXIT_INTERRUPTED])
    timer.daemon = True
    timer.start()
    for act in reversed(_last_acts):
        with suppress(Exception):  # it is the end in any case
            act()
    with suppress(OSError):  # of a terminal that is closed
        for stream in (sys.stdout, sys.stderr):
            if stream.isatty():
                os.write(stream.fileno(), _SHOWN_CURSOR)
        print(
            "Interrupted, while the database did not answer. What it confirmed is kept; "
            "the same command goes on.",
            file=sys.stderr,
            flush=True,
        )
    os._exit(_EXIT_INTERRUPTED)
