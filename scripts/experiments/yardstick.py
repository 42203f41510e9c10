"""Recipes side by side over folds of the development images, paired by fold and seed.

    python -m scripts.experiments.yardstick --task mnist-8000 --data-dir DIR --winners URL ...

For each task: the recipe with which the space `standard` begins, what the default space begins
with, a hand-made space's winner, where there is one, and what searches have found, each the
last of its database. Each fold holds out a sixth of MNIST's 60,000 development images (a fifth of
the embedded digits) and trains once. Trainings are kept in docs/choices/yardstick.jsonl, and not
done again; the test set is not looked at.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import torch

from scripts.experiments.trainings import Run, Trainings, built_in_space
from search.data.dataset import DatasetInfo
from search.data.load import load_dataset
from search.results.race import mean_interval
from search.space.hyperparameters import Hyperparameters
from search.space.network_files import load_network, read_network
from search.space.systems import find_system
from search.storage.open import opened_storage
from search.study.open import rebuild, select_study
from search.study.summary import chosen_trial
from search.study.trials import trials_of

KEPT = Path("docs/choices/yardstick.jsonl")
TASKS = {  # data set, cap, epochs, folds, the hand-made space's winner
    "mnist-8000": ("mnist", 8_000, 15, 6, "expert-8k"),
    "mnist-5000": ("mnist", 5_000, 15, 6, "expert-small"),
    "mnist-20000": ("mnist", 20_000, 19, 6, "expert-20k"),
    "mnist-25000": ("mnist", 25_000, 1, 6, "expert-1-epoch"),
    "digits-8000": ("digits", 8_000, 15, 5, None),
    "fashion-8000": ("fashion-mnist", 8_000, 15, 6, None),
}


def _first(name: str, info: DatasetInfo, cap: int, epochs: int) -> Hyperparameters:
    """The recipe with which a built-in space begins."""
    space = built_in_space(name, info, cap, epochs)
    return space.hyperparameters(space.first())


def _winner(url: str) -> Hyperparameters:
    """The recipe for which the last study of a database stands: its race's winner, or its best."""
    with opened_storage(url) as storage:
        study = select_study(storage, None)
        trial = chosen_trial(study, trials_of(study))
        if trial is None:
            raise SystemExit(f"A study must have a complete trial, but that at {url} has none.")
        return rebuild(study, trial)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--rounds", type=int, default=1, help="through the folds, with other seeds")
    parser.add_argument("--winners", nargs="*", default=[], metavar="URL")
    parser.add_argument("--folds", type=int, nargs="*", help="some of them, for several processes")
    parser.add_argument("--networks", nargs="*", default=[], metavar="FILE", help="of the winners")
    parser.add_argument("--beside", metavar="RECIPE", help="which the others are compared with")
    parser.add_argument("--leave-out", nargs="*", default=[], metavar="RECIPE", help="by its name")
    options = parser.parse_args()
    torch.set_num_threads(1)
    name, cap, epochs, n_folds, winner = TASKS[options.task]
    dataset = load_dataset(name, options.data_dir)
    for path in options.networks:
        load_network(read_network(path))
    recipes = {"adaptive's first": _first("adaptive", dataset.info, cap, epochs)}
    if dataset.info.input_shape[-1] >= 28:  # which its topology needs
        recipes["standard's first"] = _first("standard", dataset.info, cap, epochs)
    if winner is not None:
        recipes[winner] = find_system(winner).hyperparameters
    for place, url in enumerate(options.winners, start=1):
        recipes[f"winner {place}"] = _winner(url)
    recipes = {words: recipe for words, recipe in recipes.items() if words not in options.leave_out}
    trainings = Trainings(KEPT)
    values: dict[str, list[float]] = {words: [] for words in recipes}
    folds = options.folds or range(n_folds)
    for fold, seed in ((f, 201 + n_folds * r + f) for r in range(options.rounds) for f in folds):
        for words, recipe in recipes.items():
            run = Run(recipe, epochs, fold, seed)
            value = trainings.value(dataset, run, n_folds=n_folds, task=options.task, recipe=words)
            values[words].append(100 * value)
            print(f"fold {fold}, seed {seed}: {words}: {100 * value:.3f} %", flush=True)
    base = options.beside if options.beside in values else next(iter(values))
    for words, found in values.items():
        differences = [a - b for a, b in zip(found, values[base], strict=True)]
        interval = mean_interval(differences) if words != base else None
        shown = "" if interval is None else f"  ({interval[0]:+.3f} to {interval[1]:+.3f})"
        difference = statistics.fmean(differences)
        print(f"{words:20} {statistics.fmean(found):.3f} %  {difference:+.3f}{shown}")


if __name__ == "__main__":
    main()
