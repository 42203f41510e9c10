"""How many operations one training step of a network takes."""

from __future__ import annotations

from search_models.spec import Conv, ModelSpec, Output


def step_flops(spec: ModelSpec) -> int:
    """Floating-point operations of the convolutions of one training step of one image.

    A multiplication and an addition each for forward, weight gradient and input gradient; the
    first convolution needs no input gradient.
    """
    flops = 0
    channels = spec.input_shape[0]
    first = True
    for layer, (out_channels, height, width) in zip(spec.layers, spec.output_shapes(), strict=True):
        if isinstance(layer, Conv | Output):
            kernel = layer.kernel if isinstance(layer, Conv) else 1
            products = kernel * kernel * channels * out_channels * height * width
            flops += 2 * products * (2 if first else 3)
            first = False
        channels = out_channels
    return flops
