"""The pictures of a study's report: for a page, in its own colours, and as PNG files.

For a page each is drawn twice as SVG, for a wide one and for a telephone. Colours become variables
of the page, so that a dark one needs no other picture, and text stays text.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import matplotlib.image
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from optuna.trial import FrozenTrial, TrialState

from search.report import palette
from search.report.facts import ACCURACY_MARKS, Report, shown
from search.report.importance import Influence
from search.report.palette import FAINT, INK, MUTED, PAPER, RIGHT, SEED, STOPPED, WRONG
from search.study.record import TrialRecord
from search.study.summary import accuracy_of, parameter_count_of
from search.wording import percent

_WIDE, _NARROW = 7.2, 3.7  # inches: a page's column, and a telephone's
_DOTS_PER_INCH = 200
_SMALL, _TEXT = 8, 9  # points
_FITTING = 30  # characters of a legend that fit into one line of a narrow picture
_LONGEST_END = 9  # characters of a range's end that fit beside it
_FEW = 5  # values that a hyperparameter may have for its dots to be spread
_MANY = 400  # dots, above which they are one image
_VARIABLES = {
    value: f"var(--{name.lower()})" for name, value in vars(palette).items() if name.isupper()
}


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of a report.

    Args:
        name: of its file, without a suffix.
        title: what it shows; the heading of the PNG, and for those who cannot see it.
        wide, narrow: SVG elements for columns of about 690 and 350 pixels.
        png: the wide one with its title, on white.
    """

    name: str
    title: str
    wide: str
    narrow: str
    png: bytes


def draw_pictures(report: Report) -> list[Picture]:
    """The pictures that a study has something to show in."""
    candidates: tuple[tuple[str, str, object, Callable[[Report, float], Figure]], ...] = (
        ("race", "Fresh seeds of the best trials", report.race, _draw_race),
        ("size", "Accuracy against size", report.front, _draw_size),
        ("learning", "How each trial learnt", _learners(report), _draw_learning),
        ("influence", "What sets the best trials apart", report.influences, _draw_influences),
        ("history", "The best, trial by trial", report.complete, _draw_history),
    )
    return [
        _picture(report, name, title, draw) for name, title, content, draw in candidates if content
    ]


def _learners(report: Report) -> list[FrozenTrial]:
    """The trials that have curves: of a single epoch none has."""
    return report.trained if report.settings.epochs > 1 else []


def _picture(
    report: Report, name: str, title: str, draw: Callable[[Report, float], Figure]
) -> Picture:
    wide, narrow = draw(report, _WIDE), draw(report, _NARROW)
    return Picture(
        name,
        title,
        wide=_svg(wide, f"{name}-wide", title),
        narrow=_svg(narrow, f"{name}-narrow", title),
        png=_png(wide, f"{title}: {report.study}"),
    )


def _svg(figure: Figure, name: str, title: str) -> str:
    """A figure as an element of a page.

    Args:
        name: that no other picture of the page has; names inside it follow from it.
    """
    file = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    text = file.getvalue()
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None
    body = text[
        text.index("</defs>") + len("</defs>") :
    ]  # the first holds a style for all elements
    for pattern, replacement in (
        (r'<g id="[^"]*"', "<g"),  # what nothing refers to; the rest of the names are hashes
        (r"font-family: [^;\"]*;? ?", ""),
        (r' transform="rotate\(-?0 [^"]*\)"', ""),
        (r"(?<=[A-Za-z0-9.])\s*\n\s*(?=[LCMzQ])", " "),
        (r"\n\s*", "\n"),
    ):
        body = re.sub(pattern, replacement, body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, variable)
    return f'<svg class="{name.rpartition("-")[2]}" role="img" aria-label="{title}" {box[0]}>{body}'


