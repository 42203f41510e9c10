"""What the searches in docs/choices/peers.jsonl found, as Markdown.

    python -m scripts.experiments.peers.table

A row a way: the mean of what it found on each task, in percent, and over all tasks the mean of
its paired differences from ours, in standard deviations that the first configuration's trainings
scatter by on the task, with Student's 95 % interval over tasks and seeds.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping

from scripts.experiments.peers.play import KEPT
from scripts.experiments.peers.tasks import IMAGES, seed_noise
from search.results.race import mean_interval

OURS = "ours"
Found = Mapping[tuple[str, str, int], float]  # by task, way and seed


def read(length: int) -> dict[tuple[str, str, int], float]:
    """What searches of that length have found, as shares."""
    rows = map(json.loads, KEPT.read_text().splitlines())
    return {
        (row["task"], row["way"], row["seed"]): row["found"]
        for row in rows
        if row["length"] == length
    }


def markdown(found: Found, noise: Mapping[str, float]) -> str:
    """A row a way, those that found most first."""
    tasks = [task for task in IMAGES if any(key[0] == task for key in found)]
    rows = []
    for way in {key[1] for key in found}:
        differences = [
            (value - found[task, OURS, seed]) / noise[task]
            for (task, other, seed), value in found.items()
            if other == way and (task, OURS, seed) in found
        ]
        values = [
            [100 * v for (t, w, _), v in found.items() if (t, w) == (task, way)] for task in tasks
        ]
        means = [f"{statistics.fmean(each):.2f}" if each else "" for each in values]
        rows.append((statistics.fmean(differences), way, differences, means))
    lines = [
        f"| search | {' | '.join(tasks)} | beside ours | searches |",
        f"| --- |{' ---: |' * (len(tasks) + 2)}",
    ]
    for mean, way, differences, means in sorted(rows, reverse=True):
        interval = None if way == OURS else mean_interval(differences)
        beside = (
            "" if interval is None else f"{mean:+.2f} ({interval[0]:+.2f} to {interval[1]:+.2f})"
        )
        lines.append(f"| {way} | {' | '.join(means)} | {beside} | {len(differences)} |")
    return "\n".join(lines)


def main() -> None:
    noise = {task: seed_noise(task) for task in IMAGES}
    lengths = sorted({json.loads(line)["length"] for line in KEPT.read_text().splitlines()})
    for length in lengths:
        print(f"{length} whole trainings:", end="\n\n")
        print(markdown(read(length), noise), end="\n\n")


if __name__ == "__main__":
    main()
