"""A network as a value: `ModelSpec`, and the notation people write it in.

A network is a list of layers, separated by commas::

    c3 8, c3 10, pool, c3 12, pool, c3 16, c3 16, out+bias, gap

| item | layer |
| --- | --- |
| `c3 8` | 3×3 convolution to 8 channels, stride 1, no bias, then BatchNorm and ReLU |
| `c3p1 8` | the same with padding 1, so that the image keeps its size |
| `c1 8` | the same with a 1×1 kernel |
| `c3+bias 8` | the same with a bias on the convolution |
| `c3+hs 8`, `c3+bias+hs 8` | the same with hard swish instead of ReLU |
| `d3`, `d3p1`, `d3+hs` | the same as a depthwise convolution, without a bias: each channel alone |
| `pool` | 2×2 max pooling with stride 2 |
| `drop 0.1` | dropout of single activations with probability 0.1 |
| `gap` | global average pooling; exactly one, behind every convolution |
| `out`, `out+bias` | 1×1 convolution to the classes (behind `gap`: the same as a linear layer) |

Without `out`, the channels of the last convolution are the logits. A `Topology`
is the same notation with numbers left out: they are what a search fills in.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from search_models.layers import (
    Activation,
    Conv,
    DepthwiseConv,
    Dropout,
    GlobalAveragePool,
    Layer,
    Output,
    Pool,
    SpecError,
)
from search_models.size import LayerRow, layer_table, parameter_count

if TYPE_CHECKING:
    from search_models.convnet import ConvNet

_ITEM = re.compile(
    r"(?:c(?P<kernel>[13])(?P<padding>p1)?(?P<conv_bias>\+bias)?(?P<hard_swish>\+hs)?"
    r"(?:\s+(?P<channels>\d+))?"
    r"|(?P<depthwise>d3)(?P<depthwise_padding>p1)?(?P<depthwise_hard_swish>\+hs)?"
    r"|drop(?:\s+(?P<rate>[0-9.e-]+))?"
    r"|(?P<word>pool|gap|out\+bias|out))"
)


def _items(notation: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in notation.split(","))


def _match(item: str) -> re.Match[str]:
    match = _ITEM.fullmatch(item)
    if match is None:
        raise SpecError(
            "Each item of a network must be one of c1, c3, c3p1 (each alone or with +bias, +hs or "
            "+bias+hs), d3, d3p1 (each alone or with +hs), drop, pool, gap, out and out+bias, "
            f"separated by commas, but got {item!r}."
        )
    if match["kernel"] == "1" and match["padding"]:
        raise SpecError(f"A 1×1 convolution takes no padding, but got {item!r}; write c1.")
    return match


def _layer(item: str, activation: Activation = "relu") -> Layer:
    """The layer of an item; `activation` is that of a convolution which names none."""
    match = _match(item)
    if match["kernel"]:
        if match["channels"] is None:
            raise SpecError(f"A convolution needs its number of channels, as in 'c3 8': {item!r}.")
        return Conv(
            channels=int(match["channels"]),
            kernel=int(match["kernel"]),
            padding=1 if match["padding"] else 0,
            bias=match["conv_bias"] is not None,
            activation="hardswish" if match["hard_swish"] else activation,
        )
    if match["depthwise"]:
        return DepthwiseConv(
            padding=1 if match["depthwise_padding"] else 0,
            activation="hardswish" if match["depthwise_hard_swish"] else activation,
        )
    match match["word"]:
        case "pool":
            return Pool()
        case "gap":
            return GlobalAveragePool()
        case "out":
            return Output()
        case "out+bias":
            return Output(bias=True)
    if match["rate"] is None:
        raise SpecError("Dropout needs its rate, as in 'drop 0.1'.")
    try:
        return Dropout(float(match["rate"]))
    except ValueError:
        raise SpecError(f"A dropout rate must be a number, but got {item!r}.") from None


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One network, fully described.

    Args:
        layers: in the order in which an image passes them.
        input_shape: channels, height and width of an image.
        n_classes: the number of logits.

    Raises:
        SpecError: for a network that cannot exist.
    """

    layers: tuple[Layer, ...]
    input_shape: tuple[int, int, int] = (1, 28, 28)
    n_classes: int = 10

    def __post_init__(self) -> None:
        sizes = (*self.input_shape, self.n_classes)
        if len(sizes) != 4 or not all(type(size) is int and size >= 1 for size in sizes):
            raise SpecError(
                "input_shape and n_classes must be positive whole numbers, three and one, but got "
                f"input_shape={self.input_shape!r}, n_classes={self.n_classes!r}."
            )
        kinds = [type(layer) for layer in self.layers]
        if kinds.count(GlobalAveragePool) != 1 or kinds.count(Output) > 1:
            raise SpecError(f"A network has exactly one gap and at most one out, but got '{self}'.")
        if Conv not in kinds:
            raise SpecError(
                f"A network has at least one convolution that is not depthwise, but got '{self}'."
            )
        first_tail = min(kinds.index(kind) for kind in (GlobalAveragePool, Output) if kind in kinds)
        if {Conv, DepthwiseConv, Pool} & set(kinds[first_tail:]):
            raise SpecError(f"Nothing but dropout may follow gap and out, but got '{self}'.")
        self._check_layers()
        if self.output_shapes()[-1] != (self.n_classes, 1, 1):
            raise SpecError(
                f"Without out, the last convolution must have {self.n_classes} channels, one for "
                f"each class, but got '{self}'."
            )

    def _check_layers(self) -> None:
        for layer in self.layers:
            if isinstance(layer, Dropout) and not 0 <= layer.rate < 1:
                raise SpecError(f"A dropout rate must be in [0, 1), but got {layer.rate!r}.")
            if isinstance(layer, Conv) and (
                layer.channels < 1 or (layer.kernel, layer.padding) not in {(1, 0), (3, 0), (3, 1)}
            ):
                raise SpecError(
                    "A convolution has at least one channel and is 1×1 without padding or 3×3 "
                    f"with padding 0 or 1, but got '{layer}'."
                )
            if isinstance(layer, DepthwiseConv) and layer.padding not in (0, 1):
                raise SpecError(
                    f"A depthwise convolution has a padding of 0 or 1, but got '{layer}'."
                )
            if isinstance(layer, Conv | DepthwiseConv) and (
                layer.activation not in get_args(Activation)
            ):
                raise SpecError(
                    f"An activation must be one of {', '.join(get_args(Activation))}, but got "
                    f"{layer.activation!r}."
                )
        for layer, (_, height, width) in zip(self.layers, self.output_shapes(), strict=True):
            if min(height, width) < 1:
                _, rows, columns = self.input_shape
                raise SpecError(
                    f"An image of {rows}×{columns} has no pixel left behind '{layer}' of '{self}'; "
                    "take out a pool, or pad a convolution (c3p1)."
                )

    def __str__(self) -> str:
        return ", ".join(str(layer) for layer in self.layers)

    @classmethod
    def parse(
        cls,
        notation: str,
        *,
        input_shape: tuple[int, int, int] = (1, 28, 28),
        n_classes: int = 10,
    ) -> ModelSpec:
        """The network that `notation` (see the head of this file) describes.

        `ModelSpec.parse(str(spec))` gives `spec` back, for the same images and classes.

        Raises:
            SpecError: for a notation that is wrong or a network that cannot exist.
        """
        return cls(tuple(_layer(item) for item in _items(notation)), input_shape, n_classes)

    @property
    def parameter_count(self) -> int:
        """The number of trainable parameters, by arithmetic."""
        return parameter_count(self)

    def layer_table(self) -> tuple[LayerRow, ...]:
        """One row a layer, in order; their parameters add up to `parameter_count`."""
        return layer_table(self)

    def build(self) -> ConvNet:
        """The module, with PyTorch's default initialisation."""
        from search_models.convnet import ConvNet  # which brings PyTorch

        return ConvNet(self)

    def traits(self) -> Mapping[str, Any]:
        """The dropout rates, where there are any."""
        rates = sorted({layer.rate for layer in self.layers if isinstance(layer, Dropout)})
        return {"dropout": " and ".join(f"{rate:.4g}" for rate in rates)} if rates else {}

    def to_dict(self) -> dict[str, Any]:
        """As values that JSON knows; `from_dict` gives the same network back."""
        return {
            "network": str(self),
            "input_shape": list(self.input_shape),
            "n_classes": self.n_classes,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelSpec:
        """The network that `to_dict` wrote.

        Raises:
            SpecError: for a network that cannot exist.
            KeyError, TypeError: if something is missing or of another kind.
        """
        shape = tuple(values["input_shape"])
        return cls.parse(values["network"], input_shape=shape, n_classes=values["n_classes"])

    def output_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """Channels, height and width behind each layer; height and width are 1 behind `gap`."""
        channels, height, width = self.input_shape
        shapes = []
        for layer in self.layers:
            match layer:
                case Conv() | DepthwiseConv():
                    shrink = 2 * layer.padding - layer.kernel + 1
                    height, width = height + shrink, width + shrink
                    if isinstance(layer, Conv):
                        channels = layer.channels
                case Pool():
                    height, width = height // 2, width // 2
                case GlobalAveragePool():
                    height = width = 1
                case Output():
                    channels = self.n_classes
            shapes.append((channels, height, width))
        return tuple(shapes)


@dataclass(frozen=True, slots=True)
class Topology:
    """A network whose widths, dropout rate and activation are still open.

    Args:
        notation: that of `ModelSpec` with numbers left out, as in `c3, drop, pool, c3, gap, out`;
            a number that is there stays as it is, and so does a `+hs`.
    """

    notation: str

    def __post_init__(self) -> None:
        for item in _items(self.notation):
            _match(item)

    @property
    def n_widths(self) -> int:
        """The number of convolutions whose width is open."""
        return sum(_is_open_conv(item) for item in _items(self.notation))

    @property
    def has_open_dropout(self) -> bool:
        return "drop" in _items(self.notation)

    @property
    def has_open_activation(self) -> bool:
        """Whether any convolution names no activation."""
        return any(
            "+hs" not in item and (_match(item)["kernel"] or _match(item)["depthwise"])
            for item in _items(self.notation)
        )

    def spec(
        self,
        widths: Sequence[int],
        dropout: float,
        *,
        input_shape: tuple[int, int, int] = (1, 28, 28),
        n_classes: int = 10,
        activation: Activation = "relu",
    ) -> ModelSpec:
        """The network with the first `n_widths` of `widths`, and `dropout` wherever it is open.

        Args:
            activation: of each convolution that names none.

        Raises:
            SpecError: if there are too few widths, or the network cannot exist.
        """
        if len(widths) < self.n_widths:
            raise SpecError(
                f"The topology '{self.notation}' needs {self.n_widths} widths, but got "
                f"{len(widths)}."
            )
        filled = _fill(self.notation, tuple(widths[: self.n_widths]), dropout, activation)
        return ModelSpec(filled, input_shape, n_classes)


def _is_open_conv(item: str) -> bool:
    match = _match(item)
    return match["kernel"] is not None and match["channels"] is None


@functools.lru_cache(maxsize=4096)
def _fill(
    notation: str, widths: tuple[int, ...], dropout: float, activation: Activation
) -> tuple[Layer, ...]:
    remaining = iter(widths)
    layers: list[Layer] = []
    for item in _items(notation):
        if _is_open_conv(item):
            layers.append(_layer(f"{item} {next(remaining)}", activation))
        elif item == "drop":
            layers.append(Dropout(dropout))
        else:
            layers.append(_layer(item, activation))
    return tuple(layers)
