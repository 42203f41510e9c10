"""The end of a command that was told to stop while a database does not answer.

A call of a database hears no signal, or goes on in spite of it: a server that hangs is waited for
until the network gives up, a locked file for a minute. What was confirmed is kept, and the next
start puts right what such an end leaves, as after any kill.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

_LONGEST_SECONDS = 4.0  # that a call may take once the command was told to stop
_LOOK_SECONDS = 0.2
_EXIT_INTERRUPTED = 130
_SHOWN_CURSOR = "\x1b[?25h"  # a live display hides it
_STOPS = {getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")}

_began: float | None = None  # when the main thread's call did; monotonic


@contextmanager
def database_call() -> Iterator[None]:
    """While a database is asked for something, after a stop for some seconds only."""
    global _began
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, _began = _began, time.monotonic()
    try:
        yield
    finally:
        _began = before


def watch_stops() -> None:
    """Has a thread end this process where a stop comes while the main one hangs in such a call."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader,), daemon=True).start()


def _watch(reader: int) -> None:
    while not _STOPS.intersection(came := os.read(reader, 1)):
        if not came:  # nobody is left to write
            return
    stopped = time.monotonic()
    while True:
        time.sleep(_LOOK_SECONDS)
        began = _began
        if began is not None and time.monotonic() - max(began, stopped) > _LONGEST_SECONDS:
            _end()


def _end() -> NoReturn:
    with suppress(OSError):  # of a terminal that is closed
        cursor = _SHOWN_CURSOR if sys.stdout.isatty() else ""
        print(
            f"{cursor}Interrupted, while the database did not answer. What it confirmed is kept; "
            "the same command goes on.",
            file=sys.stderr,
            flush=True,
        )
    os._exit(_EXIT_INTERRUPTED)
