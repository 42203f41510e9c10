"""What each picture of a report shows, drawn at a given width."""

from __future__ import annotations

import io
import itertools

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from optuna.trial import FrozenTrial, TrialState

from search.report.axes import (
    NARROW,
    TEXT,
    WIDE,
    Heights,
    add_legend,
    dot,
    line,
    make_plain,
    percents,
    plain_figure,
)
from search.report.drawing import own_settings, picture_text
from search.report.facts import Report
from search.report.hyperparameter_table import shown
from search.report.importance import Influence
from search.report.palette import FAINT, INK, MUTED, PAPER, RIGHT, SEED, STOPPED, WRONG
from search.study.record import TrialRecord
from search.study.summary import accuracy_of, parameter_count_of
from search.wording import percent

_SMALL = 8  # points
_LONGEST_END = 9  # characters of a range's end that fit beside it
_FEW = 5  # values that a hyperparameter may have for its dots to be spread
_MANY = 400  # dots, above which they are one image


def _size_of(trial: FrozenTrial) -> int:
    count = parameter_count_of(trial)
    assert count is not None
    return count


def draw_size(report: Report, width: float) -> Figure:
    """Each complete trial by parameters and accuracy, with the cap and the front."""
    figure, axes = plain_figure(width, 3.4)
    height = Heights(report)
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
    handles = [dot("a trial", SEED), line("Pareto front", RIGHT)]
    if report.chosen is not None and report.chosen in trials:
        point = (_size_of(report.chosen), height(report.value or 0.0))
        axes.scatter(*point, s=70, color=RIGHT, edgecolor=PAPER, linewidth=1.2, zorder=3)
        handles.append(dot(f"trial {report.chosen.number}", RIGHT))
    axes.axvline(cap, color=WRONG, linewidth=1.2, linestyle=(0, (4, 3)))
    handles.append(Line2D([], [], color=WRONG, linewidth=1.2, linestyle="--", label=f"cap {cap:,}"))
    height.mark(axes)
    axes.xaxis.set_major_locator(MaxNLocator(7 if width > NARROW else 3, integer=True))
    axes.xaxis.set_major_formatter(lambda value, position: f"{value:,.0f}")
    axes.set_xlabel("parameters", color=MUTED, fontsize=TEXT)
    add_legend(axes, handles, width)
    return figure


def draw_learning(report: Report, width: float) -> Figure:
    """The validation accuracy of each trial after each epoch."""
    figure, axes = plain_figure(width, 3.9)
    height = Heights(report)
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
        MaxNLocator(15 if width > NARROW else 8, integer=True, min_n_ticks=1)
    )
    axes.set_xlabel("epoch", color=MUTED, fontsize=TEXT)
    handles = [] if chosen is None else [line(f"trial {chosen}", RIGHT, 2.6)]
    handles += [line(f"{n_ended} to the end", SEED)] if n_ended else []
    handles += [line(f"{n_stopped} stopped early", STOPPED)] if n_stopped else []
    add_legend(axes, handles, width)
    return figure


