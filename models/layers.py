"""The layers that the notation knows, each a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Activation = Literal["relu", "hardswish"]


class SpecError(ValueError):
    """A network that cannot exist: the notation is wrong or the image runs out of pixels."""


@dataclass(frozen=True, slots=True)
class Conv:
    """`kernel` × `kernel` convolution with stride 1, then BatchNorm and the activation.

    Hard swish is z · min(max(z / 6 + 1/2, 0), 1): Howard et al., "Searching for MobileNetV3"
    (2019).
    """

    channels: int
    kernel: int = 3
    padding: int = 0
    bias: bool = False
    activation: Activation = "relu"

    def __str__(self) -> str:
        padding = f"p{self.padding}" if self.padding else ""
        bias = "+bias" if self.bias else ""
        activation = "+hs" if self.activation == "hardswish" else ""
        return f"c{self.kernel}{padding}{bias}{activation} {self.channels}"


@dataclass(frozen=True, slots=True)
class DepthwiseConv:
    """3×3 convolution of each channel by itself, then BatchNorm and the activation.

    The image keeps its channels. With a 1×1 convolution behind it, it is the depthwise separable
    convolution of Howard et al., "MobileNets" (2017).
    """

    padding: int = 0
    activation: Activation = "relu"

    @property
    def kernel(self) -> int:
        return 3

    def __str__(self) -> str:
        padding = f"p{self.padding}" if self.padding else ""
        return f"d3{padding}{'+hs' if self.activation == 'hardswish' else ''}"


@dataclass(frozen=True, slots=True)
class Pool:
    """2×2 max pooling with stride 2; an odd last row or column is left out."""

    def __str__(self) -> str:
        return "pool"


@dataclass(frozen=True, slots=True)
class Dropout:
    """Dropout of single activations with probability `rate` while training."""

    rate: float

    def __str__(self) -> str:
        return f"drop {self.rate!r}"


@dataclass(frozen=True, slots=True)
class GlobalAveragePool:
    """The mean of each channel over the image."""

    def __str__(self) -> str:
        return "gap"


@dataclass(frozen=True, slots=True)
class Output:
    """1×1 convolution to the classes, with neither BatchNorm nor activation."""

    bias: bool = False

    def __str__(self) -> str:
        return "out+bias" if self.bias else "out"


Layer = Conv | DepthwiseConv | Pool | Dropout | GlobalAveragePool | Output
