"""Weights on disk, beside a card that rebuilds the network without the database."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from models.convnet import ConvNet
from models.size import parameter_count
from search.data import Normalization
from search.exceptions import CardError
from search.files import write_tensors, write_text
from search.hyperparameters import Hyperparameters

CARD_NAME = "card.json"
CARD_VERSION = 1


def weights_name(seed: int | str) -> str:
    """The file, beside the card, with the weights of a seed; of all, as a pattern, with `*`."""
    return f"seed-{seed}.safetensors"


def save_weights(network: nn.Module, path: Path) -> None:
    """Writes the weights and running statistics of `network`; never half a file."""
    write_tensors(network.state_dict(), path)


def save_card(card: dict[str, Any], folder: Path) -> None:
    """Writes `card.json` into `folder`; never half a file."""
    write_text(json.dumps(card, indent=2) + "\n", folder / CARD_NAME)


@dataclass(frozen=True)
class _CardContents:
    hyperparameters: Hyperparameters
    normalization: Normalization
    seeds: list[int]


class Classifier(nn.Module):
    """A trained network with its normalisation built in.

    Takes images (N, C, H, W) as bytes from 0 to 255 or as floats from 0 to 1, with 0 as the
    background, and returns logits (N, n_classes).

    Raises:
        ValueError: for images of another shape.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: ConvNet, normalization: Normalization) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(normalization.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(normalization.std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        shape = self.network.spec.input_shape
        if images.dim() != 4 or tuple(images.shape[1:]) != shape:
            raise ValueError(
                f"Images must have the shape (N, {', '.join(map(str, shape))}), but got "
                f"{tuple(images.shape)}."
            )
        scaled = images.float() / 255 if images.dtype == torch.uint8 else images
        logits: Tensor = self.network((scaled - self.mean) / self.std)
        return logits


def load(folder: str | Path, *, seed: int | None = None) -> Classifier:
    """The network that `search retrain` wrote into `folder`, ready to classify.

    Args:
        seed: which of the training runs; by default the first, not the luckiest.

    Raises:
        CardError: if card or weights are missing, damaged, or do not belong together.
    """
    folder = Path(folder)
    contents = _read_card(folder)
    if seed is not None and seed not in contents.seeds:
        seeds = ", ".join(str(known) for known in contents.seeds)
        raise CardError(f"{folder}: seed must be one of {seeds}, but got {seed}.")
    network = ConvNet(contents.hyperparameters.spec)
    path = folder / weights_name(contents.seeds[0] if seed is None else seed)
    try:
        network.load_state_dict(load_file(path))
    except FileNotFoundError as error:
        raise CardError(f"{path}: the weights are missing; run 'search retrain' again.") from error
    except (SafetensorError, RuntimeError, OSError) as error:
        raise CardError(f"{path}: the weights cannot be read ({error}).") from error
    return Classifier(network, contents.normalization).eval()


def _read_card(folder: Path) -> _CardContents:
    path = folder / CARD_NAME
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        version, count = card["card_version"], card["parameter_count"]
        contents = _CardContents(
            Hyperparameters.from_dict(card["hyperparameters"]),
            Normalization(
                tuple(card["normalization"]["mean"]), tuple(card["normalization"]["std"])
            ),
            [int(run["seed"]) for run in card["runs"]],
        )
    except FileNotFoundError as error:
        raise CardError(
            f"A folder of weights must hold a {CARD_NAME}, but {folder} does not; "
            "'search retrain' writes one."
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CardError(f"{path}: the card cannot be used ({error!r}).") from error
    if version != CARD_VERSION:
        raise CardError(
            f"{path}: this version reads cards of version {CARD_VERSION}, but the card is of "
            f"version {version!r}; use the version of the package that wrote it."
        )
    actual = parameter_count(contents.hyperparameters.spec)
    if count != actual:
        raise CardError(
            f"{path}: the card says {count!r} parameters, but its network has {actual:,}; the "
            "card was changed by hand."
        )
    if not contents.seeds:
        raise CardError(f"{path}: the card names no training run.")
    return contents
