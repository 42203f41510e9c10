"""Pages of lists: each ends with a cursor, by which the next one is asked for."""

from __future__ import annotations

import base64
import binascii
import math
from typing import Annotated, Any

from fastapi import Query

from search.exceptions import InputError

_N_DIGITS = 19  # that a database's numbers may have

Json = dict[str, Any]
Limit = Annotated[int, Query(ge=1, le=1000, description="How many at most.")]
Cursor = Annotated[
    str | None,
    Query(max_length=1000, description="That the page before ended with; none for the first."),
]


def page(name: str, items: list[Any], limit: int, last: str | None) -> dict[str, Any]:
    """A page of a list.

    Args:
        name: of what is listed.
        items: one more than the limit, where there are more.
        last: what tells the last item of the page.
    """
    has_more = len(items) > limit and last is not None
    return {name: items[:limit], "next_cursor": write_cursor(str(last)) if has_more else None}


def write_cursor(text: str) -> str:
    """What tells an item, as a cursor: clients make nothing of it."""
    return base64.urlsafe_b64encode(text.encode()).decode()


def read_cursor(cursor: str | None) -> str | None:
    """What tells the item that a cursor is about.

    Raises:
        InputError: if it is none.
    """
    if cursor is None:
        return None
    try:
        return base64.urlsafe_b64decode(cursor.encode()).decode()
    except (binascii.Error, ValueError) as error:
        raise InputError(
            f"A cursor must be one that a page ended with, but got {cursor[:60]!r}; leave it out "
            "for the first page."
        ) from error


def read_number(cursor: str | None) -> int | None:
    """The number that a cursor of a list by number is about.

    Raises:
        InputError: if it is none.
    """
    text = read_cursor(cursor)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < _N_DIGITS):
        raise InputError(
            f"A cursor must be one that a page of this list ended with, but got {text[:60]!r}; "
            "leave it out for the first page."
        )
    return int(text)


def finite(values: Json) -> Json:
    """Values of which a number that is not finite, which JSON does not know, is null."""
    return {key: _finite(value) for key, value in values.items()}


def _finite(values: Any) -> Any:
    match values:
        case dict():
            return {str(key): _finite(value) for key, value in values.items()}
        case list() | tuple():
            return [_finite(value) for value in values]
        case float():
            return values if math.isfinite(values) else None
    return values
