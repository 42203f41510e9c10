"""The shipped networks, from their cards, as tables in Markdown: all of them, then their layers.

python -m scripts.experiments.preset_table
"""

from __future__ import annotations

import json
import statistics

from search.folders import CARD_NAME
from search.results.race import mean_interval
from search.space.presets import PRESETS, preset_folder
from search.space.systems import find_system


def row(name: str) -> str:
    """One line: test accuracies in percent, of the mean of the last three epochs."""
    card = json.loads((preset_folder(name) / CARD_NAME).read_text(encoding="utf-8"))
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


def print_layers(name: str) -> None:
    spec = find_system(name).hyperparameters.spec
    print(f"\n`{name}`\n")
    print("| layer | output | parameters | receptive field |")
    print("| --- | ---: | ---: | ---: |")
    for line in spec.layer_table():
        shape = " × ".join(map(str, line.output_shape))
        print(f"| {line.layer} | {shape} | {line.parameters:,} | {line.receptive_field} |")
    print(f"| total | | {spec.parameter_count:,} | |")


def main() -> None:
    print(
        "| name | parameters | epochs | test accuracy, % | 95 % interval | spread | range "
        "| best epoch | seeds | seconds a run |"
    )
    print("| --- |" + " ---: |" * 9)
    for name in PRESETS:
        print(row(name))
    for name in PRESETS:
        print_layers(name)


if __name__ == "__main__":
    main()
