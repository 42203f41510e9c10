"""Text broken between words where a terminal shows it, and left as it is elsewhere."""

from __future__ import annotations

import os
import textwrap
from typing import IO

_USUAL_WIDTH = 80  # columns, of a terminal that does not say how many it has


def wrapped(text: str, stream: IO[str]) -> str:
    """The text as `stream` is to have it; longer words, as paths, stay whole."""
    if not stream.isatty():
        return text
    width = os.get_terminal_size(stream.fileno()).columns or _USUAL_WIDTH
    wrapper = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False)
    return "\n".join("\n".join(wrapper.wrap(line)) for line in text.split("\n"))
