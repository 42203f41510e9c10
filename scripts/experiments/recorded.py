"""What the recorded curves say by themselves, with no model between.

    python -m scripts.experiments.recorded    # as Markdown

How early accuracy ranks as the final one, by schedule; and what each pruner does with the recorded
trainings of `standard`, met in random order as a random search would: how many of the best tenth
it stops, and how much training it saves.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.study import Study
from optuna.trial import TrialState

from scripts.experiments.policies import make_pruner
from scripts.experiments.record_curves import EPOCHS, TABLE, read_table
from scripts.experiments.recorded_points import Point, points_of
from scripts.experiments.regressors import rank_correlation
from scripts.experiments.surrogate import N_LAST

Floats = NDArray[np.float64]

PRUNERS = (
    "none",
    "median-0",
    "median-3",
    "median-5",
    "median-8",
    "percentile-25-5",
    "percentile-25-8",
    "halving-1-2",
    "halving-1-3",
    "halving-3-2",
    "halving-3-3",
    "halving-5-2",
    "halving-5-3",
    "halving-8-2",
    "halving-8-3",
    "hyperband-5-3",
    "patient-2-median-5",
    "patient-1-halving-5-3",
)


# --- Early against late ---


def epoch_correlations(points: Sequence[Point]) -> dict[str, list[float]]:
    """By schedule, the rank correlation of each epoch's accuracy with the final value."""
    by_schedule: dict[str, list[Floats]] = {}
    for point in points:
        name = type(point.recipe.schedule).__name__
        by_schedule.setdefault(name, []).append(np.array(point.accuracies))
    return {
        f"{name} ({len(curves)})": correlations_of(np.array(curves))
        for name, curves in sorted(by_schedule.items())
        if len(curves) > 2  # two points agree or they do not
    }


def correlations_of(curves: Floats) -> list[float]:
    """The same of curves, (n, epochs)."""
    final = curves[:, -N_LAST:].mean(axis=1)
    return [rank_correlation(epoch, final) for epoch in curves.T]


def markdown_of_correlations(correlations: Mapping[str, Sequence[float]]) -> str:
    """A row a schedule (and how many points it has), a column an epoch."""
    epochs = [str(epoch) for epoch in range(1, EPOCHS + 1)]
    lines = [f"| rank correlation after epoch | {' | '.join(epochs)} |", "| --- " * 16 + "|"]
    for name, row in correlations.items():
        lines.append(f"| {name} | {' | '.join(f'{value:.2f}' for value in row)} |")
    return "\n".join(lines)


# --- Pruners ---


@dataclass(frozen=True)
class Pruned:
    """What a pruner did, the mean over orders; shares from 0 to 1.

    Args:
        best_tenth, best_fifth: share of those of the trainings that it stopped.
        best: share of the orders in which it stopped the very best.
        all: share of all trainings that it stopped.
        saved: share of all epochs that it saved.
    """

    best_tenth: float
    best_fifth: float
    best: float
    all: float
    saved: float


def prune_recorded(points: Sequence[Point], pruner: str, *, n_orders: int) -> Pruned:
    """The recorded trainings one after another, in so many random orders."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    curves = np.array([point.accuracies for point in points])
    final = curves[:, -N_LAST:].mean(axis=1)
    ranked = np.argsort(-final, kind="stable")
    tenth, fifth = (ranked[: max(1, round(share * len(points)))] for share in (0.1, 0.2))
    rows = []
    for order in range(n_orders):
        epochs = np.zeros(len(points), dtype=int)
        # Hyperband makes its brackets by the study's name.
        study = optuna.create_study(
            study_name=f"{order}", direction="maximize", pruner=make_pruner(pruner)
        )
        for place in np.random.default_rng(order).permutation(len(points)):
            epochs[place] = _train(study, curves[place])
        is_pruned = epochs < EPOCHS
        rows.append(
            (
                is_pruned[tenth].mean(),
                is_pruned[fifth].mean(),
                is_pruned[ranked[0]],
                is_pruned.mean(),
                1 - epochs.mean() / EPOCHS,
            )
        )
    return Pruned(*map(float, np.mean(rows, axis=0)))


def _train(study: Study, curve: Floats) -> int:
    """Reports a curve as a trial; the epochs that the study's pruner let it have."""
    trial = study.ask()
    for epoch, accuracy in enumerate(curve, start=1):
        trial.report(float(accuracy), step=epoch)
        if epoch < EPOCHS and trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return epoch
    study.tell(trial, float(curve[-N_LAST:].mean()))
    return EPOCHS


def markdown_of_pruners(results: Mapping[str, Pruned]) -> str:
    lines = [
        "| stopped by | of the best tenth | of the best fifth | the best | of all | epochs saved |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {name} | {row.best_tenth:.0%} | {row.best_fifth:.0%} | {row.best:.0%} | {row.all:.0%} "
        f"| {row.saved:.0%} |"
        for name, row in results.items()
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--orders", type=int, default=100)
    options = parser.parse_args()
    rows = read_table(options.table)
    standard = {
        widths: points_of(
            [row for row in rows if row["space"] == "standard" and row["widths"] == widths]
        )
        for widths in ("scaled", "drawn")
    }
    correlations = epoch_correlations(points_of(rows)) | {
        f"standard, {widths} ({len(points)})": correlations_of(
            np.array([point.accuracies for point in points])
        )
        for widths, points in standard.items()
    }
    print(markdown_of_correlations(correlations), end="\n\n")
    for widths, points in standard.items():
        print(f"{len(points)} trainings of `standard`, widths {widths}:", end="\n\n")
        results = {name: prune_recorded(points, name, n_orders=options.orders) for name in PRUNERS}
        print(markdown_of_pruners(results), end="\n\n")


if __name__ == "__main__":
    main()
