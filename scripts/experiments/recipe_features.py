"""A recipe as numbers, for models that predict what training it would show."""

from __future__ import annotations

import math

import numpy as np

from scripts.benchmarks.step_flops import step_flops
from search.space.hyperparameters import Constant, Cosine, Hyperparameters, OneCycle, StepDecay
from search_models.layers import Conv, DepthwiseConv, Dropout, Pool
from search_models.network import in_notation
from search_models.spec import ModelSpec

_N_WIDTHS = 5


def features(recipe: Hyperparameters) -> dict[str, float]:
    """A recipe as numbers that every topology has; sizes, rates and widths are logarithms.

    Widths are those of five convolutions, from the first to the last, evenly spaced in depth. A
    number that belongs to another schedule than the recipe's is in the middle of its range.
    """
    return {**_network_features(in_notation(recipe.spec)), **_training_features(recipe)}


def design_features(recipe: Hyperparameters) -> dict[str, float]:
    """The same of a recipe of the default space, with what only that searches."""
    layers = in_notation(recipe.spec).layers
    augmentation = recipe.augmentation
    return {
        **features(recipe),
        "is_separable": float(any(isinstance(layer, DepthwiseConv) for layer in layers)),
        "pools": float(sum(isinstance(layer, Pool) for layer in layers)),
        "elastic": augmentation.elastic,
        "flip": augmentation.flip,
        "ema_epochs": math.log(recipe.ema_epochs + 1e-3),
    }


def _network_features(spec: ModelSpec) -> dict[str, float]:
    layers = list(zip(spec.layers, spec.output_shapes(), strict=True))
    convs = [layer for layer in spec.layers if isinstance(layer, Conv)]
    sides = [height for layer, (_, height, _) in layers if isinstance(layer, Conv)]
    places = np.linspace(0, len(convs) - 1, _N_WIDTHS).round().astype(int)
    drops = [layer.rate for layer in spec.layers if isinstance(layer, Dropout)]
    return {
        "parameters": math.log(spec.parameter_count),
        "flops": math.log(step_flops(spec)),
        **{f"width_{i}": math.log(convs[place].channels) for i, place in enumerate(places)},
        "narrowest": math.log(min(conv.channels for conv in convs)),
        "depth": math.log(len(convs)),
        "padded": sum(conv.padding for conv in convs) / len(convs),
        "last_side": math.log(sides[-1]),
        "dropout": max(drops, default=0.0),
    }


def _training_features(recipe: Hyperparameters) -> dict[str, float]:
    schedule, augmentation = recipe.schedule, recipe.augmentation
    warmup = schedule.warmup_share if isinstance(schedule, OneCycle) else 0.2
    share, gamma = 0.5, 0.16
    if isinstance(schedule, StepDecay):
        share, gamma = schedule.step_share, schedule.gamma
    return {
        "learning_rate": math.log(recipe.learning_rate),
        "momentum": math.log(1 - recipe.momentum),
        "weight_decay": math.log(recipe.weight_decay + 1e-7),
        "batch_size": math.log(recipe.batch_size),
        "rotation": augmentation.rotation_degrees,
        "translation": augmentation.translation,
        "scale": augmentation.scale,
        "shear": augmentation.shear_degrees,
        "is_adaptive": float(recipe.optimizer in ("adam", "adamw")),
        **{
            kind.__name__: float(isinstance(schedule, kind))
            for kind in (OneCycle, StepDecay, Cosine, Constant)
        },
        "warmup_share": warmup,
        "step_share": share,
        "step_gamma": math.log(gamma),
    }
