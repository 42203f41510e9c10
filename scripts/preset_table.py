"""The shipped networks, from their cards, as a table in Markdown.

python scripts/preset_table.py
"""

from __future__ import annotations

import json
import statistics

from search.folders import PRESETS, preset_folder
from search.race import mean_interval


def row(name: str) -> str:
    """One line: test accuracies in percent, of the mean of the last three epochs."""
    card = json.loads((preset_folder(name) / "card.json").read_text(encoding="utf-8"))
    runs = card["runs"]
    values = [100 * run["last_three_mean"] for run in runs]
    interval = mean_interval(values)
    assert interval is not None  # each has five runs
    best = statistics.fmean(100 * run["best_accuracy"] for run in runs)
    cells = (
        f"`{name}`",
        f"{card['parameter_count']:,}",
        str(card["epochs"]),
        f"{statistics.fmean(values):.3f}",
        f"{interval[0]:.3f} to {interval[1]:.3f}",
        f"{statistics.stdev(values):.3f}",
        f"{min(values):.2f} to {max(values):.2f}",
        f"{best:.2f}",
        str(len(values)),
        f"{statistics.median(run['seconds'] for run in runs):.0f}",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    print(
        "| name | parameters | epochs | test accuracy, % | 95 % interval | spread | range "
        "| best epoch | seeds | seconds a run |"
    )
    print("| --- |" + " ---: |" * 9)
    for name in PRESETS:
        print(row(name))


if __name__ == "__main__":
    main()
