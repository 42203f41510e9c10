"""Syne Tune, in an environment of its own: ASHA, or one of its kin that learns a model."""

import datetime
import json
import sys
from typing import Any

from syne_tune.backend.trial_status import Trial
from syne_tune.config_space import choice, lograndint, loguniform, randint, uniform
from syne_tune.optimizer.baselines import ASHA, ASHACQR, BOHB

KINDS = {"asha": ASHA, "cqr": ASHACQR, "bohb": BOHB}


def main() -> None:
    task = json.loads(sys.stdin.readline())
    search = KINDS[sys.argv[1]](
        {name: domain(told) for name, told in task["space"].items()},
        metric="error",
        time_attr="epoch",
        max_t=task["epochs"],
        do_minimize=True,
        random_seed=task["seed"],
        points_to_evaluate=[task["first"]],
    )
    number = 0
    while True:
        suggestion = search.suggest()
        trial = Trial(number, suggestion.config, datetime.datetime.now())
        search.on_trial_add(trial)
        for epoch in range(1, task["epochs"] + 1):
            values = {name: trial.config[name] for name in task["space"]}
            print(json.dumps({"key": str(number), "values": values, "epoch": epoch}), flush=True)
            accuracies = json.loads(sys.stdin.readline())["accuracies"]
            result = {"epoch": epoch, "error": 1 - accuracies[-1]}
            if epoch == task["epochs"]:
                search.on_trial_complete(trial, result)
            elif search.on_trial_result(trial, result) != "CONTINUE":
                search.on_trial_remove(trial)
                break
        number += 1


def domain(told: dict[str, Any]) -> object:
    if told["kind"] == "float":
        return (loguniform if told["log"] else uniform)(told["low"], told["high"])
    if told["kind"] == "int":
        return (lograndint if told["log"] else randint)(told["low"], told["high"])
    return choice(told["choices"])


if __name__ == "__main__":
    main()
