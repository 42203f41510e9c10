"""Closed forms on a `ModelSpec`: parameters, receptive field, and the layer table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from search_models.layers import Conv, DepthwiseConv, Layer, Output, Pool

if TYPE_CHECKING:
    from search_models.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One line of the layer table.

    `jump` is the distance, in pixels of the input image, between two neighbours of this layer's
    output; `receptive_field` the side, in pixels, of the square that one of them sees. The
    arithmetic is that of Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional
    Neural Networks" (Distill, 2019). Kernel and stride are 0 where a layer has none.
    """

    layer: str
    output_shape: tuple[int, ...]
    parameters: int
    kernel: int
    stride: int
    jump: int
    receptive_field: int


def _parameters(layer: Layer, in_channels: int, out_channels: int) -> int:
    batch_norm = 2 * out_channels
    match layer:
        case DepthwiseConv(kernel=kernel):
            return kernel * kernel * out_channels + batch_norm
        case Conv(kernel=kernel, bias=bias):
            return kernel * kernel * in_channels * out_channels + bias * out_channels + batch_norm
        case Output(bias=bias):
            return in_channels * out_channels + bias * out_channels
    return 0


def layer_table(spec: ModelSpec) -> tuple[LayerRow, ...]:
    """One row a layer, in order; the parameters add up to `parameter_count(spec)`."""
    rows = []
    in_channels = spec.input_shape[0]
    jump, receptive_field = 1, 1
    for layer, shape in zip(spec.layers, spec.output_shapes(), strict=True):
        kernel = stride = 0
        match layer:
            case Conv() | DepthwiseConv():
                kernel, stride = layer.kernel, 1
            case Pool():
                kernel, stride = 2, 2
            case Output():
                kernel, stride = 1, 1
        receptive_field += max(kernel - 1, 0) * jump
        jump *= max(stride, 1)
        rows.append(
            LayerRow(
                layer=str(layer),
                output_shape=shape,
                parameters=_parameters(layer, in_channels, shape[0]),
                kernel=kernel,
                stride=stride,
                jump=jump,
                receptive_field=receptive_field,
            )
        )
        in_channels = shape[0]
    return tuple(rows)


def parameter_count(spec: ModelSpec) -> int:
    """The number of trainable parameters, without building the network."""
    count = 0
    in_channels = spec.input_shape[0]
    for layer, shape in zip(spec.layers, spec.output_shapes(), strict=True):
        count += _parameters(layer, in_channels, shape[0])
        in_channels = shape[0]
    return count


def receptive_field(spec: ModelSpec) -> int:
    """The side, in pixels, of the square that one cell of the last feature map sees."""
    return layer_table(spec)[-1].receptive_field
