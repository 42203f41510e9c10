"""What one training step of a network has to compute and to move, however it is done."""

from __future__ import annotations

from search_models.layers import Conv, DepthwiseConv, Output
from search_models.spec import ModelSpec


def step_flops(spec: ModelSpec) -> int:
    """Floating-point operations of the convolutions of one training step of one image.

    A multiplication and an addition each for forward, weight gradient and input gradient; the
    first convolution needs no input gradient.
    """
    flops = 0
    channels = spec.input_shape[0]
    first = True
    for layer, (out_channels, height, width) in zip(spec.layers, spec.output_shapes(), strict=True):
        if isinstance(layer, Conv | DepthwiseConv | Output):
            kernel = 1 if isinstance(layer, Output) else layer.kernel
            seen = 1 if isinstance(layer, DepthwiseConv) else channels
            products = kernel * kernel * seen * out_channels * height * width
            flops += 2 * products * (2 if first else 3)
            first = False
        channels = out_channels
    return flops


def map_bytes(spec: ModelSpec) -> int:
    """Bytes of the maps of one image that a step must keep: what each convolution made.

    BatchNorm must see all of a map before any of it can go on, and its gradient needs the map
    again, so each is written once and read once: twice these bytes are moved.
    """
    maps = zip(spec.layers, spec.output_shapes(), strict=True)
    return 4 * sum(
        channels * height * width
        for layer, (channels, height, width) in maps
        if isinstance(layer, Conv | DepthwiseConv)
    )
