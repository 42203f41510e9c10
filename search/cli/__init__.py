"""The command `search`: parse, call, print, exit code.

A command has a file of its name, but for these:

- `show.py`: `search best` as well
- `run.py`: `search run`; `run_options.py`: its options; `run_watcher.py`: what it shows while it
  searches, with `view.py`, live or as lines, or `events.py`, as JSON; `progress.py`: how far it
  is; `time_left.py`: how long it still takes; `run_output.py`: what it prints before and after
- `overview.py`: `search` alone

What commands share:

- `options.py`: options; `completion.py`: what the Tab key offers; `grouped_help.py`: `--help`;
  `usage.py`: what is wrong with a command's words
- `output.py`: consoles, figures, signals; `plain_console.py`: what a console prints;
  `wrapping.py`: how wide lines are; `tables.py`: tables that fit, or are lists
- `networks.py`: the file of a user's that builds networks
- `repeats.py`: runs over several seeds, printed
- `jobs.py`: the queue of searches, and how its jobs are shown

Modules that are slow to import (torch, optuna, rich) are imported inside the commands, so that
`--help` answers at once.
"""

from __future__ import annotations

import errno
import io
import sys
from typing import Annotated

import typer

from search.cli import (
    ablate,
    backup,
    baseline,
    cache,
    cancel,
    compare,
    confirm,
    dashboard,
    delete,
    doctor,
    export,
    link,
    logs,
    move,
    pictures,
    predict,
    queue,
    report,
    resume,
    retrain,
    run,
    serve,
    show,
    space,
    stop,
    studies,
    submit,
    watch,
)
from search.cli.output import print_error
from search.cli.overview import print_overview
from search.cli.usage import WordedCommand
from search.exceptions import SearchError, StudyDeletedError
from search.folders import check_working_folder

_EPILOG = (
    "Exit codes: 0 done; 1 something went wrong; 2 bad input, nothing was written; "
    "130 interrupted, the same command goes on."
)

_NOT_FOUND = "Record does not exist."  # what Optuna's storages say
_PLACE_ERRORS = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG)
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_LIMIT_ERRORS = (errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE)
_LIMIT_WORDS = ("can't allocate memory", "can't start new thread")  # of PyTorch, of Python

app = typer.Typer(
    name="search",
    help="Find the best small convolutional network under a hard cap on parameters. "
    "Alone, it shows the next useful step.\n\n"
    "Example: search run --budget 8000 --epochs 15",
    epilog=_EPILOG,
    invoke_without_command=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"search {version('budget-search')}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print and exit."),
    ] = False,
) -> None:
    check_working_folder()
    if context.invoked_subcommand is None:
        print_overview()


for _command in (
    run.run,
    confirm.confirm,
    retrain.retrain,
    pictures.pictures,
    predict.predict,
    export.export,
    report.report,
    ablate.ablate,
    baseline.baseline,
    studies.studies,
    show.best,
    show.show,
    compare.compare,
    delete.delete,
    backup.backup,
    cache.cache,
    space.space,
    dashboard.dashboard,
    serve.serve,
    submit.submit,
    queue.queue,
    watch.watch,
    logs.logs,
    stop.stop,
    resume.resume,
    cancel.cancel,
    move.move,
    link.link,
    doctor.doctor,
):
    app.command(epilog=_EPILOG, cls=WordedCommand)(_command)


def _in_words(error: Exception) -> SearchError | None:
    """What a user is told of an error that is not the program's; None where it is."""
    if (
        isinstance(error, MemoryError)
        or (isinstance(error, OSError) and error.errno in _LIMIT_ERRORS)
        or (isinstance(error, RuntimeError) and any(each in str(error) for each in _LIMIT_WORDS))
    ):
        return SearchError(
            "There must be memory, processes and open files enough, but the system gave no more "
            f"({str(error) or 'no memory'}). Close other programs, allow more where it is limited "
            "('ulimit -a' says), or take fewer --workers and fewer or smaller images."
        )
    if isinstance(error, KeyError):
        if error.args != (_NOT_FOUND,):
            return None
        return StudyDeletedError(
            "A study must stay while it is read, but it was deleted meanwhile; 'search studies' "
            "lists those that are there."
        )
    if isinstance(error, PermissionError):
        return SearchError(
            "What is read and written must be open to this user, but "
            f"{error.filename or 'a file'} is not ({error.strerror}); take another folder, or "
            "have it opened."
        )
    if "shared object" in str(error) or "DLL load failed" in str(error):
        return SearchError(
            "The libraries that this package stands on must be whole, and there must be memory for "
            f"them, but one cannot be loaded ({error}). Allow more memory where it is limited "
            "('ulimit -v' says), or install anew."
        )
    if isinstance(error, OSError) and error.errno in _PLACE_ERRORS and error.filename:
        return SearchError(
            "Files and folders must be where they are read and written, but in their place is "
            f"{error.filename} ({error.strerror}); move it, or name another place."
        )
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        return SearchError(
            "What is written must have room on a disk that works, but "
            f"{error.filename or 'the output'} has not ({error.strerror}). Make room, and give the "
            "same command again."
        )
    return None


def main(arguments: list[str] | None = None) -> None:
    """Runs the command; leaves with its exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name may have what a terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app(args=arguments, prog_name="search")
    except SystemExit as left:
        # Typer makes a Ctrl-C an exit without a word.
        if isinstance(getattr(left.__context__, "__cause__", None), KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    except SearchError as error:
        print_error(error)
        sys.exit(error.exit_code)
    except (ImportError, OSError, KeyError, MemoryError, RuntimeError) as error:
        words = _in_words(error)
        if words is None:
            raise
        print_error(words)
        sys.exit(words.exit_code)
