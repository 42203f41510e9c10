"""What the pictures of a report share: plain axes, accuracies on an axis of errors, legends."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from search.report.facts import ACCURACY_MARKS, Report
from search.report.palette import FAINT, INK, MUTED

WIDE, NARROW = 7.2, 3.7  # inches: a page's column, and a telephone's
TEXT = 9  # points
_FITTING = 30  # characters of a legend that fit into one line of a narrow picture


def plain_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of so many inches, and its axes."""
    figure = Figure((width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    make_plain(axes)
    return figure, axes


def make_plain(axes: Axes) -> None:
    """An axis without a frame, whose marks are quiet."""
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    axes.tick_params(length=0, color=MUTED, labelsize=TEXT, labelcolor=MUTED)
    axes.set_axisbelow(True)


def add_legend(axes: Axes, handles: list[Line2D], width: float) -> None:
    """A legend above the axes, where no line can be."""
    n_characters = sum(len(str(handle.get_label())) for handle in handles)
    n_columns = 2 if width <= NARROW and n_characters > _FITTING else len(handles)
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=n_columns,
        frameon=False,
        borderaxespad=0.2,
        borderpad=0.2,
        handlelength=1.2,
        handletextpad=0.5,
        columnspacing=1.4,
        fontsize=TEXT,
        labelcolor=INK,
    )


class Heights:
    """Accuracies on an axis of errors, each tenth of an error as high as the one before.

    Where good networks differ by tenths of a percent and bad ones by tens, a plain axis would show
    one or the other. No error is less than half an image.
    """

    def __init__(self, report: Report) -> None:
        self._least = report.least_error

    def __call__(self, accuracy: float) -> float:
        return -math.log10(max(1 - accuracy, self._least))

    def mark(self, axes: Axes) -> None:
        """Marks the vertical axis in percent."""
        low, high = axes.get_ylim()
        marks = [
            mark
            for mark in ACCURACY_MARKS
            if low <= self(mark) <= high and (mark == 1 or 1 - mark > 1.5 * self._least)
        ]
        labels = [f"{100 * mark:g} %" for mark in marks]
        if len(marks) < 3:
            ends = (1 - 10**-low, 1 - 10**-high)
            ticks = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(*ends)
            marks = [tick for tick in ticks if ends[0] <= tick <= min(ends[1], 1)]
            labels = percents(marks)
        axes.set_yticks([self(mark) for mark in marks], labels)
        axes.grid(axis="y", color=FAINT, linewidth=0.6)


def percents(shares: Sequence[float]) -> list[str]:
    """Shares in percent, all with as many decimals as the one that needs most."""
    needed = [f"{100 * share:.5g}".partition(".")[2] for share in shares]
    decimals = max(map(len, needed), default=0)
    return [f"{100 * share:.{decimals}f} %" for share in shares]


def dot(label: str, color: str) -> Line2D:
    return Line2D([], [], marker="o", linestyle="", color=color, markeredgewidth=0, label=label)


def line(label: str, color: str, linewidth: float = 1.6) -> Line2D:
    return Line2D([], [], color=color, linewidth=linewidth, label=label)
