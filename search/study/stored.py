"""Numbers as JSON in a database may have them, where anybody writes: of any kind and length."""

from __future__ import annotations

import math
from typing import Any

_BEYOND = 2**63  # what is counted or measured stays below it, and a float can hold it


def is_count(value: Any, least: int = 0) -> bool:
    """Whether that is a whole number, from `least` up, and none of hundreds of digits."""
    return type(value) is int and least <= value < _BEYOND


def is_number(value: Any) -> bool:
    """Whether that is a finite number, and no whole one of hundreds of digits."""
    if type(value) is int:
        return abs(value) < _BEYOND
    return type(value) is float and math.isfinite(value)


def is_measure(value: Any) -> bool:
    """Whether that is a number as seconds are: 0 or more, and within what many add up to."""
    return is_number(value) and 0 <= value < _BEYOND
