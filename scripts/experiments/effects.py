"""What each hyperparameter brings near the first values, from all draws of a task at once.

    python -m scripts.experiments.effects --task mnist-large

The value of each draw in docs/choices/draws.jsonl (`scripts.experiments.draws`) is regressed on all
that was drawn, numbers in standard deviations of the draws and on a logarithmic scale where they
are drawn on one, so that each training tells of everything, where one change at a time tells of one
thing. Draws of which a loss did not stay finite, or far below the others, are left out: a straight
line says nothing of them. Printed are the effect of one standard deviation, or of a choice against
the first one, and its standard error, in points.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable
from typing import Any

import numpy as np

from scripts.experiments.draws import KEPT, WAYS
from search.space.adaptive import Situation, adaptive_table

_LEFT_OUT = 0.2  # of the draws, the weakest


def read(task: str, ways: Iterable[str]) -> tuple[list[dict[str, Any]], list[float]]:
    """What was drawn, and its values in percent."""
    rows = [json.loads(line) for line in KEPT.read_text().splitlines()]
    rows = [row for row in rows if row["task"] == task and row["way"] in ways]
    values = [100 * statistics.fmean(row["accuracies"][-3:]) for row in rows]
    least = sorted(values)[int(_LEFT_OUT * len(values))]
    kept = [i for i, value in enumerate(values) if value >= least]
    return [rows[i]["drawn"] for i in kept], [values[i] for i in kept]


def columns(drawn: list[dict[str, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """A column a number or a choice but the commonest, of mean 0; numbers of deviation 1."""
    table = adaptive_table(Situation())
    found: dict[str, np.ndarray[Any, Any]] = {}
    for name in drawn[0]:
        values = [each[name] for each in drawn]
        entry = table[name]
        if isinstance(entry, dict) and "low" in entry:
            column = np.array(values, float)
            column = np.log(column) if entry.get("log") else column
            if column.std() > 0:
                found[name] = (column - column.mean()) / column.std()
            continue
        commonest = statistics.mode(values)
        for choice in sorted(set(values) - {commonest}, key=str):
            column = np.array([value == choice for value in values], float)
            found[f"{name} = {choice}"] = column - column.mean()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", required=True)
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=["near", "nearer"])
    options = parser.parse_args()
    drawn, values = read(options.task, options.ways)
    named = columns(drawn)
    matrix = np.column_stack([np.ones(len(values)), *named.values()])
    effects, _, rank, _ = np.linalg.lstsq(matrix, np.array(values), rcond=None)
    freedom = len(values) - int(rank)
    residuals = np.array(values) - matrix @ effects
    std = float(np.sqrt((residuals**2).sum() / max(1, freedom)))
    errors = std * np.sqrt(np.diag(np.linalg.pinv(matrix.T @ matrix)))
    print(
        f"{options.task}: {len(values)} draws, mean {effects[0]:.3f} %, a run scatters by {std:.3f}"
    )
    for name, effect, error in zip(named, effects[1:], errors[1:], strict=True):
        print(f"  {name:24} {effect:+.3f} ± {error:.3f}")


if __name__ == "__main__":
    main()
