"""NePS, in an environment of its own: PriorBand with the first configuration as its prior."""

import json
import random
import sys
from typing import Any

import neps
import numpy as np
import torch
from neps.optimizers import algorithms


def main() -> None:
    task = json.loads(sys.stdin.readline())
    space = {name: parameter(each, task["first"][name]) for name, each in task["space"].items()}
    space["epoch"] = neps.HPOInteger(1, task["epochs"], is_fidelity=True)
    classic = neps.SearchSpace(space)
    random.seed(task["seed"])
    np.random.seed(task["seed"])
    torch.manual_seed(task["seed"])
    search = neps.AskAndTell(algorithms.priorband(classic, sample_prior_first="highest_fidelity"))
    while True:
        trial = search.ask()
        values = dict(trial.config)
        epoch = int(values.pop("epoch"))
        # A configuration that goes on has the number of its first training before its rung's.
        key = trial.metadata.id.rsplit("_", 1)[0]
        print(json.dumps({"key": key, "values": values, "epoch": epoch}), flush=True)
        accuracies = json.loads(sys.stdin.readline())["accuracies"]
        search.tell(trial, {"objective_to_minimize": 1 - accuracies[-1]})


def parameter(told: dict[str, Any], first: object) -> object:
    prior = {"prior": first, "prior_confidence": "medium"}
    if told["kind"] == "float":
        return neps.HPOFloat(told["low"], told["high"], log=told["log"], **prior)
    if told["kind"] == "int":
        return neps.HPOInteger(told["low"], told["high"], log=told["log"], **prior)
    return neps.HPOCategorical(told["choices"], **prior)


if __name__ == "__main__":
    main()