def draw_race(report: Report, width: float) -> Figure:
    """For each candidate its fresh seeds, their mean with its interval, and its search value."""
    assert report.race is not None
    standings, values = report.race.standings, report.race.search_values
    figure, axes = plain_figure(width, 0.9 + 0.36 * len(standings))
    for y, standing in enumerate(standings):
        color = RIGHT if y == 0 else STOPPED if standing.is_out else SEED
        axes.axhline(y, color=FAINT, linewidth=0.6, zorder=0)
        axes.plot(
            standing.values,
            [y] * len(standing.values),
            "|",
            color=color,
            markersize=11,
            markeredgewidth=1.3,
        )
        if standing.low is not None and standing.high is not None:
            axes.plot((standing.low, standing.high), (y, y), color=color, linewidth=2.4)
        axes.scatter(standing.mean, y, s=52, color=color, edgecolor=PAPER, linewidth=1.2, zorder=3)
        axes.scatter(
            values[standing.candidate],
            y,
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
    axes.xaxis.set_major_locator(MaxNLocator(7 if width > NARROW else 4))
    axes.margins(x=0.04)
    low, high = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
    axes.set_xticks(ticks, percents(ticks))
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
    add_legend(axes, [seed, mean, diamond], width)
    return figure


def draw_influences(report: Report, width: float) -> Figure:
    """Where the best trials lie in each range, and how unlikely that is."""
    rows = report.influences
    is_wide = width > NARROW
    figure = Figure((width, 0.9 + 0.27 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    ranges, bars = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2) if is_wide else (2, 1))
    for axes in (ranges, bars):
        make_plain(axes)
        axes.spines["bottom"].set_visible(False)
        axes.set_xticks([])
    for y, row in enumerate(rows):
        ranges.plot((0, 1), (y, y), color=FAINT, linewidth=0.8, zorder=0)
        for is_best, color, size in ((False, STOPPED, 9), (True, RIGHT, 20)):
            found = [
                x for x, best in zip(_spread(row), row.is_best, strict=True) if best == is_best
            ]
            ranges.scatter(
                found,
                [y] * len(found),
                s=size,
                color=color,
                linewidth=0,
                alpha=0.75,
                zorder=1 + is_best,
                rasterized=len(found) > _MANY,
            )
        if is_wide:
            for x, end, align in ((-0.04, row.low, "right"), (1.04, row.high, "left")):
                ranges.text(x, y, _end(end), color=MUTED, fontsize=_SMALL, ha=align, va="center")
        color = RIGHT if row.is_beyond_chance else SEED
        bars.barh(y, row.relative_importance, 0.46, color=color)
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
        axes.set_title(title, color=MUTED, fontsize=TEXT, loc="left")
    return figure


def _spread(row: Influence) -> list[float]:
    """Where a row's dots are drawn: those of one choice side by side, inwards, the best first."""
    positions = sorted(set(row.positions))
    if len(positions) > _FEW:
        return list(row.positions)
    step = min(0.012, 0.4 / max(map(row.positions.count, positions)))
    spread = list(row.positions)
    for position in positions:
        same = [i for i, other in enumerate(row.positions) if other == position]
        for offset, i in enumerate(sorted(same, key=lambda i: not row.is_best[i])):
            spread[i] += offset * (step if position < 0.5 else -step)
    return spread


def _end(value: object) -> str:
    text = shown(value)
    return text if len(text) <= _LONGEST_END else ""


def draw_history(report: Report, width: float) -> Figure:
    """The value of each complete trial, and the best until then."""
    figure, axes = plain_figure(width, 2.6)
    height = Heights(report)
    complete = sorted(report.complete, key=lambda trial: trial.number)
    numbers = [trial.number for trial in complete]
    values = [accuracy_of(trial) or 0.0 for trial in complete]
    axes.scatter(numbers, [height(value) for value in values], s=22, color=SEED, linewidth=0)
    last = max(trial.number for trial in report.trials)
    best = [height(value) for value in itertools.accumulate(values, max)]
    axes.step([*numbers, last], [*best, best[-1]], where="post", color=RIGHT, linewidth=1.6)
    handles = [dot("a complete trial", SEED), line("the best so far", RIGHT)]
    low, high = axes.get_ylim()
    margin = 0.12 * (high - low)
    axes.set_ylim(low - margin, high)
    stopped = [trial.number for trial in report.trained if trial.state == TrialState.PRUNED]
    if stopped:
        axes.plot(stopped, [low - 0.6 * margin] * len(stopped), "|", color=STOPPED, markersize=7)
        handles.append(
            Line2D([], [], marker="|", linestyle="", color=STOPPED, label="stopped early")
        )
    axes.xaxis.set_major_locator(MaxNLocator(10 if width > NARROW else 6, integer=True))
    axes.set_xlim(-0.5 - 0.01 * last, last + 0.5 + 0.01 * last)
    height.mark(axes)
    axes.set_xlabel("trial", color=MUTED, fontsize=TEXT)
    add_legend(axes, handles, width)
    return figure


@own_settings()
def draw_curve(report: Report, trial: FrozenTrial) -> bytes:
    """How one trained trial learnt, as PNG: its accuracies after each epoch."""
    figure = Figure((WIDE, 3.9), dpi=100, facecolor=PAPER)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.09, 0.12, 0.88, 0.68))  # fixed: a layout that adapts takes long
    make_plain(axes)
    height = Heights(report)
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
    axes.set_xlabel("epoch", color=MUTED, fontsize=TEXT)
    # Accuracy on the training images is plain in a study of any metric.
    names = (f"{report.metric} on the validation images", "accuracy on the training images")
    add_legend(axes, [line(names[0], RIGHT, 2.4), line(names[1], SEED)], WIDE)
    accuracy = accuracy_of(trial)
    reached = "" if accuracy is None else f": {percent(accuracy)} {report.metric}"
    title = f"Trial {trial.number} of {picture_text(report.study)}{reached}"
    figure.text(0.02, 0.93, title, color=INK, fontsize=12, weight="bold")
    file = io.BytesIO()
    figure.savefig(file, format="png", facecolor=PAPER)
    return file.getvalue()
