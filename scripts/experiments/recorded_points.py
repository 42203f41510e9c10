"""The rows of the recorded table as trainings: a recipe, its epochs' accuracies, its seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scripts.experiments.record_curves import EPOCHS
from search.space.hyperparameters import (
    Augmentation,
    Constant,
    Cosine,
    Hyperparameters,
    OneCycle,
    Schedule,
    StepDecay,
)
from search_models.spec import ModelSpec

CHANCE = 0.1  # the accuracy of a network whose loss is not finite


@dataclass(frozen=True)
class Point:
    """One recorded training: `accuracies` are shares, one an epoch; `seconds` of all epochs.

    `processor` is that of the machine that recorded it.
    """

    recipe: Hyperparameters
    accuracies: tuple[float, ...]
    seconds: float
    n_epochs: int  # that were trained; fewer than there are accuracies where the loss diverged
    processor: str


def points_of(rows: Sequence[Mapping[str, str]]) -> list[Point]:
    """The rows of the recorded table. Epochs behind a loss that was not finite are at chance."""
    points = []
    for row in rows:
        texts = [row[f"accuracy_{epoch}"] for epoch in range(1, EPOCHS + 1)]
        accuracies = [float(text) for text in texts if text]
        filled = (*accuracies, *[CHANCE] * (EPOCHS - len(accuracies)))
        points.append(
            Point(recipe_of(row), filled, float(row["seconds"]), len(accuracies), row["processor"])
        )
    return points


def recipe_of(row: Mapping[str, Any]) -> Hyperparameters:
    """The recipe of a row of the recorded table."""
    augmentation = Augmentation(
        **{
            name: float(row[name])
            for name in ("rotation_degrees", "translation", "scale", "shear_degrees")
        }
    )
    return Hyperparameters(
        spec=ModelSpec.parse(row["spec"]),
        learning_rate=float(row["learning_rate"]),
        optimizer=row["optimizer"],
        momentum=float(row["momentum"]),
        weight_decay=float(row["weight_decay"]),
        schedule=_schedule_of(row),
        batch_size=int(row["batch_size"]),
        augmentation=augmentation,
    )


def _schedule_of(row: Mapping[str, Any]) -> Schedule:
    match row["schedule"]:
        case "OneCycle":
            return OneCycle(warmup_share=float(row["warmup_share"]))
        case "StepDecay":
            return StepDecay(float(row["step_share"]), gamma=float(row["step_gamma"]))
        case "Cosine":
            return Cosine()
    return Constant()
