"""Recipes changed one thing at a time, trained with the same seeds: what of them holds.

    python scripts/compare_recipes.py claims --data-dir DIR --folder FOLDER
    python scripts/compare_recipes.py additions --data-dir DIR --folder FOLDER

`claims`: v36 by its author's recipe, and what the authors of the baselines explain their success
with. `additions`: the recipe with which the space `standard` begins, and what a space may add.
All train on the images that a search trains on and are judged on those that validate it, by the
mean of the last three epochs; the test set stays closed. Differences are taken seed by seed, with a
95 % confidence interval by Student's t. FOLDER keeps each run; what is there is not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path

from models.size import parameter_count, receptive_field
from models.spec import Dropout, Layer, ModelSpec, Pool, Topology
from search.ablation import Difference
from search.baselines import BASELINES
from search.data import dataset_files, load_dataset
from search.hyperparameters import Augmentation, Constant, Hyperparameters, OneCycle
from search.processes import start_server
from search.repeats import train_recipes
from search.space import Space
from search.training import last_epochs_mean
from search.workers import WorkerPool, default_worker_count

EPOCHS = 15
CAP = 8_000
Variants = dict[str, Hyperparameters]


def claims() -> Variants:
    """v36 and what is said to make such networks good."""
    recipe = BASELINES["v36"].hyperparameters
    own = OneCycle(warmup_share=0.05, div_factor=10.0, final_div_factor=100.0)
    dropped: list[Layer] = []
    for layer in recipe.spec.layers:
        dropped += [layer, Dropout(0.05)] if isinstance(layer, Pool) else [layer]

    def network(notation: str) -> Hyperparameters:
        return replace(recipe, spec=ModelSpec.parse(notation))

    return {
        "v36": recipe,
        "momentum 0.98 as written": replace(recipe, schedule=own),
        "momentum 0.9": replace(recipe, schedule=own, momentum=0.9),
        "no augmentation": replace(recipe, augmentation=Augmentation()),
        "rotation alone": replace(recipe, augmentation=Augmentation(rotation_degrees=7.0)),
        "translation alone": replace(recipe, augmentation=Augmentation(translation=0.1)),
        "dropout 0.05 behind each pool": replace(
            recipe, spec=replace(recipe.spec, layers=tuple(dropped))
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
    recipe = space.hyperparameters(space.first(CAP))
    separable = "c3, c3, drop, pool, d3, c1, d3, c1, drop, pool, d3, c1, out+bias, gap"
    table = {**space.table, "topology": separable, "budget_share": 1.0}
    widths = dict(zip((f"width_{i}" for i in range(1, 6)), (8, 14, 24, 30, 40), strict=True))
    separable_spec = replace(space, table=table).spec({**space.first(CAP), **widths})
    topology = Topology("c3, c3, drop, pool, c3, drop, pool, c3, c3, out+bias, gap")
    smooth = topology.spec(
        [layer.channels for layer in recipe.spec.layers if hasattr(layer, "channels")],
        dropout=0.02,
        activation="hardswish",
    )
    return {
        "first recipe of standard": recipe,
        "batches of 64, learning rate 0.07": replace(recipe, batch_size=64, learning_rate=0.07),
        "batches of 32, learning rate 0.05": replace(recipe, batch_size=32, learning_rate=0.05),
        "hard swish": replace(recipe, spec=smooth),
        "depthwise separable": replace(recipe, spec=separable_spec),
        "weights averaged over an epoch": replace(recipe, ema_epochs=1.0),
        "label smoothing 0.03": replace(recipe, label_smoothing=0.03),
        "augmentation shrinking to nothing": replace(recipe, final_augmentation=0.0),
        "augmentation shrinking to 0.3": replace(recipe, final_augmentation=0.3),
    }


def train(variants: Variants, seeds: int, data_dir: Path, folder: Path) -> dict[str, list[float]]:
    """Each variant's accuracies, one a seed; trains those that `folder` does not have."""
    dataset = load_dataset("mnist", data_dir)
    path = folder / "runs.jsonl"
    kept: dict[tuple[str, int], float] = {}
    if path.exists():
        for line in path.read_text().splitlines():
            run = json.loads(line)
            kept[json.dumps(run["recipe"]), run["seed"]] = run["accuracy"]
    runs = [
        (recipe, seed)
        for seed in range(seeds)
        for recipe in variants.values()
        if (json.dumps(recipe.to_dict()), seed) not in kept
    ]
    start_server()
    n_workers = min(default_worker_count(), max(len(runs), 1))
    with (
        dataset_files(dataset, with_test=False) as files,
        WorkerPool(n_workers, files) as pool,
        path.open("a") as file,
    ):
        for place, repeat in train_recipes(
            pool, runs, epochs=EPOCHS, device="cpu", should_stop=lambda: False
        ):
            if len(repeat.epochs) < EPOCHS:
                continue
            recipe, seed = runs[place]
            accuracy = last_epochs_mean(repeat.epochs)
            entry = {"recipe": recipe.to_dict(), "seed": seed, "accuracy": accuracy}
            print(json.dumps(entry), file=file, flush=True)
            kept[json.dumps(recipe.to_dict()), seed] = accuracy
    return {
        name: [kept[json.dumps(recipe.to_dict()), seed] for seed in range(seeds)]
        for name, recipe in variants.items()
    }


def print_table(variants: Variants, accuracies: dict[str, list[float]]) -> None:
    """In Markdown; accuracies in percent, differences in points."""
    print("| recipe | parameters | receptive field | accuracy, % | difference | 95 % interval | |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | --- |")
    reference = next(iter(accuracies.values()))
    for name, recipe in variants.items():
        own = accuracies[name]
        cells = [name, f"{parameter_count(recipe.spec):,}", str(receptive_field(recipe.spec))]
        cells.append(f"{100 * statistics.fmean(own):.3f} ± {100 * statistics.stdev(own):.3f}")
        if own is not reference:
            found = Difference.of([a - b for a, b in zip(own, reference, strict=True)])
            low, high = found.interval or (0.0, 0.0)
            cells.append(f"{100 * found.mean:+.3f}")
            cells.append(f"{100 * low:+.3f} to {100 * high:+.3f}")
            cells.append(str(found.verdict))
        else:
            cells += ["", "", ""]
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    groups = {"claims": claims, "additions": additions}
    parser.add_argument("group", choices=groups)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3, help="at least 2")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    variants = groups[arguments.group]()
    accuracies = train(variants, arguments.seeds, arguments.data_dir, arguments.folder)
    print_table(variants, accuracies)


if __name__ == "__main__":
    main()
