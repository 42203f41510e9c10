"""Searches of recorded tasks by ours and by peers, at equal training seconds.

    python -m scripts.experiments.peers.play --environments FOLDER --searches 20

Each search begins with the same first configuration, trains one network at a time, and ends with
the same race. What it found is a line in docs/choices/peers.jsonl, and is not searched again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import optuna

from scripts.experiments.peers.client import play_peer
from scripts.experiments.peers.tasks import IMAGES, RecordedTask, RecordedTrainer, recorded_task
from scripts.experiments.peers.ways import WAYS

KEPT = Path("docs/choices/peers.jsonl")
PEERS = ("neps", "smac", "syne-asha", "syne-cqr", "syne-bohb")
LENGTHS = (8, 20)  # whole trainings of the first configuration that a search may cost


def play(way: str, task: RecordedTask, seed: int, length: int, environments: Path) -> float:
    """The true value of what one search finds, as a share."""
    seconds = length * task.whole_seconds + 1e-9
    trainer = RecordedTrainer(task, seed=seed, seconds=seconds)
    if way in WAYS:
        WAYS[way](trainer)
    else:
        play_peer(way, environments, trainer)
    return trainer.winner()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environments", type=Path, required=True)
    parser.add_argument("--tasks", nargs="*", choices=IMAGES, default=[*IMAGES])
    parser.add_argument("--ways", nargs="*", default=[*WAYS, *PEERS])
    parser.add_argument("--lengths", type=int, nargs="*", default=[*LENGTHS])
    parser.add_argument("--searches", type=int, default=20, help="of each way, with seeds from 0")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rows = map(json.loads, KEPT.read_text().splitlines()) if KEPT.exists() else ()
    known = {(row["task"], row["way"], row["length"], row["seed"]) for row in rows}
    for name in options.tasks:
        task = recorded_task(name)
        for seed in range(options.searches):
            for way in options.ways:
                for length in options.lengths:
                    if (name, way, length, seed) in known:
                        continue
                    found = play(way, task, seed, length, options.environments.resolve())
                    row = {"task": name, "way": way, "length": length, "seed": seed}
                    with KEPT.open("a") as file:
                        file.write(json.dumps({**row, "found": round(found, 5)}) + "\n")


if __name__ == "__main__":
    main()
