"""Figures, commands and near names as people read them."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable

_MANY_DIGITS = 1e5  # from here on a figure is written with an exponent


def counted(n: int, noun: str) -> str:
    """A count with its noun: `1 epoch`, `15 epochs`."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def seeds_words(n_seeds: int, n_parts: int) -> str:
    """What a mean is over: `5 fresh seeds and 5 parts of the data`; of one part, the seeds."""
    parts = f" and {n_parts} parts of the data" if n_parts > 1 else ""
    return f"{counted(n_seeds, 'fresh seed')}{parts}"


def percent(share: float | None) -> str:
    """A share of 1: `99.42 %`."""
    return "–" if share is None else f"{100 * share:.2f} %"


def figure(value: float | None, decimals: int) -> str:
    """A number of its column's width: `0.0512`, and `1.00e+20` or `3.00e-09` of others.

    What was not finite is stored as null.
    """
    if value is None or not math.isfinite(value):
        return "not finite"
    is_shown = value == 0 or 0.5 / 10**decimals <= abs(value) < _MANY_DIGITS
    return f"{value:.{decimals}f}" if is_shown else f"{value:.2e}"


def thousands(count: int | None) -> str:
    """A count: `7,918`."""
    return "–" if count is None else f"{count:,}"


def meant(name: str, names: Iterable[str]) -> str:
    """What somebody may have meant by a name that there is not: the end of a sentence."""
    spelt = {each.casefold(): each for each in names}
    close = difflib.get_close_matches(name.casefold(), spelt, n=1)
    return f"; did you mean {spelt[close[0]]}?" if close else "."


def seen_words(n_looks: int) -> str:
    """How often a test set was seen, as a part of a sentence."""
    return (
        "once" if n_looks == 1 else f"{n_looks:,} times, once for each seed that was scored on it"
    )


def install_words(extra: str) -> str:
    """How to install what an optional extra of this package needs."""
    return f"uv sync --inexact --extra {extra}, or pip install '.[{extra}]'"


def duration(seconds: float) -> str:
    """Seconds: `45 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
