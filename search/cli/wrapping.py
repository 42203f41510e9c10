"""How wide what is printed may be, and text broken between words where a terminal shows it."""

from __future__ import annotations

import os
import textwrap
from typing import IO

_USUAL_WIDTH = 80  # columns, of a terminal that does not say how many it has
_PIPED_WIDTH = 10_000  # columns: a pipe has no edge, at which a table would have to break its words


def width_of(stream: IO[str]) -> int:
    """Columns of what shows a stream."""
    if not stream.isatty():
        return _PIPED_WIDTH
    return os.get_terminal_size(stream.fileno()).columns or _USUAL_WIDTH


def wrapped(text: str, stream: IO[str]) -> str:
    """The text as `stream` is to have it; longer words, as paths, stay whole."""
    if not stream.isatty():
        return text
    wrapper = textwrap.TextWrapper(width_of(stream), break_long_words=False, break_on_hyphens=False)
    return "\n".join("\n".join(wrapper.wrap(line)) for line in text.split("\n"))
