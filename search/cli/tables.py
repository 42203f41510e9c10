"""Tables none of whose words are cut, however narrow the terminal is."""

from __future__ import annotations

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

_NARROWEST_NAME = 16  # columns, of a name that may be folded anywhere


class FittedTable(Table):
    """A table that breaks its headings and texts between words, and no figure.

    Where that is too wide as well, each row is a list of its own. (Rich cuts words and figures, and
    leaves out the last columns.)

    Args:
        gap: blanks between two columns.
    """

    def __init__(self, *, gap: int = 2) -> None:
        super().__init__(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="bold")
        self._gap = gap

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = options.max_width - self._gap * (len(self.columns) - 1)
        widths = self._widths(console, options.update_width(100 * options.max_width), room)
        if widths is None:
            yield from self._lists(console)
            return
        for column, width in zip(self.columns, widths, strict=True):
            column.width = width
        yield from super().__rich_console__(console, options)

    def _widths(self, console: Console, options: ConsoleOptions, room: int) -> list[int] | None:
        """Of each column; None where there is no room for all of them."""
        measured = [_measure(console, options, column) for column in self.columns]
        widths = [each.minimum for each in measured]
        rest = room - sum(widths)
        if rest < 0:
            return None
        # Who lacks least is given it first, so that as few as can be are broken.
        lacking = sorted(range(len(measured)), key=lambda i: measured[i].span)
        while lacking and measured[lacking[0]].span <= rest:
            whole = lacking.pop(0)
            widths[whole] = measured[whole].maximum
            rest -= measured[whole].span
        for index in lacking:
            widths[index] += rest // len(lacking)
        return widths

    def _lists(self, console: Console) -> RenderResult:
        rows = zip(*(column.cells for column in self.columns), strict=True)
        for number, (row, cells) in enumerate(zip(self.rows, rows, strict=True)):
            if number:
                yield Text("")
            for column, cell in zip(self.columns, cells, strict=True):
                if cell:
                    line = Text.assemble((_heading(console, column), "bold"), "  ")
                    yield line.append_text(_text(console, cell, style=str(row.style or "")))


def _measure(console: Console, options: ConsoleOptions, column: Column) -> Measurement:
    """The fewest columns of the terminal that it takes, and those without a break."""
    heading = Measurement.get(console, options, column.header)
    cells = [Measurement.get(console, options, cell) for cell in column.cells]
    most = max([heading.maximum, *(cell.maximum for cell in cells)])
    if column.no_wrap:
        least = most
    elif column.justify == "right":  # figures
        least = max([heading.minimum, *(cell.maximum for cell in cells)])
    elif column.overflow == "fold":
        least = max(heading.minimum, _NARROWEST_NAME)
    else:
        least = max([heading.minimum, *(cell.minimum for cell in cells)])
    return Measurement(min(least, most), most)


def _heading(console: Console, column: Column) -> str:
    return _text(console, column.header).plain.replace("\n", " ")


def _text(console: Console, content: RenderableType, style: str = "") -> Text:
    text = content if isinstance(content, Text) else console.render_str(str(content))
    return Text.assemble((text.plain, style or str(text.style)))