def _png(figure: Figure, title: str) -> bytes:
    # A study's name is a user's: what looks like a formula in it is none.
    figure.suptitle(
        title, x=0.01, ha="left", color=INK, fontsize=12, weight="bold", parse_math=False
    )
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DOTS_PER_INCH, facecolor=PAPER)
    return file.getvalue()


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure((width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    _plain(axes)
    return figure, axes


def _plain(axes: Axes) -> None:
    """An axis without a frame, whose marks are quiet."""
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    axes.tick_params(length=0, color=MUTED, labelsize=_TEXT, labelcolor=MUTED)
    axes.set_axisbelow(True)


def _legend(axes: Axes, handles: list[Line2D], width: float) -> None:
    n_characters = sum(len(str(handle.get_label())) for handle in handles)
    n_columns = 2 if width <= _NARROW and n_characters > _FITTING else len(handles)
    axes.legend(  # above the axes, where no line can be
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
        fontsize=_TEXT,
        labelcolor=INK,
    )


class _Heights:
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
            labels = _percents(marks)
        axes.set_yticks([self(mark) for mark in marks], labels)
        axes.grid(axis="y", color=FAINT, linewidth=0.6)


def _percents(shares: Sequence[float]) -> list[str]:
    """Shares in percent, all with as many decimals as the one that needs most."""
    needed = [f"{100 * share:.5g}".partition(".")[2] for share in shares]
    decimals = max(map(len, needed), default=0)
    return [f"{100 * share:.{decimals}f} %" for share in shares]


def _size_of(trial: FrozenTrial) -> int:
    count = parameter_count_of(trial)
    assert count is not None
    return count


def _draw_size(report: Report, width: float) -> Figure:
    """Each complete trial by parameters and accuracy, with the cap and the front."""
    figure, axes = _figure(width, 3.4)
    height = _Heights(report)
    trials = [trial for trial in report.complete if parameter_count_of(trial) is not None]
    points = [(_size_of(trial), height(accuracy_of(trial) or 0.0)) for trial in trials]
    sizes = [size for size, _ in points]
    axes.scatter(sizes, [y for _, y in points], s=26, color=SEED, linewidth=0)
    front = [(_size_of(trial), height(accuracy_of(trial) or 0.0)) for trial in report.front]
    cap = report.settings.budget
    margin = 0.06 * (cap - min(sizes)) + 1
    axes.set_xlim(min(sizes) - margin, cap + margin)
    ends = [*(size for size, _ in front), cap]
    axes.step(
        ends, [*(y for _, y in front), front[-1][1]], where="post", color=RIGHT, linewidth=1.2
    )
    handles = [_dot("a trial", SEED), _line("Pareto front", RIGHT)]
    if report.chosen is not None and report.chosen in trials:
        place = (_size_of(report.chosen), height(report.value or 0.0))
        axes.scatter(*place, s=70, color=RIGHT, edgecolor=PAPER, linewidth=1.2, zorder=3)
        handles.append(_dot(f"trial {report.chosen.number}", RIGHT))
    axes.axvline(cap, color=WRONG, linewidth=1.2, linestyle=(0, (4, 3)))
    handles.append(Line2D([], [], color=WRONG, linewidth=1.2, linestyle="--", label=f"cap {cap:,}"))
    height.mark(axes)
    axes.xaxis.set_major_locator(MaxNLocator(7 if width > _NARROW else 3, integer=True))
    axes.xaxis.set_major_formatter(lambda value, place: f"{value:,.0f}")
    axes.set_xlabel("parameters", color=MUTED, fontsize=_TEXT)
    _legend(axes, handles, width)
    return figure


def _dot(label: str, color: str) -> Line2D:
    return Line2D([], [], marker="o", linestyle="", color=color, markeredgewidth=0, label=label)


def _line(label: str, color: str, linewidth: float = 1.6) -> Line2D:
    return Line2D([], [], color=color, linewidth=linewidth, label=label)


def _draw_learning(report: Report, width: float) -> Figure:
    """The validation accuracy of each trial after each epoch."""
    figure, axes = _figure(width, 3.9)
    height = _Heights(report)
    chosen = None if report.chosen is None else report.chosen.number
    n_stopped = n_ended = 0
    for trial in report.trained:
        results = list(TrialRecord.read(trial).epochs)
        epochs = [result.epoch for result in results]
        heights = [height(result.accuracy) for result in results]
        marker = "o" if len(epochs) == 1 else ""  # one point makes no line
        is_stopped = trial.state == TrialState.PRUNED
        n_stopped += is_stopped
        n_ended += not is_stopped and trial.number != chosen
        style = (STOPPED, 0.9, 1) if is_stopped else (SEED, 0.9, 2)
        color, linewidth, order = (RIGHT, 2.6, 3) if trial.number == chosen else style
        axes.plot(
            epochs,
            heights,
            color=color,
            linewidth=linewidth,
            zorder=order,
            marker=marker,
            markersize=4,
            markeredgewidth=0,
        )
    axes.set_xlim(0.5, report.settings.epochs + 0.5)
    height.mark(axes)
    axes.xaxis.set_major_locator(
        MaxNLocator(15 if width > _NARROW else 8, integer=True, min_n_ticks=1)
    )
    axes.set_xlabel("epoch", color=MUTED, fontsize=_TEXT)
    handles = [] if chosen is None else [_line(f"trial {chosen}", RIGHT, 2.6)]
    handles += [_line(f"{n_ended} to the end", SEED)] if n_ended else []
    handles += [_line(f"{n_stopped} stopped early", STOPPED)] if n_stopped else []
    _legend(axes, handles, width)
    return figure


def _draw_race(report: Report, width: float) -> Figure:
    """For each candidate its fresh seeds, their mean with its interval, and its search value."""
    assert report.race is not None
    standings, values = report.race.standings, report.race.search_values
    figure, axes = _figure(width, 0.9 + 0.36 * len(standings))
    for place, standing in enumerate(standings):
        color = RIGHT if place == 0 else STOPPED if standing.is_out else SEED
        axes.axhline(place, color=FAINT, linewidth=0.6, zorder=0)
        axes.plot(
            standing.values,
            [place] * len(standing.values),
            "|",
            color=color,
            markersize=11,
            markeredgewidth=1.3,
        )
        if standing.low is not None and standing.high is not None:
            axes.plot((standing.low, standing.high), (place, place), color=color, linewidth=2.4)
        axes.scatter(
            standing.mean, place, s=52, color=color, edgecolor=PAPER, linewidth=1.2, zorder=3
        )
        axes.scatter(
            values[standing.candidate],
            place,
            s=30,
            marker="D",
            color="none",
            edgecolor=WRONG,
            linewidth=1.2,
            zorder=4,
        )
    axes.set_ylim(len(standings) - 0.5, -0.5)
    names = [f"trial {standing.candidate}" for standing in standings]
    axes.set_yticks(range(len(standings)), names, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(7 if width > _NARROW else 4))
    axes.margins(x=0.04)
    low, high = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
    axes.set_xticks(ticks, _percents(ticks))
    diamond = Line2D(
        [],
        [],
        marker="D",
        linestyle="",
        markerfacecolor="none",
        markeredgecolor=WRONG,
        markersize=5,
        label="in the search",
    )
    mean = Line2D([], [], marker="o", color=RIGHT, linewidth=2.4, label="mean, 95 %")
    seed = Line2D([], [], marker="|", linestyle="", color=RIGHT, markersize=9, label="a seed")
    _legend(axes, [seed, mean, diamond], width)
    return figure


def _draw_influences(report: Report, width: float) -> Figure:
    """Where the best trials lie in each range, and how unlikely that is."""
    rows = report.influences
    is_wide = width > _NARROW
    figure = Figure((width, 0.9 + 0.27 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    ranges, bars = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2) if is_wide else (2, 1))
    for axes in (ranges, bars):
        _plain(axes)
        axes.spines["bottom"].set_visible(False)
        axes.set_xticks([])
    for place, row in enumerate(rows):
        ranges.plot((0, 1), (place, place), color=FAINT, linewidth=0.8, zorder=0)
        for is_best, color, size in ((False, STOPPED, 9), (True, RIGHT, 20)):
            found = [
                x for x, best in zip(_spread(row), row.is_best, strict=True) if best == is_best
            ]
            ranges.scatter(
                found,
                [place] * len(found),
                s=size,
                color=color,
                linewidth=0,
                alpha=0.75,
                zorder=1 + is_best,
                rasterized=len(found) > _MANY,
            )
        if is_wide:
            for x, end, align in ((-0.04, row.low, "right"), (1.04, row.high, "left")):
                ranges.text(
                    x, place, _end(end), color=MUTED, fontsize=_SMALL, ha=align, va="center"
                )
        color = RIGHT if row.is_beyond_chance else SEED
        bars.barh(place, row.relative_importance, 0.46, color=color)
    bars.axvline(1, color=WRONG, linewidth=1.2, linestyle=(0, (4, 3)))
    ranges.set_xlim((-0.22, 1.22) if is_wide else (-0.04, 1.04))
    bars.set_xlim(0, 1.08 * max(1.0, *(row.relative_importance for row in rows)))
    ranges.set_ylim(len(rows) - 0.4, -0.6)
    names = [row.name.replace("_", " ").removesuffix(" degrees") for row in rows]
    ranges.set_yticks(range(len(rows)), names, color=INK)
    bars.tick_params(labelleft=False)
    for axes, title in (
        (ranges, "in its range: the best, the rest" if is_wide else "the best, the rest"),
        (bars, "importance, and what is chance" if is_wide else "importance"),
    ):
        axes.set_title(title, color=MUTED, fontsize=_TEXT, loc="left")
    return figure


def _spread(row: Influence) -> list[float]:
    """Where a row's dots are drawn: those of one choice side by side, inwards, the best first."""
    places = sorted(set(row.positions))
    if len(places) > _FEW:
        return list(row.positions)
    step = min(0.012, 0.4 / max(map(row.positions.count, places)))
    spread = list(row.positions)
    for place in places:
        same = [i for i, position in enumerate(row.positions) if position == place]
        for offset, i in enumerate(sorted(same, key=lambda i: not row.is_best[i])):
            spread[i] += offset * (step if place < 0.5 else -step)
    return spread


def _end(value: object) -> str:
    text = shown(value)
    return text if len(text) <= _LONGEST_END else ""


def _draw_history(report: Report, width: float) -> Figure:
    """The value of each complete trial, and the best until then."""
    figure, axes = _figure(width, 2.6)
    height = _Heights(report)
    complete = sorted(report.complete, key=lambda trial: trial.number)
    numbers = [trial.number for trial in complete]
    values = [accuracy_of(trial) or 0.0 for trial in complete]
    axes.scatter(numbers, [height(value) for value in values], s=22, color=SEED, linewidth=0)
    last = max(trial.number for trial in report.trials)
    best = [height(max(values[: place + 1])) for place in range(len(values))]
    axes.step([*numbers, last], [*best, best[-1]], where="post", color=RIGHT, linewidth=1.6)
    handles = [_dot("a complete trial", SEED), _line("the best so far", RIGHT)]
    low, high = axes.get_ylim()
    margin = 0.12 * (high - low)
    axes.set_ylim(low - margin, high)
    stopped = [trial.number for trial in report.trained if trial.state == TrialState.PRUNED]
    if stopped:
        axes.plot(stopped, [low - 0.6 * margin] * len(stopped), "|", color=STOPPED, markersize=7)
        handles.append(
            Line2D([], [], marker="|", linestyle="", color=STOPPED, label="stopped early")
        )
    axes.xaxis.set_major_locator(MaxNLocator(10 if width > _NARROW else 6, integer=True))
    axes.set_xlim(-0.5 - 0.01 * last, last + 0.5 + 0.01 * last)
    height.mark(axes)
    axes.set_xlabel("trial", color=MUTED, fontsize=_TEXT)
    _legend(axes, handles, width)
    return figure


def draw_curve(report: Report, trial: FrozenTrial) -> bytes:
    """How one trained trial learnt, as PNG: its accuracies after each epoch."""
    figure = Figure((_WIDE, 3.9), dpi=100, facecolor=PAPER)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.09, 0.12, 0.88, 0.68))  # fixed: a layout that adapts takes long
    _plain(axes)
    height = _Heights(report)
    results = list(TrialRecord.read(trial).epochs)
    epochs = [result.epoch for result in results]
    marker = "o" if len(epochs) == 1 else ""  # one point makes no line
    for accuracies, color, linewidth in (
        ([result.training_accuracy for result in results], SEED, 1.6),
        ([result.accuracy for result in results], RIGHT, 2.4),
    ):
        heights = [height(accuracy) for accuracy in accuracies]
        axes.plot(epochs, heights, color=color, linewidth=linewidth, marker=marker)
    axes.set_xlim(0.5, report.settings.epochs + 0.5)
    height.mark(axes)
    axes.xaxis.set_major_locator(MaxNLocator(15, integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch", color=MUTED, fontsize=_TEXT)
    # Accuracy on the training images is plain in a study of any metric.
    names = (f"{report.metric} on the validation images", "accuracy on the training images")
    _legend(axes, [_line(names[0], RIGHT, 2.4), _line(names[1], SEED)], _WIDE)
    accuracy = accuracy_of(trial)
    reached = "" if accuracy is None else f": {percent(accuracy)} {report.metric}"
    # A study's name is a user's: what looks like a formula in it is none.
    figure.text(
        0.02,
        0.93,
        f"Trial {trial.number} of {report.study}{reached}",
        color=INK,
        fontsize=12,
        weight="bold",
        parse_math=False,
    )
    file = io.BytesIO()
    figure.savefig(file, format="png", facecolor=PAPER)
    return file.getvalue()


def image_png(pixels: Sequence[Sequence[Sequence[int]]]) -> bytes:
    """An image as PNG; a grey one is black on nothing, so that a page's own paper shows through.

    Args:
        pixels: (C, H, W), from 0, which is the background of a grey image, to 255. What has
            neither one channel nor three is shown by its first.
    """
    channels = np.asarray(pixels, dtype=np.uint8)
    rgba = np.zeros((*channels.shape[1:], 4), dtype=np.uint8)
    if len(channels) == 3:
        rgba[..., :3], rgba[..., 3] = channels.transpose(1, 2, 0), 255
    else:
        rgba[..., 3] = channels[0]
    file = io.BytesIO()
    mpl.image.imsave(file, rgba, format="png")
    return file.getvalue()
