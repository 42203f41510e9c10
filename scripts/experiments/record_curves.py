"""Trains random points of the search spaces on MNIST and keeps every epoch's accuracy.

    python -m scripts.experiments.record_curves --data-dir DIR    # goes on where it stopped
    python -m scripts.experiments.record_curves --data-dir DIR --points 200

Each point trains for 15 epochs under a cap of 8,000 parameters, none is pruned, and the accuracy is
that on the validation images. Seven points in ten come from `standard`, three from `wide`; every
second one has its widths scaled to the cap, the others are drawn until they are under it. A point's
number seeds both its draw and its training. `replay.py` replays searches over the table.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import platform
import tomllib
from pathlib import Path
from typing import Any

import optuna

from search.data.load import load_dataset
from search.space.hyperparameters import Hyperparameters, OneCycle, StepDecay
from search.space.space import Space
from search.space.toml import STANDARD, WIDE
from search.training.epochs import EpochResult
from search.tuner.sampler import make_sampler
from search.workers.jobs import Job, JobDone, JobEpoch, run_jobs
from search.workers.setup import prepare_workers
from search_models import native

TABLE = Path(__file__).parents[2] / "tests" / "data" / "mnist_curves.csv.gz"
EPOCHS, CAP = 15, 8_000
# Wider than what is shipped, so that the curves can tell how wide that should be.
BROAD = {
    "learning_rate": {"low": 0.005, "high": 0.3, "log": True},
    "dropout": {"low": 0.0, "high": 0.15},
    "translation": {"low": 0.0, "high": 0.12},
}
COLUMNS = (
    "point",
    "space",
    "widths",
    "spec",
    "parameter_count",
    "learning_rate",
    "momentum",
    "weight_decay",
    "optimizer",
    "schedule",
    "warmup_share",
    "step_share",
    "step_gamma",
    "batch_size",
    "rotation_degrees",
    "translation",
    "scale",
    "shear_degrees",
    "seconds",
    "processor",
    *(f"accuracy_{epoch}" for epoch in range(1, EPOCHS + 1)),
)


def space_of(point: int) -> tuple[Space, str]:
    """The space that a point is drawn from, and how its widths are made."""
    is_wide, is_scaled = point % 10 >= 7, point % 2 == 0
    name, text, ranges = ("wide", WIDE, {}) if is_wide else ("standard", STANDARD, BROAD)
    table = {**tomllib.loads(text), **ranges, "budget_share": 1.0 if is_scaled else 0.0}
    return Space(name, table, parameter_cap=CAP), "scaled" if is_scaled else "drawn"


def draw(point: int) -> Hyperparameters:
    space, _ = space_of(point)
    sampler = make_sampler("random", space, seed=point, n_trials=0)
    return space.suggest(optuna.create_study(sampler=sampler).ask())


def row_of(point: int, results: list[EpochResult], seconds: float) -> dict[str, Any]:
    recipe = draw(point)
    schedule = recipe.schedule
    space, widths = space_of(point)
    return {
        "point": point,
        "space": space.name,
        "widths": widths,
        "spec": str(recipe.spec),
        "parameter_count": recipe.spec.parameter_count,
        **{
            name: getattr(recipe, name)
            for name in ("learning_rate", "momentum", "weight_decay", "optimizer", "batch_size")
        },
        "schedule": type(schedule).__name__,
        "warmup_share": schedule.warmup_share if isinstance(schedule, OneCycle) else "",
        "step_share": schedule.step_share if isinstance(schedule, StepDecay) else "",
        "step_gamma": schedule.gamma if isinstance(schedule, StepDecay) else "",
        **{
            name: getattr(recipe.augmentation, name)
            for name in ("rotation_degrees", "translation", "scale", "shear_degrees")
        },
        "seconds": round(seconds, 1),
        "processor": processor(),
        **{f"accuracy_{result.epoch}": round(result.accuracy, 5) for result in results},
    }


def processor() -> str:
    """Its name, and the vector instructions that the compiled step uses on it."""
    kernel = native.kernel()
    return f"{_processor_name()}, {kernel.isa if kernel else 'PyTorch'}"


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.machine()


def read_table(path: Path = TABLE) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_table(rows: list[dict[str, Any]], path: Path) -> None:
    """Writes the whole table anew, so that an interruption leaves the old one or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with gzip.open(partial, "wt", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: int(row["point"])))
    partial.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--points", type=int, default=160)
    parser.add_argument("--workers", type=int, help="default: one per core")
    parser.add_argument("--table", type=Path, default=TABLE)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rows: list[dict[str, Any]] = list(read_table(options.table))
    done = {int(row["point"]) for row in rows}
    missing = [point for point in range(options.points) if point not in done]
    jobs = [
        Job(key=point, hyperparameters=draw(point), epochs=EPOCHS, seed=point) for point in missing
    ]
    results: dict[int, list[EpochResult]] = {point: [] for point in missing}
    workers = prepare_workers(options.workers, "cpu")
    dataset = load_dataset("mnist", options.data_dir)
    with workers.pool(dataset, with_test=False) as pool:
        for event in run_jobs(pool, jobs):
            if isinstance(event, JobEpoch):
                results[event.key].append(event.result)
            elif isinstance(event, JobDone):
                rows.append(row_of(event.key, results[event.key], event.seconds))
                write_table(rows, options.table)
                print(f"{len(rows)}/{options.points}: point {event.key}", flush=True)


if __name__ == "__main__":
    main()
