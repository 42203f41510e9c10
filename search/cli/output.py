"""What commands share: consoles, how figures are shown, signals. Imports nothing slow."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import typer

from search.cli.wrapping import width_of, wrapped
from search.folders import DATABASE_URL
from search.plain_text import printable_json, printable_lines, shell_line

if TYPE_CHECKING:
    from rich.console import Console

    from search.storage.retry import Waiting
    from search.study.next_steps import NextStep

EXIT_INTERRUPTED = 130  # exit code
HINT = "Ctrl-C stops, and is safe"  # while a search or a race runs
_OUTAGE_SECONDS = 300.0  # that a database server may be away


class _WithoutTrailingBlanks:
    """A stream to which Rich writes tables, whose lines it fills up to the longest one."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(re.sub(" +\n", "\n", text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def make_console(*, to_stderr: bool = False, quiet: bool = False) -> Console:
    """A console that prints what it is given: names and paths may look like Rich's markup.

    Whatever is printed, in tables as well, nothing in it acts on the terminal.

    Args:
        to_stderr: for what a person may read beside the JSON that a program reads.
        quiet: prints nothing at all.
    """
    from search.cli.plain_console import PlainConsole

    stream = sys.stderr if to_stderr else sys.stdout
    if stream.isatty():
        return PlainConsole(highlight=False, markup=False, stderr=to_stderr, quiet=quiet)
    piped: Any = _WithoutTrailingBlanks(stream)
    return PlainConsole(
        highlight=False,
        markup=False,
        width=width_of(stream),
        file=piped,
        stderr=to_stderr,
        quiet=quiet,
    )


def shown_waiting(
    console: Console, should_stop: Callable[[], bool] = lambda: False, *, from_start: bool = False
) -> Waiting:
    """How a command that writes waits for a database server: with a line on the screen.

    Args:
        from_start: as that of `Waiting`.
    """
    from search.storage.retry import Waiting

    def show(text: str) -> None:
        console.print(text, style="yellow")

    return Waiting(_OUTAGE_SECONDS, show, should_stop, from_start)


def next_lines(
    steps: Iterable[NextStep],
    width: int,
    *,
    storage: str,
    data: Sequence[str] = (),
    artifacts: Sequence[str] = (),
) -> Iterator[str]:
    """What to do next: commands, each with what it is good for, whole so that they can be copied.

    Args:
        width: of what they are printed on, in columns.
        data: the option that finds the data set, as `data_words` gives it.
        artifacts: the one that finds the artifacts, as `artifact_words` gives it.
    """
    from rich.cells import cell_len  # a Chinese character is two columns wide

    where = storage_words(storage)
    is_password_hidden = False
    yield "\nNext:"
    for step in steps:
        words = [*step.words, *(where if step.reads_database else ())]
        words += artifacts if step.reads_artifacts else ()
        command = shown_command([*words, *(data if step.reads_data else ())])
        is_password_hidden |= "***" in command
        line = f"  {command}  # {step.purpose}"
        yield from (line,) if cell_len(line) <= width else (f"  # {step.purpose}", f"  {command}")
    if is_password_hidden:
        yield "*** stands for the password; put the whole URL into SEARCH_STORAGE instead."


def echo(text: str) -> None:
    """Prints sentences on standard output, without Rich, which takes a while to import."""
    typer.echo(wrapped(printable_lines(text), sys.stdout))


def echo_json(values: object, **how: Any) -> None:
    """Prints JSON on standard output.

    Args:
        how: what `json.dumps` takes besides.
    """
    typer.echo(printable_json(json.dumps(values, **how)))


@contextmanager
def told_end(*, as_json: bool) -> Iterator[None]:
    """Prints with which exit code a command ends, as the last of its events.

    A program that reads them knows by it that they are whole: of a command that was killed there is
    none.
    """
    code, error, is_temporary = 0, None, False
    try:
        yield
    except typer.Exit as left:
        code = left.exit_code
        raise
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
        raise
    except BaseException as raised:
        code, error = getattr(raised, "exit_code", 1), str(raised) or type(raised).__name__
        is_temporary = getattr(raised, "is_temporary", False)
        raise
    finally:
        if as_json:
            with suppress(OSError):  # nobody may be left to read it
                echo_json(
                    {"event": "end", "exit_code": code, "error": error, "temporary": is_temporary}
                )


