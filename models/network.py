"""A network as a value, whoever wrote it: what is asked of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from search_models.layers import SpecError
from search_models.own import OwnSpec
from search_models.spec import ModelSpec

if TYPE_CHECKING:
    from torch import nn

    from search_models.size import LayerRow


class Network(Protocol):
    """A network as a value: hashable, and equal to what builds the same module.

    `str` of it is what people read.
    """

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""

    @property
    def n_classes(self) -> int:
        """The number of logits."""

    @property
    def parameter_count(self) -> int:
        """The number of trainable parameters, known without building the module."""

    def build(self) -> nn.Module:
        """The module, with fresh weights: normalised images (N, C, H, W) to logits (N, classes).

        Raises:
            SpecError: if it cannot be built.
        """

    def layer_table(self) -> tuple[LayerRow, ...]:
        """One row a layer, which add up to `parameter_count`; none where nothing tells them."""

    def traits(self) -> Mapping[str, Any]:
        """What of it is a number or a choice and no layer, by name: for lists of settings."""

    def to_dict(self) -> dict[str, Any]:
        """As values that JSON knows; `network_from_dict` gives the same network back."""


def in_notation(network: Network) -> ModelSpec:
    """The network as a chain of layers, which only those of our notation are.

    Raises:
        SpecError: for a network that a user's file builds.
    """
    if not isinstance(network, ModelSpec):
        raise SpecError(f"A network must be a chain of the notation's layers, but got {network}.")
    return network


def network_from_dict(values: Mapping[str, Any]) -> Network:
    """The network that `to_dict` wrote.

    Raises:
        ValueError: if a value is wrong.
        KeyError, TypeError: if something is missing or of another kind.
    """
    return (OwnSpec if "fingerprint" in values else ModelSpec).from_dict(values)
