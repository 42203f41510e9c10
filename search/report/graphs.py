"""A study's graphs in optuna-dashboard, beside those that it draws of any study.

They are Plotly's figures as plain values: optuna-dashboard draws them in the browser, so that
plotly itself is not needed. Colours suit a light page and a dark one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from search.report.facts import ACCURACY_MARKS, Report
from search.report.importance import Influence
from search.report.palette import MUTED, RIGHT, SEED, WRONG
from search.study.record import TrialRecord
from search.study.summary import accuracy_of, parameter_count_of

_GRID = "rgba(127,127,127,0.2)"
_GREY = "rgba(127,127,127,0.45)"  # which is quiet on both
_MOST_TICKS = 15
_MANY = 50  # curves, above which they are thinner
# Of a trace, in which each is written again with each update, and read by a browser each time.
_MOST_POINTS = 20_000


def size_graph(report: Report) -> str | None:
    """Accuracy against parameters, with the Pareto front and the cap; None without trials.

    All graphs are Plotly figures as JSON.
    """
    complete = report.complete
    if not complete:
        return None
    cap = report.settings.budget
    front = report.front
    trials = complete[:_MOST_POINTS]
    dots = {
        **_points(report, trials),
        "mode": "markers",
        "name": "complete trials" + _share_of(trials, complete, "best"),
        "marker": {"color": SEED, "size": 8},
    }
    best = {
        **_points(report, front),
        "mode": "lines+markers",
        "name": "Pareto front",
        "line": {"color": RIGHT, "shape": "hv", "width": 2},
        "marker": {"size": 9},
    }
    smallest = min(_size_of(trial) for trial in trials)
    margin = 0.06 * (cap - smallest) + 1
    layout = _layout(f"{report.metric.capitalize()} against size", "parameters")
    layout["xaxis"] |= {"range": [smallest - margin, cap + margin], "separatethousands": True}
    layout["yaxis"] = _accuracy_axis([dots])
    layout["shapes"] = [_vertical_line(cap)]
    layout["annotations"] = [
        {
            **{"x": cap, "y": 1, "yref": "paper", "xanchor": "right", "yanchor": "bottom"},
            **{"text": f"cap {cap:,}", "showarrow": False, "font": {"color": WRONG}},
        }
    ]
    return _figure([dots, best], layout)


def learning_graph(report: Report) -> str | None:
    """The learning curves of all trained trials, those that were stopped in grey.

    None where no trial has trained, or each trains a single epoch, which makes no curve.
    """
    trained = report.trained
    if not trained or report.settings.epochs == 1:
        return None
    chosen = None if report.chosen is None else report.chosen.number
    stopped = [trial for trial in trained if trial.state == TrialState.PRUNED]
    ended = [t for t in trained if t.state != TrialState.PRUNED and t.number != chosen]
    traces = [
        {
            **_curves(report, shown),
            "name": name + _share_of(shown, trials, "latest"),
            "line": {"color": color, "width": width if len(shown) <= _MANY else width / 2},
        }
        for trials, name, color, width in (
            (stopped, f"{len(stopped)} stopped early", _GREY, 1),
            (ended, f"{len(ended)} to the end", SEED, 1.5),
            ([report.chosen] if report.chosen else [], f"trial {chosen}", RIGHT, 3),
        )
        if trials
        for shown in [_latest(trials)]
    ]
    epochs = report.settings.epochs
    layout = _layout("How the trials learnt", "epoch")
    layout["xaxis"] |= {"dtick": -(-epochs // _MOST_TICKS), "range": [0.8, epochs + 0.2]}
    layout["yaxis"] = _accuracy_axis(traces)
    return _figure(traces, layout)


def influence_graph(influences: list[Influence]) -> str | None:
    """How far each hyperparameter sets the best trials apart; None where too few tell."""
    if not influences:
        return None
    rows = influences[::-1]  # Plotly begins at the bottom
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": [round(row.relative_importance, 3) for row in rows],
        "y": [row.name.replace("_", " ").removesuffix(" degrees") for row in rows],
        "marker": {"color": [RIGHT if row.is_beyond_chance else SEED for row in rows]},
        "hovertemplate": "%{y}: %{x:.2f}<extra></extra>",
    }
    # Optuna's own stands beside it: of complete trials, by the best tenth of them.
    layout = _layout(
        "What sets the best trials apart<br><sup>of all that trained, stopped ones too, in units "
        "of chance;<br>Optuna's importance is of complete trials alone, and may differ</sup>",
        "importance; up to 1, chance does as much",
    )
    layout["margin"]["t"] = 110
    layout["showlegend"] = False
    layout["xaxis"]["rangemode"] = "tozero"
    layout["yaxis"] = {"automargin": True, "tickfont": {"size": 11}}
    layout["shapes"] = [_vertical_line(1)]
    return _figure([bars], layout)


def _points(report: Report, trials: Iterable[FrozenTrial]) -> dict[str, Any]:
    trials = list(trials)
    return {
        "type": "scatter",
        "x": [_size_of(trial) for trial in trials],
        "y": [_error(report, accuracy_of(trial)) for trial in trials],
        "customdata": [trial.number for trial in trials],
        "hovertemplate": "trial %{customdata}: %{x:,} parameters, "
        f"{_reached(report)}<extra></extra>",
    }


def _curves(report: Report, trials: Iterable[FrozenTrial]) -> dict[str, Any]:
    """Many curves as one line with gaps: a line each would take the browser seconds."""
    x: list[int | None] = []
    y: list[float | None] = []
    numbers: list[int | None] = []
    for trial in trials:
        accuracies = TrialRecord.read(trial).accuracies
        x += range(1, len(accuracies) + 1)
        y += [_error(report, accuracy) for accuracy in accuracies]
        numbers += [trial.number] * len(accuracies)
        for values in (x, y, numbers):
            values.append(None)
    return {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": y,
        "customdata": numbers,
        "hovertemplate": f"trial %{{customdata}}, epoch %{{x}}: {_reached(report)}<extra></extra>",
    }


def _latest(trials: Sequence[FrozenTrial]) -> Sequence[FrozenTrial]:
    """The latest, as many as there is room for in a trace, and one at least."""
    n_points = 0
    for n_shown, trial in enumerate(reversed(trials)):
        n_points += len(TrialRecord.read(trial).epochs) + 1
        if n_points > _MOST_POINTS:
            return trials[-max(1, n_shown) :]
    return trials


def _share_of(shown: Sequence[FrozenTrial], trials: Sequence[FrozenTrial], which: str) -> str:
    """What is to be said where not all trials are shown."""
    return f" (the {which} {len(shown):,})" if len(shown) < len(trials) else ""


def _size_of(trial: FrozenTrial) -> int:
    count = parameter_count_of(trial)
    assert count is not None
    return count


def _reached(report: Report) -> str:
    """What Plotly shows of a value beside the pointer."""
    if report.settings.metric == "accuracy":
        return "%{y:.2f} % wrong"
    return f"%{{y:.2f}} points below 100 % {report.metric}"


def _error(report: Report, accuracy: float | None) -> float:
    """In percent, with as many digits as are seen."""
    error = max(1 - (accuracy or 0.0), report.least_error)
    return float(f"{100 * error:.3g}")


def _accuracy_axis(traces: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """An axis of errors, marked with accuracies; each tenth of an error is as high as the last."""
    errors = [error for trace in traces for error in trace["y"] if error is not None]
    marks = _marks(1 - max(errors) / 100, 1 - min(errors) / 100)
    return {
        "type": "log",
        "autorange": "reversed",
        "tickvals": [float(f"{100 * (1 - mark):.6g}") for mark in marks],
        "ticktext": [f"{100 * mark:.6g} %" for mark in marks],
        "gridcolor": _GRID,
        "zeroline": False,
    }


def _marks(low: float, high: float) -> list[float]:
    """Round accuracies between two, three or more where they are not the same."""
    marks = [mark for mark in ACCURACY_MARKS if low <= mark <= high and mark < 1]
    if len(marks) >= 3 or low == high:
        return marks or [low]
    least = (high - low) / 5
    power = 10 ** math.floor(math.log10(least))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _vertical_line(x: float) -> dict[str, Any]:
    return {
        "type": "line",
        "yref": "paper",
        **{"x0": x, "x1": x, "y0": 0, "y1": 1},
        "line": {"color": WRONG, "dash": "dash", "width": 1.5},
    }


def _layout(title: str, x_title: str) -> dict[str, Any]:
    return {
        "title": {"text": title, "x": 0.02, "font": {"size": 16}},
        "font": {"color": MUTED},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        # Plotly would make it as for black paper, in white.
        "modebar": {"color": MUTED, "activecolor": RIGHT, "bgcolor": "rgba(0,0,0,0)"},
        "margin": {"l": 60, "r": 20, "t": 70, "b": 50},
        "legend": {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},
        "hovermode": "closest",
        "xaxis": {"title": {"text": x_title}, "gridcolor": _GRID, "zeroline": False},
    }


def _figure(data: list[dict[str, Any]], layout: dict[str, Any]) -> str:
    return json.dumps({"data": data, "layout": layout}, separators=(",", ":"))
