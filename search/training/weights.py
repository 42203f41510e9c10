"""Weights on disk, written and loaded."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from search.data.normalization import Normalization
from search.data.tensors import tensors_as_bytes
from search.exceptions import CardError
from search.files import check_has_contents
from search.folders import as_path
from search.space.network_files import NamedNetwork, check_network, load_network, source_of_network
from search.space.presets import weights_folder
from search.training.card import kept_seed, read_card, weights_path
from search_models.layers import SpecError
from search_models.network import Network


def weights_as_bytes(network: nn.Module) -> bytes:
    """The weights and running statistics of `network`, as a file of weights has them."""
    return tensors_as_bytes(network.state_dict())


class Classifier(nn.Module):
    """A trained network with its normalisation built in.

    Takes images (N, C, H, W) as bytes from 0 to 255 or as floats from 0 to 1, with 0 as the
    background, and returns logits (N, n_classes).

    Raises:
        ValueError: for images of another shape.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        normalization: Normalization,
        input_shape: tuple[int, int, int],
    ) -> None:
        super().__init__()
        self.network = network
        self.input_shape = input_shape
        self.register_buffer("mean", torch.tensor(normalization.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(normalization.std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        shape = self.input_shape
        if images.dim() != 4 or tuple(images.shape[1:]) != shape:
            raise ValueError(
                f"Images must have the shape (N, {', '.join(map(str, shape))}), but got "
                f"{tuple(images.shape)}."
            )
        scaled = images.float() / 255 if images.dtype == torch.uint8 else images
        logits: Tensor = self.network((scaled - self.mean) / self.std)
        return logits


def load(
    folder: str | os.PathLike[str],
    *,
    seed: int | None = None,
    network: NamedNetwork | None = None,
) -> Classifier:
    """The network that `search retrain` wrote into `folder`, ready to classify.

    Args:
        folder: or the name of a shipped network, as in `load("best-1-epoch")`; where there is a
            folder of that name, it is the folder.
        seed: which of the training runs; by default the first whose weights are there, not the
            luckiest.
        network: your file that builds the network, or its function, where the card says that one
            does. It is run.

    Raises:
        CardError: if card or weights are missing, damaged, or do not belong together.
        InputError: if a file is needed that is not named, or is another than that of the card; or
            if `folder` is no path.
    """
    folder = weights_folder(as_path(folder, "folder"))
    card = read_card(folder)
    path = weights_path(folder, card, kept_seed(folder, card) if seed is None else seed)
    spec = card.hyperparameters.spec
    wanted = source_of_network(spec)
    how = "it as network, as network='net.py'."
    load_network(check_network(network, wanted, of=str(folder), how=how))
    return load_weights(spec, card.normalization, path)


def load_weights(spec: Network, normalization: Normalization, path: Path) -> Classifier:
    """A network with the weights of a file, ready to classify.

    Raises:
        CardError: if the weights cannot be read, or the network cannot be built.
    """
    try:
        check_has_contents(path)
        network = spec.build()
        tensors = load_file(path)
        network.load_state_dict(tensors)
    except SpecError as error:
        raise CardError(f"{path}: the network of the weights cannot be built: {error}") from error
    except (SafetensorError, RuntimeError, OSError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise CardError(f"{path}: the weights cannot be read ({why}).") from error
    if not all(each.isfinite().all() for each in tensors.values()):
        raise CardError(
            f"{path}: the weights must be finite numbers, but some are not, as where training "
            "diverged; take those of another seed or trial."
        )
    return Classifier(network, normalization, spec.input_shape).eval()
