"""Hyperparameters as lines to read: each with its value, and what was searched for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from search.space.hyperparameters import Constant, Cosine, Hyperparameters, OneCycle, StepDecay


@dataclass(frozen=True, slots=True)
class Setting:
    """One line: what it is, its value, and what was searched for it, if anything."""

    name: str
    value: str
    searched: str


def settings_of(hyperparameters: Hyperparameters, table: Mapping[str, Any]) -> list[Setting]:
    """The lines of hyperparameters besides their network, for a space's table of ranges."""
    schedule, augmentation = hyperparameters.schedule, hyperparameters.augmentation
    rows: list[tuple[str, str, Any, str]] = [
        ("optimiser", "optimizer", hyperparameters.optimizer, ""),
        ("learning rate", "learning_rate", hyperparameters.learning_rate, ""),
        ("momentum", "momentum", hyperparameters.momentum, ""),
        ("weight decay", "weight_decay", hyperparameters.weight_decay, ""),
        ("batch size", "batch_size", hyperparameters.batch_size, ""),
    ]
    match schedule:
        case OneCycle():
            rows.append(("schedule", "schedule", "one-cycle", ""))
            rows.append(("rising for", "warmup_share", schedule.warmup_share, " of all steps"))
        case StepDecay():
            rows.append(("schedule", "schedule", "step", ""))
            rows.append(("a drop each", "step_share", schedule.step_share, " of the epochs"))
            rows.append(("each drop by", "step_gamma", schedule.gamma, ""))
        case Cosine():
            rows.append(("schedule", "schedule", "cosine", ""))
        case Constant():
            rows.append(("schedule", "schedule", "constant", ""))
    rows += [(name, name, value, "") for name, value in hyperparameters.spec.traits().items()]
    rows += [
        ("label smoothing", "label_smoothing", hyperparameters.label_smoothing, ""),
        ("weights averaged over", "ema_epochs", hyperparameters.ema_epochs, " epochs"),
        ("rotation", "rotation_degrees", augmentation.rotation_degrees, "°"),
        ("translation", "translation", augmentation.translation, " of the side"),
        ("change of size", "scale", augmentation.scale, ""),
        ("shear", "shear_degrees", augmentation.shear_degrees, "°"),
        ("elastic distortion", "elastic", augmentation.elastic, " of the side"),
        ("mirrored", "flip", augmentation.flip, " of the images"),
        (
            "augmentation left at the end",
            "final_augmentation",
            hyperparameters.final_augmentation,
            "",
        ),
    ]
    return [
        Setting(name, f"{shown(value)}{unit}", _range(table.get(key)))
        for name, key, value, unit in rows
    ]


def shown(value: Any) -> str:
    """A hyperparameter's value as people read it: four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _range(value: Any) -> str:
    """What was searched: a range or the choices; empty for what is fixed."""
    if isinstance(value, dict) and "choices" not in value:
        return f"{shown(value['low'])} to {shown(value['high'])}"
    value = value["choices"] if isinstance(value, dict) else value
    return " or ".join(map(shown, value)) if isinstance(value, list) else ""
