"""The command `search` as a process of its own; also `python -m search`."""

from __future__ import annotations

import os
import sys


def _leave_working_folder() -> None:
    """Takes the working folder off the path on which modules are looked for.

    `python -m` puts it there first, and PYTHONPATH where a part of it is empty, as in `:/lib`: a
    file of the user's that is called as any module would be run in its place. It stays where this
    package lies in it.
    """
    try:
        folder = os.path.realpath(os.getcwd())  # noqa: PTH109
    except FileNotFoundError:  # it was deleted
        return
    if folder != os.path.realpath(os.path.dirname(os.path.dirname(__file__))):  # noqa: PTH120
        sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry) != folder]


_leave_working_folder()  # before anything else is imported

import atexit  # noqa: E402
import contextlib  # noqa: E402
import signal  # noqa: E402
from typing import NoReturn  # noqa: E402

from search.stops import watch_stops  # noqa: E402


def _open_streams() -> None:
    """Opens those of the three streams that this process was started without.

    Whatever it opened first, a database perhaps, would have their numbers, and what is printed by
    number would land there.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # which takes the lowest number that is free
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115


def _interrupt(number: int, frame: object) -> None:
    """Ends a command as Ctrl-C does, so that what it has left half done is swept."""
    signal.signal(number, signal.SIG_IGN)  # a closed terminal sends it twice
    raise KeyboardInterrupt


def entry_point() -> NoReturn:
    """Runs the command; at its end the process is gone.

    To take the interpreter apart takes a second or two once PyTorch is loaded, of the five in which
    a search must end. What was registered for the end is done all the same.
    """
    code = 0
    _open_streams()
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _interrupt)
    watch_stops()
    try:
        from search.cli import main  # here, as it takes long enough for a Ctrl-C

        main()
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):  # of a terminal that is closed
            print(
                "Interrupted. What was finished is kept; the same command goes on.",
                file=sys.stderr,
            )
        code = 130
    except SystemExit as left:
        if not isinstance(left.code, int | None):
            raise
        code = left.code or 0
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends already, and has only to tidy up
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError):  # nobody may be left to read it
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    entry_point()
