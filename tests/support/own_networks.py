"""Files of networks, as a user writes them."""

from __future__ import annotations

# A residual network whose widths are scaled, with a suggestion that only some networks have.
RESIDUAL = """\
import torch
from torch import nn

import search


class Block(nn.Module):
    def __init__(self, width, kernel):
        super().__init__()
        self.convolution = nn.Conv2d(width, width, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, images):
        return images + torch.relu(self.norm(self.convolution(images)))


def network(trial, input_shape, n_classes):
    stem = search.width("stem")
    layers = [nn.Conv2d(input_shape[0], stem, 3, stride=4), nn.ReLU()]
    if trial.suggest_categorical("with_block", [True, False]):
        layers.append(Block(stem, trial.suggest_int("kernel", 1, 3, step=2)))
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(stem, n_classes)
    )


def training(trial):
    return {"momentum": 0.9, "learning_rate": trial.suggest_float("rate", 0.01, 0.1, log=True)}
"""

# One whose sizes stand as they are drawn, and are mostly over a cap of 1,000.
UNSCALED = """\
from torch import nn


def network(trial, input_shape, n_classes):
    width = trial.suggest_int("width", 4, 200)
    return nn.Sequential(
        nn.Conv2d(input_shape[0], width, 3, stride=4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, n_classes),
    )
"""

# A wide and a narrow one, of 2,290 and 67 parameters for grey images in ten classes.
TWO_WIDTHS = """\
from torch import nn


def network(trial, input_shape, n_classes):
    width = trial.suggest_categorical("width", [1, 40])
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(8),
        nn.Conv2d(input_shape[0], width, 4, stride=4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * width, n_classes),
    )


def training(trial):
    return {"learning_rate": 0.1, "momentum": 0.9}
"""
