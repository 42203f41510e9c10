"""The command `search` as a process of its own; also `python -m search`."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from typing import NoReturn


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


def entry_point() -> NoReturn:
    """Runs the command; at its end the process is gone.

    To take the interpreter apart takes a second or two once PyTorch is loaded, of the five in which
    a search must end. What was registered for the end is done all the same.
    """
    code = 0
    _open_streams()
    try:
        from search.cli import main  # here, as it takes long enough for a Ctrl-C

        main()
    except KeyboardInterrupt:
        print("Interrupted. What was finished is kept; the same command goes on.", file=sys.stderr)
        code = 130
    except SystemExit as left:
        if not isinstance(left.code, int | None):
            raise
        code = left.code or 0
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError):  # nobody may be left to read it
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    entry_point()
