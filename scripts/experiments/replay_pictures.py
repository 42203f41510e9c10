"""Policies compared, as pictures: how soon each names a good network, and which epochs tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scripts.experiments.comparisons import CHOSEN, COLOURED, COMPARISONS
from scripts.experiments.measures import N_BOOTSTRAPS, Paths
from scripts.experiments.policies import REFERENCE, Replay
from scripts.experiments.record_curves import EPOCHS
from search.report.palette import RIGHT, STOPPED, WRONG

# Matplotlib's own but for blue, orange and grey, which have a meaning.
_COLOURS = ("C2", "C4", "C5", "C6", "C8", "C9", "C3")


def draw_pictures(
    folder: Path,
    results: Mapping[str, Sequence[Replay]],
    correlations: Mapping[str, Sequence[float]],
) -> None:
    """One picture for each comparison of which two policies ran, and one of the epochs."""
    folder.mkdir(parents=True, exist_ok=True)
    for title, names in COMPARISONS.items():
        shown = {name: results[name] for name in (REFERENCE, *names) if name in results}
        if len(shown) > 2:
            _draw_paths(folder / f"{title}.png", title, shown, styles(title, list(shown)))
    _draw_correlations(folder / "epochs.png", correlations)


def pyplot() -> Any:
    """Imported where pictures are asked for, and without a screen to show them on."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def styles(title: str, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """How each policy is drawn in a comparison: what is in several of them, in the same colour."""
    fixed = {REFERENCE: WRONG, CHOSEN: RIGHT}
    coloured = COLOURED.get(title, tuple(names))
    others = [name for name in names if name not in fixed and name in coloured]
    colours = fixed | {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(others)}
    dashed = set(others[len(_COLOURS) :])
    return {
        name: {
            "color": colours.get(name, STOPPED),
            "linestyle": "--" if name in dashed else "-",
            "zorder": 2 if name in colours else 1,
        }
        for name in names
    }


def _draw_paths(
    path: Path,
    title: str,
    shown: Mapping[str, Sequence[Replay]],
    drawn_as: Mapping[str, Mapping[str, Any]],
) -> None:
    """The median of the named best's true error, and the 95 % interval of that median."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(9, 6))
    for name, replays in shown.items():
        paths = Paths(replays)
        # From where each replay has named a trial to where half of them have ended.
        spent = np.linspace(paths.spent[:, 0].max(), np.median(paths.total), 200)
        errors = 100 * (1 - paths.named_at(spent))
        style = drawn_as[name]
        is_grey = style["color"] == STOPPED
        axes.plot(spent, np.median(errors, axis=0), label=None if is_grey else name, **style)
        if is_grey:
            continue
        random = np.random.default_rng(0)
        medians = [
            np.median(errors[random.integers(len(errors), size=len(errors))], axis=0)
            for _ in range(N_BOOTSTRAPS)
        ]
        band = np.quantile(medians, (0.025, 0.975), axis=0)
        axes.fill_between(spent, *band, color=style["color"], alpha=0.1, linewidth=0)
    axes.set(xlabel="training seconds", ylabel="true error of the named best, %", title=title)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:.2f}")
    axes.yaxis.set_minor_formatter("{x:.2f}")
    if any(style["color"] == STOPPED for style in drawn_as.values()):
        axes.plot([], [], color=STOPPED, label="others, in the table")
    axes.legend(fontsize="small", loc="upper right")
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)


def _draw_correlations(path: Path, correlations: Mapping[str, Sequence[float]]) -> None:
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(8, 5))
    for name, row in correlations.items():
        axes.plot(range(1, EPOCHS + 1), row, marker=".", label=name)
    axes.set(xlabel="epoch", ylabel="rank correlation with the final value")
    axes.legend(fontsize="small", loc="lower right")
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)
