"""SMAC3, in an environment of its own: its multi-fidelity facade as its authors set it."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from ConfigSpace import Categorical, ConfigurationSpace, Float, Integer
from smac import MultiFidelityFacade, Scenario
from smac.runhistory.dataclasses import TrialValue


def main() -> None:
    task = json.loads(sys.stdin.readline())
    space = ConfigurationSpace(seed=task["seed"])
    for name, told in task["space"].items():
        space.add(parameter(name, told, task["first"][name]))
    with tempfile.TemporaryDirectory() as folder:
        scenario = Scenario(
            space,
            output_directory=Path(folder),
            deterministic=True,
            n_trials=100_000,
            use_default_config=True,
            min_budget=1,
            max_budget=task["epochs"],
            seed=task["seed"],
        )
        search = MultiFidelityFacade(
            scenario,
            lambda config, seed=0, budget=0.0: 0.0,
            logging_level=False,
            overwrite=True,
        )
        keys: dict[Any, str] = {}
        while True:
            info = search.ask()
            key = keys.setdefault(info.config, str(len(keys)))
            asked = {"key": key, "values": dict(info.config), "epoch": round(info.budget)}
            print(json.dumps(asked, default=lambda value: value.item()), flush=True)
            accuracies = json.loads(sys.stdin.readline())["accuracies"]
            search.tell(info, TrialValue(cost=1 - accuracies[-1]), save=False)


def parameter(name: str, told: dict[str, Any], first: object) -> object:
    if told["kind"] == "float":
        return Float(name, (told["low"], told["high"]), log=told["log"], default=first)
    if told["kind"] == "int":
        return Integer(name, (told["low"], told["high"]), log=told["log"], default=first)
    return Categorical(name, told["choices"], default=first)


if __name__ == "__main__":
    main()
