"""What networks are worth that are drawn evenly from the default space, or near its first values.

    python -m scripts.experiments.draws --task mnist-small --data-dir DIR
    python -m scripts.experiments.draws --task mnist-large --data-dir DIR --ways wider

"Wider" draws are near, of what the space fixes too, and keep the choices that are known to be worse
when changed (the kind of block, a pool more, mirroring). Each is trained once, on another fold;
the value is the mean of the last three epochs. Trainings are kept in docs/choices/draws.jsonl
with every epoch's accuracy, and not done again.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from scripts.experiments.trainings import TASKS, Run, Trainings, built_in_space, load_data
from search.space.space import Space

KEPT = Path("docs/choices/draws.jsonl")
WAYS: dict[str, float | None] = {"evenly": None, "near": 0.2, "nearer": 0.1, "wider": 0.15}
KEPT_AS_FIRST = ("block", "pools", "flip")
ALSO_SEARCHED: dict[str, dict[str, Any]] = {
    "label_smoothing": {"low": 0.0, "high": 0.1},
    "final_augmentation": {"low": 0.0, "high": 1.0},
    "warmup_share": {"low": 0.05, "high": 0.4},
}


def wider(space: Space) -> Space:
    """The space with what "wider" draws search, without what they keep."""
    first = space.first()
    kept = {name: first[name] for name in KEPT_AS_FIRST if name in first}
    return replace(space, table={**space.table, **kept, **ALSO_SEARCHED})


def draw(space: Space, chance: random.Random, *, spread: float | None) -> dict[str, Any]:
    """Values of what is searched, evenly or about the first; `spread` is a share of each range."""
    first = space.first()
    values: dict[str, Any] = {}
    for name, distribution in space.distributions.items():
        match distribution:
            case FloatDistribution(low=low, high=high, log=log):
                ends = (math.log(low), math.log(high)) if log else (low, high)
                if spread is None or name in ALSO_SEARCHED:
                    value = chance.uniform(*ends)
                else:
                    begin = math.log(first[name]) if log else first[name]
                    value = math.inf
                    while not ends[0] <= value <= ends[1]:
                        value = chance.gauss(begin, spread * (ends[1] - ends[0]))
                values[name] = math.exp(value) if log else value
            case IntDistribution(low=low, high=high):
                even = spread is None or chance.random() < 2 * spread
                values[name] = chance.randint(low, high) if even else first[name]
            case CategoricalDistribution(choices=choices):
                even = spread is None or chance.random() < 2 * spread
                values[name] = chance.choice(choices) if even else first[name]
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--folder", type=Path, help="that scripts.experiments.varied_images wrote")
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--from-draw", type=int, default=0, help="for several processes")
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=["evenly", "near", "nearer"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    name, cap, epochs, n_folds = TASKS[options.task]
    dataset = load_data(name, options.data_dir, options.folder)
    space = built_in_space("adaptive", dataset.info, cap, epochs)
    trainings = Trainings(KEPT)
    values: dict[str, list[float]] = {words: [] for words in options.ways}
    for number in range(options.from_draw, options.from_draw + options.draws):
        for words in options.ways:
            drawn_from = wider(space) if words == "wider" else space
            drawn = draw(drawn_from, random.Random(f"{words} {number}"), spread=WAYS[words])
            recipe = drawn_from.hyperparameters(drawn)
            value = trainings.value(
                dataset,
                Run(recipe, epochs, number % n_folds, 301 + number),
                n_folds=n_folds,
                task=options.task,
                way=words,
                drawn={key: round(v, 5) if isinstance(v, float) else v for key, v in drawn.items()},
            )
            values[words].append(100 * value)
    for words, found in values.items():
        found = sorted(found, reverse=True)
        tenth = statistics.fmean(found[: max(1, len(found) // 10)])
        print(
            f"{options.task:12} {words:8} median {statistics.median(found):.2f}, best tenth "
            f"{tenth:.2f}, best {found[0]:.2f}, least {found[-1]:.2f} % (n = {len(found)})",
            flush=True,
        )


if __name__ == "__main__":
    main()
