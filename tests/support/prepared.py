"""Python in processes of their own that need not import PyTorch first.

    python -m tests.support.prepared SOCKET

To import PyTorch, Optuna and SciPy takes a process seconds, and tests start many. So one process
has imported all that a search does, and each `python -m search` is forked from it, at the head of a
session of its own, with its own folder, environment and output. What such a process would start
anew as `python -c`, the server of its workers, is forked from it just so. Where the new process
itself is tested, what it imports or what is done to it before it is Python, this is not for it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, NoReturn

ROOT = Path(__file__).parents[2]
HANG_SECONDS = 600.0  # more than anything takes on any machine: what takes longer hangs
_STATUS = struct.Struct("i")
_STDIN, _STDOUT, _STDERR = range(3)
# What a search imports, and what it imports only when it comes to it.
_PRELOADED = (
    "search.cli.run_watcher",
    "search.report.figures",
    "search.tuner.run",
    "search.workers.local_pool",
    "alembic.command",
    "alembic.config",
    "alembic.migration",
    "pydantic.fields",
    "pygments.lexers",
    "sklearn.datasets",
)


class PreparedProcess:
    """A process that runs, with what tests need of `subprocess.Popen`.

    Args:
        status: what tells its process identifier and, once it has ended, its exit code.
        stdout, stderr: what it prints, as it comes; one stream where `stderr` is None.
    """

    def __init__(self, status: int, stdout: IO[str], stderr: IO[str] | None) -> None:
        self._status = status
        self.stdout = stdout
        self.stderr = stderr
        self.pid = self._read_status()
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code, or minus the signal that ended it; None while it runs."""
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self.returncode = self._read_status()
            os.close(self._status)
        return self.returncode

    def wait(self, timeout: float = HANG_SECONDS) -> int:
        """Its exit code, once it has ended.

        Raises:
            subprocess.TimeoutExpired: if it has not in time.
        """
        if self.returncode is None:
            select.select([self._status], [], [], timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired("search", timeout)
        return code

    def communicate(self) -> tuple[str, str]:
        """What it has yet to print, once nobody is left that could, and it has ended.

        Raises:
            subprocess.TimeoutExpired: if it hangs.
        """
        streams = [self.stdout] if self.stderr is None else [self.stdout, self.stderr]
        texts = [""] * len(streams)

        def read(number: int) -> None:
            with streams[number] as stream:
                texts[number] = stream.read()

        readers = [threading.Thread(target=read, args=(n,), daemon=True) for n in range(len(texts))]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(HANG_SECONDS)
            if reader.is_alive():
                raise subprocess.TimeoutExpired("search", HANG_SECONDS)
        self.wait()
        return texts[0], "".join(texts[1:])

    def send_signal(self, number: signal.Signals) -> None:
        """Sends a signal to its process alone, where that has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _read_status(self) -> int:
        (status,) = _STATUS.unpack(os.read(self._status, _STATUS.size))
        return int(status)


class Preparation:
    """The process from which others are forked."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.prepared", str(theirs.fileno())],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # a Ctrl-C is for pytest alone
            )

    def start(
        self,
        words: Sequence[str],
        *,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
        terminal: str | None = None,
        output: int | None = None,
        is_merged: bool = False,
    ) -> PreparedProcess:
        """Starts `python` with these words, of which the first is -m or -c.

        Args:
            folder: in which it runs, by default that of this process.
            environment: by default that of this process.
            terminal: the path of one that it is to have, for its input and output.
            output: the descriptor of a file that all it prints goes to, in place of its streams.
            is_merged: whether errors go where output goes.
        """
        status, status_theirs = os.pipe()
        out, out_theirs = os.pipe()
        err, err_theirs = (out, out_theirs) if is_merged else os.pipe()
        printed = [out_theirs, err_theirs] if output is None else [output, output]
        inherited = os.environ if environment is None else environment
        order = json.dumps(
            [list(words), str(folder or Path.cwd()), dict(inherited), terminal]
        ).encode()
        head = struct.pack("i", len(order))
        socket.send_fds(self._socket, [head, order], [status_theirs, *printed])
        for fd in {status_theirs, out_theirs, err_theirs}:
            os.close(fd)
        return PreparedProcess(status, os.fdopen(out), None if is_merged else os.fdopen(err))


@functools.cache
def preparation() -> Preparation:
    """The one of this process; it ends with it."""
    return Preparation()


def serve(connection: socket.socket) -> None:
    """Forks a process for each order, until nobody is left to send one."""
    _prepare()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how those below ended
    while True:
        size, fds, _, _ = socket.recv_fds(connection, 4, 3)
        if not size:
            return
        order = connection.recv(struct.unpack("i", size)[0], socket.MSG_WAITALL)
        if os.fork() == 0:
            connection.close()
            _watch(order, *fds)
        for fd in set(fds):
            os.close(fd)


def _prepare() -> None:
    """Imports what commands will, and has found out what a process finds out once."""
    for name in _PRELOADED:
        importlib.import_module(name)
    from search.storage.open import opened_storage

    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            with opened_storage(f"sqlite:///{folder}/prepared.db", create=True):
                pass
    tempfile.tempdir = None  # of which the environment says where it is


def _watch(order: bytes, status: int, out: int, err: int) -> None:
    """Runs a process below this one, and tells when it began and how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        os.setsid()
        os.write(status, _STATUS.pack(os.getpid()))
        _run(order, out, err)
    for fd in {out, err}:
        os.close(fd)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.write(status, _STATUS.pack(code))
    os._exit(0)


def _run(order: bytes, out: int, err: int) -> None:
    """What a new process would do that is `python` with the words of the order."""
    import multiprocessing.util

    import numpy as np
    import torch

    words, folder, environment, terminal = json.loads(order)
    if terminal is not None:  # the first that the leader of a session opens is the session's own
        out = err = os.open(terminal, os.O_RDWR)
        os.dup2(out, _STDIN)
    os.dup2(out, _STDOUT)
    os.dup2(err, _STDERR)
    os.closerange(_STDERR + 1, os.sysconf("SC_OPEN_MAX"))
    sys.stdin, sys.stdout = os.fdopen(_STDIN), os.fdopen(_STDOUT, "w")
    sys.stderr = os.fdopen(_STDERR, "w", buffering=1)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[0] = folder
    np.random.seed()  # a new process has random numbers of its own
    torch.seed()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    multiprocessing.util.spawnv_passfds = _fork_python  # type: ignore[assignment]
    _execute(words)


def _execute(words: Sequence[str]) -> NoReturn:
    """Runs what stands behind -m or -c, and ends this process as Python would."""
    code = 1
    try:
        option, what, *arguments = words
        sys.argv = [option, *arguments]
        if option == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(what, {"__name__": "__main__"})
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        traceback.print_exc()
    with contextlib.suppress(OSError, ValueError):  # nobody reads them, or they are closed
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _fork_python(_path: object, words: Sequence[Any], fds: Sequence[int]) -> int:
    """Runs `python -c CODE` in a fork of this process, which has imported what it will."""
    child = os.fork()
    if child:
        return child
    kept = sorted({_STDIN, _STDOUT, _STDERR, *fds})
    for low, high in pairwise([*kept, os.sysconf("SC_OPEN_MAX")]):
        os.closerange(low + 1, high)
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    _forget_server()
    _execute(words[-2:])


def _forget_server() -> None:
    """A fork holds a lock of multiprocessing's that its parent held, and nobody gives back."""
    from multiprocessing import forkserver

    server: Any = forkserver._forkserver
    server.__init__()


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
