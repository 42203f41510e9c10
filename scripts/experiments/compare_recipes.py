"""Recipes changed one thing at a time, trained with the same seeds: what of them holds.

    python -m scripts.experiments.compare_recipes claims --data-dir DIR --folder FOLDER
    python -m scripts.experiments.compare_recipes additions --data-dir DIR --folder FOLDER

`claims`: v36 by its author's recipe, and what the authors of the baselines explain their success
with. `additions`: the recipe with which the space `standard` begins, and what a space may add.
All train on the images that a search trains on and are judged on those that validate it, by the
mean of the last three epochs; the test set stays closed. Differences are taken seed by seed, with a
95 % confidence interval by Student's t. FOLDER keeps each run; what is there is not run again.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from dataclasses import replace
from pathlib import Path

from search.data.load import load_dataset
from search.results.ablation import make_row
from search.space.baselines import BASELINES
from search.space.hyperparameters import Augmentation, Constant, Hyperparameters
from search.space.space import Space
from search.workers.repeats import train_runs
from search.workers.setup import prepare_workers
from search_models.layers import Dropout, Layer, Pool
from search_models.network import in_notation
from search_models.size import receptive_field
from search_models.spec import ModelSpec

EPOCHS = 15
CAP = 8_000
PADDED = "c3p1, c3, drop, pool, c3p1, c3, drop, pool, c3p1, c3, gap, out"
SEPARABLE = (
    "c3p1, d3p1, c1, drop, pool, d3p1, c1, d3p1, c1, drop, pool, d3, c1, d3, c1, out+bias, gap"
)
Variants = dict[str, Hyperparameters]


def claims() -> Variants:
    """v36 and what is said to make such networks good."""
    recipe = BASELINES["v36"].hyperparameters
    own = BASELINES["v36"].with_own_momentum().hyperparameters
    dropped: list[Layer] = []
    for layer in in_notation(recipe.spec).layers:
        dropped += [layer, Dropout(0.05)] if isinstance(layer, Pool) else [layer]

    def network(notation: str) -> Hyperparameters:
        return replace(recipe, spec=ModelSpec.parse(notation))

    return {
        "v36": recipe,
        "momentum 0.98 as written": own,
        "momentum 0.9": replace(own, momentum=0.9),
        "no augmentation": replace(recipe, augmentation=Augmentation()),
        "rotation alone": replace(recipe, augmentation=Augmentation(rotation_degrees=7.0)),
        "translation alone": replace(recipe, augmentation=Augmentation(translation=0.1)),
        "dropout 0.05 behind each pool": replace(
            recipe, spec=replace(in_notation(recipe.spec), layers=tuple(dropped))
        ),
        "learning rate 0.015": replace(recipe, learning_rate=0.015),
        "constant learning rate": replace(recipe, schedule=Constant(), momentum=0.9),
        "a quarter more parameters": network(
            "c3 9, c3 12, pool, c3 14, pool, c3 17, c3 18, out+bias, gap"
        ),
        "half the parameters": network("c3 6, c3 7, pool, c3 8, pool, c3 11, c3 11, out+bias, gap"),
        "smaller receptive field": network(
            "c3 8, c3 10, pool, c3 12, pool, c3 26, c1 26, c1 26, out+bias, gap"
        ),
        "larger receptive field, reached earlier": network(
            "c3 8, pool, c3 12, pool, c3p1 14, c3p1 16, c3 16, out+bias, gap"
        ),
    }


def additions() -> Variants:
    """What a space may add to the recipe with which `standard` begins."""
    space = Space.load("standard", parameter_cap=CAP)
    first = space.first()
    recipe = space.hyperparameters(first)

    def changed(widths: tuple[int, ...] = (), **values: object) -> Hyperparameters:
        searched = {f"width_{i}": width for i, width in enumerate(widths, start=1)}
        # Ratios between the widths count: they are scaled to the cap.
        table = {**space.table, **searched, **values}
        varied = replace(space, table=table)
        return varied.hyperparameters({name: first[name] for name in varied.distributions})

    separable = changed((12, 24, 32, 32, 40, 48), topology=SEPARABLE)
    smooth = changed((12, 24, 32, 32, 40, 48), topology=SEPARABLE, activation="hardswish")
    return {
        "first recipe of standard": recipe,
        "batches of 64, learning rate 0.07": replace(recipe, batch_size=64, learning_rate=0.07),
        "batches of 32, learning rate 0.05": replace(recipe, batch_size=32, learning_rate=0.05),
        "hard swish": changed(activation="hardswish"),
        "padded": changed((8, 12, 14, 14, 16, 18), topology=PADDED),
        "padded, depthwise separable": separable,
        "the same with hard swish and batches of 32, learning rate 0.05": replace(
            smooth, batch_size=32, learning_rate=0.05
        ),
        "weights averaged over an epoch": replace(recipe, ema_epochs=1.0),
        "label smoothing 0.03": replace(recipe, label_smoothing=0.03),
        "augmentation shrinking to nothing": replace(recipe, final_augmentation=0.0),
        "augmentation shrinking to 0.3": replace(recipe, final_augmentation=0.3),
    }


def train(variants: Variants, seeds: int, data_dir: Path, folder: Path) -> dict[str, list[float]]:
    """Each variant's accuracies, one a seed; NaN where the loss did not stay finite.

    Trains those that `folder` does not have.
    """
    workers = prepare_workers(None, "cpu")
    dataset = load_dataset("mnist", data_dir)
    path = folder / "runs.jsonl"
    kept: dict[tuple[str, int], float] = {}
    if path.exists():
        for line in path.read_text().splitlines():
            run = json.loads(line)
            kept[json.dumps(run["recipe"]), run["seed"]] = run["accuracy"]
    runs = [
        (recipe, 0, seed)
        for seed in range(seeds)
        for recipe in variants.values()
        if (json.dumps(recipe.to_dict()), seed) not in kept
    ]
    n_jobs = max(len(runs), 1)
    with workers.pool(dataset, with_test=False, n_jobs=n_jobs) as pool, path.open("a") as file:
        for index, repeat in train_runs(
            pool, runs, epochs=EPOCHS, device=workers.device, should_stop=lambda: False
        ):
            if repeat.is_finite and len(repeat.epochs) < EPOCHS:
                continue
            recipe, _, seed = runs[index]
            accuracy = repeat.last_three_mean if repeat.is_finite else math.nan
            entry = {"recipe": recipe.to_dict(), "seed": seed, "accuracy": accuracy}
            print(json.dumps(entry), file=file, flush=True)
            kept[json.dumps(recipe.to_dict()), seed] = accuracy
    return {
        name: [kept[json.dumps(recipe.to_dict()), seed] for seed in range(seeds)]
        for name, recipe in variants.items()
    }


def print_table(variants: Variants, accuracies: dict[str, list[float]]) -> None:
    """In Markdown; accuracies in percent with their standard deviation, differences in points."""
    print("| recipe | parameters | receptive field | accuracy, % | difference | 95 % interval | |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | --- |")
    reference = None
    for name, recipe in variants.items():
        values = accuracies[name]
        count = recipe.spec.parameter_count
        is_diverged = any(map(math.isnan, values))
        row = make_row(name, count, values, is_diverged=is_diverged, reference=reference)
        cells = [name, f"{count:,}", str(receptive_field(in_notation(recipe.spec))), "", "", "", ""]
        if row.mean is not None:
            cells[3] = f"{100 * row.mean:.3f} ± {100 * statistics.stdev(values):.3f}"
        if row.difference is not None and row.interval is not None:
            low, high = row.interval
            cells[4] = f"{100 * row.difference:+.3f}"
            cells[5] = f"{100 * low:+.3f} to {100 * high:+.3f}"
        cells[6] = row.verdict or ""
        print(f"| {' | '.join(cells)} |")
        reference = reference or row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    groups = {"claims": claims, "additions": additions}
    parser.add_argument("group", choices=groups)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3, help="at least 2")
    arguments = parser.parse_args()
    if arguments.seeds < 2:
        parser.error("--seeds must be 2 or more: one seed has no spread.")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    variants = groups[arguments.group]()
    accuracies = train(variants, arguments.seeds, arguments.data_dir, arguments.folder)
    print_table(variants, accuracies)


if __name__ == "__main__":
    main()
