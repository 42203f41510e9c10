"""The command `search` as a process of its own; also `python -m search`."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from typing import NoReturn


def entry_point() -> NoReturn:
    """Runs the command; at its end the process is gone.

    To take the interpreter apart takes a second or two once PyTorch is loaded, of the five in which
    a search must end. What was registered for the end is done all the same.
    """
    code = 0
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