def print_error(error: object) -> None:
    """Prints an error on standard error."""
    typer.echo(wrapped(printable_lines(f"Error: {error}"), sys.stderr), err=True)


def shown_command(words: list[str]) -> str:
    """A command of ours as a user types it: behind `uv run`, where this one came by that."""
    prefix = ["uv", "run"] if "UV" in os.environ else []
    return shell_line([*prefix, "search", *words])


def same_command(*more: str) -> str:
    """The command as it was given, but for a password, which belongs on no screen.

    Args:
        more: words to be given besides.
    """
    from search.exceptions import StorageError
    from search.storage.urls import shown_url

    words = []
    for word in sys.argv[1:]:
        value = word.removeprefix("--storage=")
        option = word[: len(word) - len(value)]
        try:
            words.append(option + shown_url(value) if "://" in value else word)
        except StorageError:  # some other option's text
            words.append(word)
    return shown_command([*words, *more])


def how_to_go_on() -> str:
    """The command that goes on with a search: the same, or that of the queue that started it."""
    job = os.environ.get("SEARCH_JOB")
    if job is None:
        return f"The same command goes on:\n  {same_command()}"
    words = ["resume", job, *storage_words(os.environ.get("SEARCH_STORAGE", DATABASE_URL))]
    return f"Its queue goes on:\n  {shown_command(words)}"


def storage_words(storage: str) -> list[str]:
    """The option that a next command needs to find its storage; without a password."""
    from search.storage.urls import shown_url

    # A search of a queue has it from its server; who reads its log has not.
    named = None if "SEARCH_JOB" in os.environ else os.environ.get("SEARCH_STORAGE")
    if storage == (named or DATABASE_URL):
        return []
    return ["--storage", shown_url(storage)]


def data_words(dataset: str, folder: Path | None) -> list[str]:
    """The option that a next command needs to find a data set's files."""
    from search.data.names import SPLITS

    has_files = dataset in SPLITS and dataset != "digits"
    named = os.environ.get("SEARCH_DATA_DIR")
    if folder is None or not has_files or (named and folder == Path(named)):
        return []
    return ["--data-dir", str(folder)]


def artifact_words(folder: Path | None) -> list[str]:
    """The option that a next command needs to find the artifacts, where a search named it."""
    named = os.environ.get("SEARCH_ARTIFACTS")
    if folder is None or (named and folder == Path(named)):
        return []
    return ["--artifacts", str(folder)]


def _heeded() -> dict[int, Any]:
    """The signals that stop this process, each with what handles it now.

    Without a closed terminal or a stop that whoever started this has it ignore, as `nohup` does.
    Ctrl-C is heard also in the background of a shell, which has it ignored.
    """
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    handlers = {number: signal.getsignal(number) for number in numbers}
    return {
        number: handler
        for number, handler in handlers.items()
        if number == signal.SIGINT or handler is not signal.SIG_IGN
    }


@contextmanager
def heard_interrupts() -> Iterator[None]:
    """Sees that a stop ends at once what takes long before `stop_signals` are listened to.

    Python drops an exception that a signal raises in a weak reference's callback, of which imports
    have many, and goes on as if nobody had stopped it; compiled modules make another error of it.
    """
    came = False

    def stop(number: int, frame: object) -> None:
        nonlocal came
        came = True
        raise KeyboardInterrupt

    previous = _heeded()
    for number in previous:
        signal.signal(number, stop)
    try:
        yield
    except Exception as error:
        if came:
            raise KeyboardInterrupt from error
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Turns Ctrl-C, a stop by the system and a closed terminal into an answer to a question.

    Ctrl-C behind another stop raises KeyboardInterrupt: whoever asks may be waiting for something.
    """
    stopped = False

    def stop(number: int, frame: object) -> None:
        nonlocal stopped
        if stopped and number == signal.SIGINT:
            raise KeyboardInterrupt
        stopped = True

    previous = _heeded()
    for number in previous:
        signal.signal(number, stop)
    try:
        yield lambda: stopped
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
