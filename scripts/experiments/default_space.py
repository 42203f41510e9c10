"""What the values with which the default space begins are worth: one changed at a time.

    python -m scripts.experiments.default_space --task digits --data-dir DIR
    python -m scripts.experiments.default_space --task letters --folder FOLDER \\
        --changes growth=x0.5 augmentation=x0,blocks_1=2

On tasks other than those by which the default is judged. Every recipe is trained on the same folds
from the same seeds; what is printed is the mean, and its difference from the default's, paired.
Trainings are kept in docs/choices/default-space.jsonl, and not done again.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch

from scripts.experiments.trainings import TASKS, Run, Trainings, built_in_space, load_data
from search.space.space import Space

KEPT = Path("docs/choices/default-space.jsonl")
FACTORS = {
    "learning_rate": (0.5, 2.0),
    "batch_size": (0.5, 2.0),
    "weight_decay": (0.3, 3.0),
    "ema_epochs": (0.33, 2.0),
    "growth": (0.5, 1.6),
}
OTHERS: dict[str, dict[str, Any]] = {
    "plain blocks": {"block": "plain"},
    "three pools": {"pools": 3},
    "fewer blocks": {"blocks_1": 1, "blocks_2": 1, "blocks_3": 1},
    "more blocks": {"blocks_1": 2, "blocks_2": 3, "blocks_3": 3},
    "none at the first size": {"blocks_1": 0},
    "no elastic distortion": {"elastic": 0.0},
    "mirrored": {"flip": 0.5},
    "dropout": {"dropout": 0.05},
}
AUGMENTATION = ("rotation_degrees", "translation", "scale", "shear_degrees", "elastic")


def changed(first: dict[str, Any], text: str) -> dict[str, Any]:
    """The first values with what a text says, as `growth=x0.5,blocks_1=2`: a factor or a value."""
    found = dict(first)
    for part in text.split(","):
        name, value = part.split("=")
        names = AUGMENTATION if name == "augmentation" else (name,)
        for each in names:
            kind = type(first[each])
            found[each] = kind(first[each] * float(value[1:]) if value[0] == "x" else value)
    return found


def variants(space: Space) -> dict[str, dict[str, Any]]:
    """What is searched, as it begins and with one thing changed."""
    first = space.first()
    found = {"default": first}
    for name, factors in FACTORS.items():
        for factor in factors:
            value = first[name] * factor
            changed = max(2, round(value)) if isinstance(first[name], int) else value
            found[f"{name} x {factor:g}"] = {**first, name: changed}
    for factor in (0.0, 0.5, 1.5):
        changed = {name: first[name] * factor for name in AUGMENTATION}
        found[f"augmentation x {factor:g}"] = {**first, **changed}
    for words, values in OTHERS.items():
        if all(name in first for name in values):
            found[words] = {**first, **values}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--folder", type=Path, help="that scripts.experiments.varied_images wrote")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--changes", nargs="*", help="these, in the place of one at a time")
    options = parser.parse_args()
    torch.set_num_threads(1)
    name, cap, epochs, n_folds = TASKS[options.task]
    dataset = load_data(name, options.data_dir, options.folder)
    space = built_in_space("adaptive", dataset.info, cap, epochs)
    trainings = Trainings(KEPT)
    base: list[float] = []
    found_variants = variants(space)
    if options.changes is not None:
        first = space.first()
        found_variants = {
            "default": first,
            **{text: changed(first, text) for text in options.changes},
        }
    for words, values in found_variants.items():
        if options.only and words not in (*options.only, "default"):
            continue
        recipe = space.hyperparameters(values)
        found = [
            trainings.value(
                dataset,
                Run(recipe, epochs, i % n_folds, 101 + i),
                n_folds=n_folds,
                task=options.task,
                change=words,
            )
            for i in range(options.runs)
        ]
        base = base or found
        difference = [100 * (a - b) for a, b in zip(found, base, strict=True)]
        error = statistics.stdev(difference) / len(found) ** 0.5 if len(found) > 1 else 0.0
        print(
            f"{words:28} {100 * statistics.fmean(found):6.2f} % "
            f"{statistics.fmean(difference):+6.2f} ± {error:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
