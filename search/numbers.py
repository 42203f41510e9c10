"""Numbers that are given in Python, where no command line has read them."""

from __future__ import annotations

import math

from search.exceptions import InputError


def check_whole(name: str, value: int, *, low: int = 1) -> None:
    """Sees to it that a value is a whole number from `low` up.

    Raises:
        InputError: if it is not.
    """
    # A bool is an int to Python, and not what anybody means by a number.
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise InputError(
            f"{name} must be a whole number (int) from {low} up, but got {value!r}; "
            f"give one, as {name}={max(low, 3)}."
        )


def check_seconds(name: str, value: float) -> None:
    """Sees to it that a value is a time in seconds, above zero and finite.

    Raises:
        InputError: if it is not.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and 0 < value < math.inf):
        raise InputError(
            f"{name} must be a number of seconds above 0, but got {value!r}; give one, as "
            f"{name}=600."
        )
