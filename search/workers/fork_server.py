"""How worker processes come into being: forked from a server that has imported PyTorch once.

Importing PyTorch takes a process seconds. So one server process imports it while the search loads
its data, and each worker is forked from it in milliseconds, sharing its memory. The server has no
threads and never touches a GPU, which makes forking safe. Where there is no fork (Windows), each
worker imports for itself. Imports nothing slow.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.context import ForkServerContext, SpawnContext

from search.exceptions import InputError
from search.folders import check_working_folder, python_settings

_PRELOADED = ["search.workers.local_pool"]
_program_lock = threading.Lock()


def worker_context() -> ForkServerContext | SpawnContext:
    """The multiprocessing context from which workers are made."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


def start_server() -> None:
    """Starts the server before the first worker is needed, so that it imports meanwhile.

    Raises:
        InputError: if there is no temporary folder, where processes find each other, or its path
            is too long; if the working folder is gone; or if this process may start no other.
    """
    check_working_folder()
    if multiprocessing.current_process().daemon:
        raise InputError(
            "A process that trains must be one that may start others, but this one is daemonic, as "
            "those of multiprocessing.Pool are; use concurrent.futures.ProcessPoolExecutor."
        )
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        raise InputError(
            "A temporary folder must be writable and have room, but neither TMPDIR nor /tmp, "
            "/var/tmp and this folder do; make room, or set TMPDIR to a folder that has it."
        ) from error
    if worker_context().get_start_method() == "forkserver":
        from multiprocessing.forkserver import ensure_running

        atexit.unregister(_end_server)
        atexit.register(_end_server)
        try:
            with without_program(), without_working_folder(), _deaf_to_stops():
                ensure_running()
        except OSError as error:
            if "AF_UNIX path too long" not in str(error):
                raise
            raise InputError(
                "The path of the temporary folder must have fewer than some 70 characters, as "
                f"processes find each other there, but it is {tempfile.gettempdir()}; set TMPDIR "
                "to a shorter one."
            ) from error


@contextmanager
def _deaf_to_stops() -> Iterator[None]:
    """Processes that are started meanwhile are deaf to stops; this one hears them afterwards.

    A stop goes to all processes, but without their server nobody hears which worker still runs. It
    inherits what is blocked here, and ends with the process that it serves.
    """
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [getattr(signal, name) for name in names]
    resource_tracker.ensure_running()  # which would unblock them in the midst
    came: list[int] = []
    # Other threads block nothing, and the half of a start is not to be left. Where it is another
    # thread that starts, the main one may hear a stop: it alone does, and leaves no start.
    is_main = threading.current_thread() is threading.main_thread()
    handled = numbers if is_main else []
    previous = {n: signal.signal(n, lambda number, _frame: came.append(number)) for n in handled}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in previous.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


@contextmanager
def without_program() -> Iterator[None]:
    """Processes that are started meanwhile know nothing of the program that starts them.

    What is started would run that program again, but for what stands below its main guard: one
    that has none would search once more in each worker, and one on standard input cannot be found
    at all. Workers need nothing of it. Of several threads that start some, one does at a time.
    """
    with _program_lock:
        program = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = program


@contextmanager
def without_working_folder() -> Iterator[None]:
    """Pythons that are started meanwhile have the working folder on no path of theirs."""
    changed = python_settings()
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _end_server() -> None:
    """Ends the server with this process; by itself it would first import all, for seconds."""
    from multiprocessing.forkserver import _forkserver

    pid = getattr(_forkserver, "_forkserver_pid", None)
    if pid is not None:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)  # who waits for this process may look for what it has left
