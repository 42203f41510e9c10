"""When a pruner stops a trial."""

from __future__ import annotations

import optuna
import pytest

from search.tuner.pruners import make_pruner


def stopped_at(epochs: int, accuracies: list[float]) -> int | None:
    """After which epoch halving stops a trial, among ten that keep an accuracy of one half."""
    study = optuna.create_study(direction="maximize", pruner=make_pruner("halving", epochs=epochs))
    for _ in range(10):
        other = study.ask()
        for epoch in range(1, epochs + 1):
            other.report(0.5, epoch)
            other.should_prune()  # by which the pruner takes note of it
        study.tell(other, 0.5)
    trial = study.ask()
    for epoch, accuracy in enumerate(accuracies, start=1):
        trial.report(accuracy, epoch)
        if trial.should_prune():
            return epoch
    return None


@pytest.mark.parametrize("epochs", [2, 4, 10, 15, 16, 19, 20])
def test_halving_stops_a_weak_trial_once_and_none_near_its_end(epochs: int) -> None:
    third = -(-epochs // 3)
    assert stopped_at(epochs, [0.1] * epochs) == third
    late = [0.9] * (epochs // 2) + [0.1] * (epochs - epochs // 2)
    assert stopped_at(epochs, late[: epochs - 1]) is None
