"""Options that several commands share, and what their texts mean. Imports nothing slow."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import fields
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import typer

from search.cli.completion import complete_devices, complete_studies
from search.cli.wrapping import wrapped
from search.data.names import ImageSize
from search.exceptions import InputError
from search.tuner.options import GROUPS, LARGEST_NUMBER

# The sign between thousands: a comma, an underscore, an apostrophe or a blank of any width.
_GROUPED = re.compile(r"[1-9]\d{0,2}(?=([,_'’ \u00a0\u2009\u202f]))(?:\1\d{3})+")
_SCALED = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([kKM])")
_FACTORS = {"k": 1_000, "K": 1_000, "M": 1_000_000}
_SECONDS_OF_UNITS = (86400, 3600, 60, 1)


class _BadParameter(typer.BadParameter):
    """One whose sentence fits the terminal."""

    def format_message(self) -> str:
        start = "Error: "  # before it stands what prints it
        return wrapped(start + super().format_message(), sys.stderr).removeprefix(start)


def _whole_number(text: str | int, *, low: int) -> int:
    value = text if isinstance(text, int) else _read_whole_number(text)
    if value is None or not low <= value <= LARGEST_NUMBER:
        limit = " to 2^53" if value is not None and value > LARGEST_NUMBER else " up"
        raise _BadParameter(
            f"it must be a whole number from {low}{limit}, as 8000, 8,000 or 8k, but got "
            f"{_shortened(text)!r}."
        )
    return value


def _read_whole_number(text: str) -> int | None:
    """The number in a text such as 8000, 8_000, 8,000, 8 000, 8k or 7.5k; None without one."""
    text = text.strip()
    if _GROUPED.fullmatch(text):
        text = re.sub(r"\D", "", text)
    scaled = _SCALED.fullmatch(text)
    if scaled is not None:
        value = Decimal(scaled[1]) * _FACTORS[scaled[2]]
        return int(value) if value == int(value) else None
    try:
        return None if "_" in text else int(text)
    except ValueError:
        return None


def _shortened(text: str | float) -> str:
    """What was given, as an error may repeat it."""
    given = str(text)
    return given if len(given) <= 60 else f"{given[:50]}… ({len(given)} characters)"


def positive(text: str | int) -> int:
    """A whole number from 1 up, from an option's text (or its default)."""
    return _whole_number(text, low=1)


COUNT: dict[str, Any] = {"parser": positive, "metavar": "N"}  # a whole number from 1 up


def count_option(help: str) -> Any:
    """An option that takes a whole number from 1 up."""
    return typer.Option(help=help, **COUNT)


def not_negative(text: str | int) -> int:
    """A whole number from 0 up, from an option's text (or its default)."""
    return _whole_number(text, low=0)


def _image_size(text: str | ImageSize) -> ImageSize:
    """Height and width, from an option's text (or what that was read as)."""
    if not isinstance(text, str):
        return text
    sides = [_read_whole_number(side) for side in re.split("[xX×]", text)]
    match sides:
        case [int(side)]:
            return side, side
        case [int(height), int(width)]:
            return height, width
    raise _BadParameter(
        "it must be a whole number of pixels, as 32, or height and width, as 20x60, but got "
        f"{_shortened(text)!r}."
    )


IMAGE_SIZE: dict[str, Any] = {"parser": _image_size, "metavar": "SIZE"}


def percentage(text: str | float) -> float:
    """A number of percent, from an option's text such as 99.4 or 99.4% (or its default)."""
    return decimal(re.sub(r"\s*%$", "", text) if isinstance(text, str) else text)


def decimal(text: str | float) -> float:
    """A finite number, from an option's text (or its default)."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _BadParameter(f"it must be a number, as 0.95 or 99.4, but got {_shortened(text)!r}.")
    return value


_FIELDS = {field.name: (field, group) for group in GROUPS for field in fields(group)}


def field_option(name: str, *flags: str, form: str = "", **more: Any) -> Any:
    """The option that gives a field of `SearchRequest`: with its text, in its group.

    Args:
        flags: as it is typed, where that is not the field's name.
        form: how a value is written, behind the text.
        more: what Typer takes besides.
    """
    field, group = _FIELDS[name]
    text, words = field.metadata["text"], field.metadata["default_words"]
    if form:
        text = f"{text.removesuffix('.')}, {form}."
    if words:
        text += f"  [default: {words}]"
    assert group.__doc__ is not None
    panel = group.__doc__.removesuffix(".")
    return typer.Option(*flags, help=text, rich_help_panel=panel, **more)


SHARED: dict[str, Any] = {  # options of other commands, too
    "storage": field_option("storage", envvar="SEARCH_STORAGE"),
    "data_dir": field_option("data_dir", envvar="SEARCH_DATA_DIR"),
    "artifacts": field_option("artifacts", envvar="SEARCH_ARTIFACTS"),
    "device": field_option("device", autocompletion=complete_devices),
    "n_workers": field_option("n_workers", "--workers", **COUNT),
}
SERVER = typer.Option(
    envvar="SEARCH_SERVER",
    metavar="URL",
    help="A server, on another machine perhaps; SEARCH_TOKEN has its token.  "
    "[default: the database's]",
)
Server = Annotated[str | None, SERVER]
Storage = Annotated[str, SHARED["storage"]]
DataDir = Annotated[Path | None, SHARED["data_dir"]]
Artifacts = Annotated[Path | None, SHARED["artifacts"]]
Device = Annotated[str, SHARED["device"]]
Workers = Annotated[int | None, SHARED["n_workers"]]
StudyName = Annotated[
    str | None,
    typer.Option(
        help="Name of the study.  [default: the one used last]", autocompletion=complete_studies
    ),
]
Seeds = Annotated[
    int,
    count_option("How many times to train, each a seed of its own."),
]
NetworkFile = Annotated[
    Path | None,
    typer.Option(
        "--network",
        metavar="FILE.py",
        help="Your file that builds the networks, where one does. It is run.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

_DURATION = re.compile(
    "".join(
        rf"(?:(\d{{1,9}}(?:\.\d{{1,9}})?)\s*{unit}\s*)?" for unit in ("d", "h", "m(?:in)?", "s")
    ),
    re.IGNORECASE,
)


def duration(option: str) -> dict[str, Any]:
    """What Typer is told of an option that takes a time such as `90s`, `1h30m` or `2d`."""

    def seconds(text: str | float) -> float:
        if not isinstance(text, str):
            return text  # its default
        match = _DURATION.fullmatch(text.strip())
        parts = () if match is None else zip(_SECONDS_OF_UNITS, match.groups(), strict=True)
        total = sum(unit * float(part or 0) for unit, part in parts)
        if total == 0:
            raise InputError(
                f"{option} must be a time above zero, as 90s, 30m, 2h, 1h30m or 1d, but got "
                f"{_shortened(text)!r}."
            )
        return total

    return {"parser": seconds, "metavar": "TIME"}
