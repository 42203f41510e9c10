"""Every baseline by its author's protocol over several seeds, claimed beside measured.

    python -m scripts.experiments.measure_baselines --data-dir DIR --folder FOLDER

Runs `search baseline NAME --seeds 3 --json` for each, the OneCycle recipes with both readings of
their momentum, and prints a table in Markdown. FOLDER keeps what each command printed; what is
there is not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from search.files import write_text
from search.space.baselines import BASELINES


def measure(name: str, options: tuple[str, ...], data_dir: Path, folder: Path) -> dict[str, Any]:
    """What `search baseline NAME OPTIONS --json` prints, kept in `folder`."""
    path = folder / f"{name}{''.join(options)}.json"
    if not path.exists():
        command = (sys.executable, "-m", "search", "baseline", name, *options, "--json")
        ran = subprocess.run(
            (*command, "--data-dir", str(data_dir)), stdout=subprocess.PIPE, text=True, check=True
        )
        write_text(ran.stdout, path)
    measured: dict[str, Any] = json.loads(path.read_text())
    return measured


def row(shown: str, measured: dict[str, Any]) -> str:
    """One line of the table; accuracies in percent, mean ± standard deviation over the seeds."""
    claimed, runs = measured["claimed_percent"], measured["runs"]
    cells = [f"`{shown}`", f"{measured['parameter_count']:,}"]
    for key in ("best_epoch", "last_epoch", "last_three_mean"):
        cells.append("–" if claimed[key] is None else f"{claimed[key]:.2f}")
    accuracies = [run["accuracies"] for run in runs]
    cells.append(spread([max(each) for each in accuracies]))
    cells.append(spread([each[-1] for each in accuracies]))
    cells.append(spread([run["last_three_mean"] for run in runs]))
    cells.append(f"{statistics.median(run['seconds'] for run in runs):.0f}")
    return f"| {' | '.join(cells)} |"


def spread(values: list[float]) -> str:
    mean = f"{100 * statistics.fmean(values):.2f}"
    return mean if len(values) < 2 else f"{mean} ± {100 * statistics.stdev(values):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    print(
        "| baseline | parameters | claimed: best epoch | last epoch | last three "
        "| measured: best epoch | last epoch | last three | seconds |"
    )
    print("| --- |" + " ---: |" * 8)
    for name, system in BASELINES.items():
        readings = ((), ("--own-momentum",)) if system.has_cycled_momentum else ((),)
        for reading in readings:
            options = (*reading, "--seeds", str(arguments.seeds))
            measured = measure(name, options, arguments.data_dir, arguments.folder)
            print(row(" ".join((name, *reading)), measured), flush=True)


if __name__ == "__main__":
    main()
