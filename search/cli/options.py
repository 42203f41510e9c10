"""Options that several commands share, and what their texts mean. Imports nothing slow."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from search.cli.completion import complete_devices, complete_studies
from search.cli.wrapping import wrapped
from search.exceptions import InputError

# search.storage.DEFAULT_URL, which `--help` is too quick to import.
DEFAULT_STORAGE = "sqlite:///studies.db"


class _BadParameter(typer.BadParameter):
    """One whose sentence fits the terminal."""

    def format_message(self) -> str:
        start = "Error: "  # before it stands what prints it
        return wrapped(start + super().format_message(), sys.stderr).removeprefix(start)


def _whole_number(text: str | int, *, low: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = None
    if value is None or value < low:
        raise _BadParameter(f"it must be a whole number from {low} up, but got {text!r}.")
    return value


def positive(text: str | int) -> int:
    """A whole number from 1 up, from an option's text (or its default)."""
    return _whole_number(text, low=1)


def count_option(help: str) -> Any:
    """An option that takes a whole number from 1 up."""
    return typer.Option(parser=positive, metavar="N", help=help)


def not_negative(text: str | int) -> int:
    """A whole number from 0 up, from an option's text (or its default)."""
    return _whole_number(text, low=0)


def decimal(text: str | float) -> float:
    """A finite number, from an option's text (or its default)."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _BadParameter(f"it must be a number, but got {text!r}.")
    return value


Storage = Annotated[
    str, typer.Option(envvar="SEARCH_STORAGE", help="URL of the database that keeps the trials.")
]
DataDir = Annotated[
    Path | None,
    typer.Option(envvar="SEARCH_DATA_DIR", help="Folder of the data sets.  [default: user cache]"),
]
Artifacts = Annotated[
    Path | None,
    typer.Option(
        envvar="SEARCH_ARTIFACTS",
        help="Folder of the best trials' curves and weights.  [default: beside a SQLite database]",
    ),
]
StudyName = Annotated[
    str | None,
    typer.Option(
        help="Name of the study.  [default: the one used last]", autocompletion=complete_studies
    ),
]
Device = Annotated[
    str,
    typer.Option(
        help="auto, cpu or cuda; auto takes a GPU if there is one.", autocompletion=complete_devices
    ),
]
Workers = Annotated[
    int | None,
    count_option("Training processes, one thread each.  [default: one per core]"),
]
Seeds = Annotated[
    int,
    count_option("How many times to train, each a seed of its own."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def parse_duration(text: str, *, option: str) -> float:
    """Seconds in a text such as `90s`, `30m`, `2h` or `1h30m`.

    Raises:
        InputError: if it is none, or zero.
    """
    match = _DURATION.fullmatch(text)
    hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    total = 3600 * hours + 60 * minutes + seconds
    if total == 0:
        raise InputError(
            f"{option} must be a time above zero, as 90s, 30m, 2h or 1h30m, but got {text!r}."
        )
    return float(total)
