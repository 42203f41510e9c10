"""The line to a peer in an environment of its own: it asks for trainings, one JSON a line.

This process begins with the task:

    {"space": {NAME: {"kind": "float", "low": 0.1, "high": 1, "log": true}, ...}, "first": {...},
     "epochs": 15, "seed": 0}

The peer asks for a configuration to be trained up to an epoch, on from where it was, and gets the
accuracies of all epochs so far, or none once the seconds are over:

    {"key": "7", "values": {...}, "epoch": 5}
    {"accuracies": [0.4, 0.7, 0.8, 0.85, 0.86]}
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from scripts.experiments.peers.trainer import Trainer

PEERS = {name: Path(__file__).with_name(f"{name}_peer.py") for name in ("neps", "smac", "syne")}


def play_peer(name: str, environments: Path, trainer: Trainer) -> None:
    """Serves a peer's search until the seconds are over.

    Args:
        name: `neps`, `smac` or `syne`, with the algorithm behind a dash, as `syne-asha`.

    Raises:
        RuntimeError: if the peer ends before that.
    """
    family, _, algorithm = name.partition("-")
    python = environments / family / "bin" / "python"
    with subprocess.Popen(
        [python, "-W", "ignore", PEERS[family], algorithm],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(_told(trainer)) + "\n")
        process.stdin.flush()
        for line in process.stdout:
            asked = json.loads(line)
            found = trainer.train(asked["key"], asked["values"], asked["epoch"])
            process.stdin.write(json.dumps({"accuracies": found}) + "\n")
            process.stdin.flush()
            if not found:
                process.kill()
                break
    if not trainer.is_over:
        raise RuntimeError(f"{name} ended before its seconds were over.")


def _told(trainer: Trainer) -> dict[str, Any]:
    space = {
        name: _range(distribution)
        for name, distribution in trainer.space.distributions.items()
        if not distribution.single()
    }
    first = {name: value for name, value in trainer.space.first().items() if name in space}
    return {"space": space, "first": first, "epochs": trainer.epochs, "seed": trainer.seed}


def _range(distribution: BaseDistribution) -> dict[str, Any]:
    match distribution:
        case FloatDistribution(low=low, high=high, log=log):
            return {"kind": "float", "low": low, "high": high, "log": log}
        case IntDistribution(low=low, high=high, log=log):
            return {"kind": "int", "low": low, "high": high, "log": log}
        case CategoricalDistribution(choices=choices):
            return {"kind": "choice", "choices": list(choices)}
    raise ValueError(f"There is no range {distribution}.")
