"""How fast trials train on a GPU, alone and eight at once, and whether they are as accurate there.

    python -m scripts.benchmarks.gpu_trials --data-dir DIR > gpu.jsonl

A line of JSON as each thing is measured, so that a machine that goes away has told what it knew:
the machine; a trial alone (`expert-8k`, 15 epochs of MNIST, on images that a search trains on);
eight at once, each in a worker of its own, as `search run --device cuda --workers 8` has them; and
the same seeds by the native step on this machine's processor. A worker trains one epoch before it
is timed, which is when CUDA and its graphs are made ready.

The script itself is tried where there is no GPU by

    python -m scripts.benchmarks.gpu_trials --dataset digits --device cpu --epochs 1
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from search.data.dataset import Dataset
from search.data.load import load_dataset
from search.space.systems import find_system
from search.training.epochs import EpochResult, last_epochs_mean
from search.workers.jobs import Job, JobEpoch, WorkerPool, run_jobs
from search.workers.setup import local_workers

_N_SEEDS = 3  # of the accuracy that is compared


def train_at_once(
    dataset: Dataset, name: str, *, epochs: int, seeds: list[int], workers: int, device: str
) -> tuple[float, dict[int, float]]:
    """Trains a system once a seed.

    Returns:
        Seconds from the first job's start to the last one's end, and by seed the accuracy: the mean
        of its last three epochs on the validation images, as a share from 0 to 1.
    """
    recipe = find_system(name).hyperparameters
    with local_workers(workers, device).pool(dataset, with_test=False) as pool:
        _warm_up(pool, [Job(key, recipe, 1, 0, device=device) for key in range(workers)])
        jobs = [Job(seed, recipe, epochs, seed, device=device) for seed in seeds]
        results: dict[int, list[EpochResult]] = {seed: [] for seed in seeds}
        started = time.perf_counter()
        for event in run_jobs(pool, jobs):
            if isinstance(event, JobEpoch):
                results[event.key].append(event.result)
        seconds = time.perf_counter() - started
    return seconds, {seed: last_epochs_mean(run) for seed, run in results.items()}


def _warm_up(pool: WorkerPool, jobs: list[Job]) -> None:
    """Has every worker train one of the jobs, all at the same time."""
    while pool.n_idle < len(jobs):
        for event in pool.events(timeout=0.1):
            raise RuntimeError(f"A worker must only start, but it told of {event}.")
    for _ in run_jobs(pool, jobs):
        pass


def machine(device: str) -> dict[str, Any]:
    """What it is measured on."""
    is_gpu = torch.device(device).type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if is_gpu else platform.processor() or device,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def tell(**values: Any) -> None:
    print(json.dumps(values), flush=True)


def spread(accuracies: dict[int, float]) -> dict[str, Any]:
    """Percent, with the standard deviation over seeds."""
    percent = [100 * accuracies[seed] for seed in sorted(accuracies)[:_N_SEEDS]]
    deviation = statistics.stdev(percent) if len(percent) > 1 else None
    return {"accuracies": percent, "mean": statistics.fmean(percent), "deviation": deviation}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument(
        "--name", default="expert-8k", help="a system, as 'search baseline' has them"
    )
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--at-once", type=int, default=8)
    options = parser.parse_args()
    dataset = load_dataset(options.dataset, options.data_dir)
    same = {"epochs": options.epochs, "device": options.device}
    tell(what="machine", **machine(options.device))

    alone, _ = train_at_once(dataset, options.name, seeds=[1], workers=1, **same)
    n_steps = options.epochs * (
        dataset.info.n_training // find_system(options.name).hyperparameters.batch_size
    )
    tell(what="alone", seconds=alone, microseconds_a_step=1e6 * alone / n_steps)

    seeds = list(range(1, options.at_once + 1))
    together, accuracies = train_at_once(
        dataset, options.name, seeds=seeds, workers=len(seeds), **same
    )
    share = alone / together  # each would take as long as one alone
    tell(what=f"{len(seeds)} at once", seconds=together, share_of_full_rate=share)
    tell(what="accuracy there", **spread(accuracies))

    reference = seeds[:_N_SEEDS]
    workers = min(len(reference), len(os.sched_getaffinity(0)))
    _, accuracies = train_at_once(
        dataset, options.name, epochs=options.epochs, seeds=reference, workers=workers, device="cpu"
    )
    tell(what="accuracy of the native step", **spread(accuracies))


if __name__ == "__main__":
    main()
