"""`ConvNet`: the PyTorch module that a `ModelSpec` describes."""

from __future__ import annotations

from torch import Tensor, nn

from search_models.layers import (
    Activation,
    Conv,
    DepthwiseConv,
    Dropout,
    GlobalAveragePool,
    Layer,
    Output,
    Pool,
)
from search_models.spec import ModelSpec

_ACTIVATIONS: dict[Activation, type[nn.ReLU | nn.Hardswish]] = {
    "relu": nn.ReLU,
    "hardswish": nn.Hardswish,
}


def _block(convolution: nn.Conv2d, activation: Activation) -> nn.Sequential:
    norm = nn.BatchNorm2d(convolution.out_channels)
    return nn.Sequential(convolution, norm, _ACTIVATIONS[activation](inplace=True))


def _module(layer: Layer, in_channels: int, n_classes: int) -> nn.Module:
    match layer:
        case Conv(channels=channels, kernel=kernel, padding=padding, bias=bias):
            convolution = nn.Conv2d(in_channels, channels, kernel, padding=padding, bias=bias)
            return _block(convolution, layer.activation)
        case DepthwiseConv(padding=padding):
            convolution = nn.Conv2d(
                in_channels,
                in_channels,
                layer.kernel,
                padding=padding,
                groups=in_channels,
                bias=False,
            )
            return _block(convolution, layer.activation)
        case Pool():
            return nn.MaxPool2d(2)
        case Dropout(rate=rate):
            return nn.Dropout(rate)
        case GlobalAveragePool():
            return nn.AdaptiveAvgPool2d(1)
        case Output(bias=bias):
            return nn.Conv2d(in_channels, n_classes, 1, bias=bias)


class ConvNet(nn.Module):
    """The network of `spec`, with PyTorch's default initialisation.

    Takes normalised float images (N, C, H, W) as in `spec.input_shape` and returns logits
    (N, n_classes).
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        in_channels = (spec.input_shape[0], *(shape[0] for shape in spec.output_shapes()))
        self.layers = nn.Sequential(
            *(
                _module(layer, channels, spec.n_classes)
                for layer, channels in zip(spec.layers, in_channels, strict=False)
            )
        )

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)  # (N, n_classes, 1, 1)
        return logits.flatten(1)
