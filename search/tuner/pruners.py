"""Pruners by name. Each sees a trial's validation accuracy after each epoch, counted from 1."""

from __future__ import annotations

import math
from collections.abc import Callable

import optuna
from optuna.pruners import BasePruner

from search.exceptions import InputError


def _first_rung(epochs: int) -> int:
    """The first epoch after which a trial may be stopped: a third of all, rounded up.

    Rounded down, three times as many could be the last epoch but one, and halving would stop trials
    there, for all that they have cost.
    """
    return math.ceil(epochs / 3)


def _halving(epochs: int) -> BasePruner:
    # A third goes on after a third of the epochs (5 of 15). Earlier, a one-cycle schedule's rising
    # learning rate hides which network is good.
    return optuna.pruners.SuccessiveHalvingPruner(
        min_resource=_first_rung(epochs), reduction_factor=3
    )


def _hyperband(epochs: int) -> BasePruner:
    return optuna.pruners.HyperbandPruner(
        min_resource=_first_rung(epochs), max_resource=epochs, reduction_factor=3
    )


def _median(epochs: int) -> BasePruner:
    return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=_first_rung(epochs))


def _percentile(epochs: int) -> BasePruner:
    return optuna.pruners.PercentilePruner(
        25.0, n_startup_trials=5, n_warmup_steps=_first_rung(epochs)
    )


PRUNERS: dict[str, Callable[[int], BasePruner]] = {
    "halving": _halving,
    "median": _median,
    "percentile": _percentile,
    "hyperband": _hyperband,
    "none": lambda epochs: optuna.pruners.NopPruner(),
}


def make_pruner(name: str, *, epochs: int) -> BasePruner:
    """The pruner of that name, for trials of `epochs` epochs.

    Raises:
        InputError: if there is no pruner of that name.
    """
    if name not in PRUNERS:
        raise InputError(f"A pruner must be one of {', '.join(PRUNERS)}, but got {name!r}.")
    return PRUNERS[name](epochs)
