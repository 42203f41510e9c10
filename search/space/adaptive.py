"""The space `adaptive`: what is searched follows from the images, the cap and the epochs.

Nothing here is drawn: each range and each value with which a search begins is a formula of what is
known before the first trial. docs/spaces.md says why they are what they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from search.space.design import BLOCKS, MAX_POOLS

_LAST_SIDE = 6  # pixels that a map has behind its last pool, at the least
_LEAST_BATCH, _MOST_BATCH = 8, 128
# Images that a training sees, up to which a search begins without augmentation, and from which on
# with all of it.
_SEEN_WITHOUT_AUGMENTATION, _SEEN_WITH_ALL = 30_000, 3_000_000
N_TRAINING, EPOCHS, PARAMETER_CAP = 50_000, 15, 8_000  # of MNIST, where nothing else is said


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known of a search before its first trial.

    Args:
        input_shape: channels, height and width of an image.
        n_training: images that train.
        epochs: that each network is trained.
        parameter_cap: a network has fewer; None for none.
    """

    input_shape: tuple[int, int, int] = (1, 28, 28)
    n_training: int = N_TRAINING
    epochs: int = EPOCHS
    parameter_cap: int | None = PARAMETER_CAP

    @property
    def cap(self) -> int:
        """The cap, or one to go by where there is none."""
        return self.parameter_cap or PARAMETER_CAP

    @property
    def n_seen(self) -> int:
        """Images that one training sees, each as often as it comes."""
        return self.n_training * self.epochs


def adaptive_table(situation: Situation) -> dict[str, Any]:
    """The table of the space, as a space file has it."""
    return {**_network(situation), **_training(situation), **_augmentation(situation)}


def _network(situation: Situation) -> dict[str, Any]:
    _, height, width = situation.input_shape
    # The fewest pixels along a side decide how often a map can be halved, and both how often it
    # has to be: what lies behind the last pool costs least and sees most.
    side = min(math.sqrt(height * width), 2 * min(height, width))
    pools = min(MAX_POOLS - 1, max(0, int(math.log2(side / _LAST_SIDE))))
    is_large = side >= 48  # where the first maps cost most of the time
    cap = situation.cap
    most = 2 if cap < 2_000 else 3 if cap < 50_000 else 4
    table: dict[str, Any] = {
        "block": {"choices": list(BLOCKS), "first": BLOCKS[0]},
        "pools": {"low": pools, "high": pools + 1, "first": pools},
    }
    for i in range(1, MAX_POOLS + 2):
        if i > pools + 2:
            table[f"blocks_{i}"] = 1
        elif i == 1 and pools > 0:
            high = 1 if is_large else 2
            table["blocks_1"] = {"low": 0, "high": high, "first": 0 if is_large else 1}
        else:
            table[f"blocks_{i}"] = {"low": 1, "high": most, "first": min(2, most - 1)}
    table["growth"] = {"low": 1.4, "high": 8.0, "log": True, "first": 2.5}
    return {**table, "padding": 1, "activation": "hardswish", "budget_share": 1.0}


def _training(situation: Situation) -> dict[str, Any]:
    epochs, n_training = situation.epochs, situation.n_training
    # Steps count, not epochs: the fewer images a training sees, the smaller its batches.
    batch = 2 ** round(math.log2(8 * (situation.n_seen / 16_000) ** 0.35))
    batch = max(_LEAST_BATCH, min(_MOST_BATCH, batch))
    while batch > 2 and batch * 4 > n_training:
        batch //= 2
    sizes = [size for size in (batch // 2, batch, 2 * batch) if 2 <= size <= n_training // 2]
    cap = situation.cap
    rate = 0.014 * math.sqrt(batch / 32) * (8_000 / cap) ** 0.12
    return {
        "optimizer": "adamw",
        "learning_rate": _around(rate, 4),
        "momentum": {"low": 0.85, "high": 0.95, "first": 0.9},
        "weight_decay": {"low": 3e-4, "high": 3e-2, "log": True, "first": 3e-3},
        "batch_size": {"choices": sizes or [1], "first": batch if sizes else 1},
        "schedule": "one-cycle",
        "warmup_share": 0.2,
        "step_share": 0.4,
        "step_gamma": 0.1,
        "label_smoothing": 0.0,
        "ema_epochs": _around(min(0.03 * epochs, 300), 3),
        "dropout": {"low": 0.0, "high": 0.1, "first": 0.0} if cap < 50_000 else _around(0.05, 4),
    }


def _augmentation(situation: Situation) -> dict[str, Any]:
    # In few steps a small network does not even learn the images as they are.
    least, most = _SEEN_WITHOUT_AUGMENTATION, _SEEN_WITH_ALL
    share = math.log(max(situation.n_seen, 1) / least) / math.log(most / least)
    share = min(max(share, 0.0), 1.0)

    def up_to(high: float, first: float) -> dict[str, float]:
        return {"low": 0.0, "high": high, "first": _rounded(first * share)}

    return {
        "rotation_degrees": up_to(15.0, 8.0),
        "translation": up_to(0.1, 0.05),
        "scale": up_to(0.15, 0.09),
        "shear_degrees": up_to(10.0, 3.0),
        "elastic": up_to(0.03, 0.016),
        # Photographs may be mirrored, but a letter or a digit is another one then, or none.
        "flip": {"choices": [0.0, 0.5], "first": 0.0},
        "final_augmentation": 1.0,
    }


def _around(first: float, factor: float) -> dict[str, Any]:
    ends = _rounded(first / factor), _rounded(first * factor)
    return {"low": ends[0], "high": ends[1], "log": True, "first": _rounded(first)}


def _rounded(value: float) -> float:
    """To three digits, as people read it."""
    return float(f"{value:.3g}")
