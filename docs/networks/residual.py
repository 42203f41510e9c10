"""A residual network: blocks of two convolutions, with what goes in added to what comes out."""

from torch import nn

import search


class Block(nn.Module):
    def __init__(self, width, kernel):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width, bias=False),
            nn.Conv2d(width, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.Hardswish(),
        )

    def forward(self, images):
        return images + self.layers(images)


def network(trial, input_shape, n_classes):
    channels, height, width = input_shape
    n_stages = trial.suggest_int("stages", 2, 3)
    layers = []
    for stage in range(1, n_stages + 1):
        wide = search.width(f"width_of_stage_{stage}")
        layers += [
            nn.Conv2d(channels, wide, 3, padding=1, bias=False),
            nn.BatchNorm2d(wide),
            nn.Hardswish(),
        ]
        kernel = trial.suggest_categorical(f"kernel_of_stage_{stage}", [3, 5])
        for _ in range(trial.suggest_int(f"blocks_of_stage_{stage}", 1, 3)):
            layers.append(Block(wide, kernel))
        if stage < n_stages and min(height, width) >= 4:
            layers.append(nn.MaxPool2d(2))
            height, width = height // 2, width // 2
        channels = wide
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, n_classes)
    )
