"""A console on which nothing that is printed acts on the terminal but Rich's own styles."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from search.plain_text import printable_lines


class PlainConsole(Console):
    """Rich's console; control characters in what it is given stand as they are written in Python.

    Texts are made safe before they are measured, so that tables stay straight, and whatever else is
    printed when it is drawn.
    """

    def render_str(self, text: str, *args: Any, **kwargs: Any) -> Text:
        return super().render_str(printable_lines(text), *args, **kwargs)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable_lines(text), style, control)
