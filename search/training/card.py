"""The card beside weights: whose they are, and all that rebuilds their network. Without PyTorch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from search.data.names import (
    TENSORS,
    check_dataset_name,
    class_names,
    find_data_words,
    folder_of,
)
from search.data.normalization import Normalization
from search.exceptions import CardError, InputError
from search.files import check_has_contents
from search.folders import CARD_NAME
from search.space.hyperparameters import Hyperparameters
from search.space.presets import PRESETS
from search.training.metrics import Metric, check_metric
from search.wording import meant

if TYPE_CHECKING:
    from search.data.dataset import DatasetInfo

_T = TypeVar("_T")

CARD_VERSION = 1
# Beyond these, nothing can have been trained: a card is told so before memory is asked for.
_MOST_EPOCHS, _MOST_PARAMETERS, _MOST_PIXELS = 2**53, 10**9, 10**7
_LEAST_STD = 1e-9  # of one pixel of 1/255 among more images than there are
# What anything that is not a card may raise while it is read as one.
_NOT_A_CARD = (
    *(ValueError, KeyError, TypeError, AttributeError),
    *(IndexError, OverflowError, RecursionError, InputError),
)


def weights_name(seed: int | str) -> str:
    """The file, beside the card, with the weights of a seed; of all, as a pattern, with `*`."""
    return f"seed-{seed}.safetensors"


def card_text(card: Mapping[str, Any]) -> str:
    """A card as its file has it."""
    return json.dumps(card, indent=2) + "\n"


@dataclass(frozen=True, slots=True)
class Run:
    """One training run of a card.

    Args:
        accuracies: on the test images after each epoch, as shares from 0 to 1; None in cards of
            before they were kept.
    """

    seed: int
    accuracies: tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class Card:
    """What stands beside weights: whose they are, and all that rebuilds their network.

    Args:
        created: when the weights were written, in UTC.
        dataset, fingerprint: the name of the data set that they were trained and tested on, and
            the SHA-256 of its pixels and labels.
        classes: what people call them, by label.
        metric: which accuracy the card has.
        mean_accuracy, accuracy_std: test accuracy of the last three epochs as a share from 0 to
            1, mean and sample standard deviation over the runs; the latter is None for one run.
        epochs: of each run; None in cards of before they were kept.
        runs: at least one, in the order in which they were asked for.
    """

    created: datetime
    study: str
    trial: int
    dataset: str
    fingerprint: str
    classes: tuple[str, ...]
    metric: Metric
    hyperparameters: Hyperparameters
    normalization: Normalization
    mean_accuracy: float
    accuracy_std: float | None
    epochs: int | None
    runs: tuple[Run, ...]

    def check_data(self, info: DatasetInfo) -> None:
        """Sees that a data set is the one that the weights were trained and tested on.

        Raises:
            CardError: if it has other images or labels.
        """
        if self.fingerprint != info.fingerprint:
            raise CardError(
                f"The data must be those that the card was written for, but {info.name} in "
                f"{info.origin} has other images or labels; {find_data_words(info.name)}."
            )


def kept_seed(folder: Path, card: Card) -> int:
    """The seed of the first run whose weights are beside the card; where none are, of the first."""
    seeds = [run.seed for run in card.runs]
    return next((seed for seed in seeds if (folder / weights_name(seed)).exists()), seeds[0])


def weights_path(folder: Path, card: Card, seed: int) -> Path:
    """The file of the weights of a run.

    Raises:
        CardError: if there is no such run, or its file is missing.
    """
    seeds = [run.seed for run in card.runs]
    if seed not in seeds:
        known = ", ".join(map(str, seeds))
        raise CardError(f"{folder}: seed must be one of {known}, but got {seed}.")
    path = folder / weights_name(seed)
    if not path.exists():
        kept = [str(each) for each in seeds if (folder / weights_name(each)).exists()]
        others = f"take those of seed {' or '.join(kept)}, or " if kept else ""
        raise CardError(f"{path}: the weights are missing; {others}run 'search retrain' again.")
    return path


def read_card(folder: Path) -> Card:
    """The card that `search retrain` wrote into `folder`.

    Raises:
        CardError: if it is missing, damaged, changed by hand, or of another version.
    """
    path = folder / CARD_NAME
    try:
        check_has_contents(path)
        contents = json.loads(path.read_text(encoding="utf-8"))
        version = contents["card_version"]
        is_known = type(version) is int and version == CARD_VERSION
        if is_known:
            count, card = contents["parameter_count"], _parse(contents)
    except OSError as error:
        raise _no_card(folder, error) from error
    except _NOT_A_CARD as error:
        raise CardError(
            f"{path}: the card cannot be used: {_what_is_wrong(error)}. Take it as "
            "'search retrain' wrote it, or run that again."
        ) from error
    if not is_known:
        raise CardError(
            f"{path}: this version reads cards of version {CARD_VERSION}, but the card is of "
            f"version {version!r}; use the version of the package that wrote it."
        )
    actual = card.hyperparameters.spec.parameter_count
    if type(count) is not int or count != actual:
        raise CardError(
            f"{path}: the card says {count!r} parameters, but its network has {actual:,}; the "
            "card was changed by hand."
        )
    if not card.runs:
        raise CardError(f"{path}: the card names no training run.")
    for run in card.runs:
        if run.accuracies is not None and len(run.accuracies) != card.epochs:
            raise CardError(
                f"{path}: the card says {card.epochs} epochs, but seed {run.seed} has "
                f"{len(run.accuracies)} accuracies; the card was changed by hand."
            )
    return card


def _what_is_wrong(error: Exception) -> str:
    """What was met as something was read that is no card, for somebody who does not read Python."""
    match error:
        case KeyError():
            return f"there is no {error}"
        case json.JSONDecodeError():
            return f"it is no JSON from line {error.lineno}, column {error.colno} on"
        case UnicodeDecodeError():
            return f"it is no UTF-8 from byte {error.start} on"
        case ValueError() | InputError():
            return str(error).rstrip(".")
        case RecursionError():
            return "it has too many levels"
        case _:
            return "a value in it is of another kind than it must be"


def _no_card(folder: Path, error: OSError) -> CardError:
    """What is said where no card can be read, and what there is instead."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        return CardError(
            f"{folder / CARD_NAME}: the card must be readable, but it is not ({error.strerror}); "
            "have it opened, or name another folder."
        )
    if folder.is_dir():
        return CardError(
            f"A folder of weights must hold a {CARD_NAME}, but {folder} does not; "
            "'search retrain' writes one."
        )
    found = f"there is no {folder}{meant(str(folder), PRESETS)}"
    if folder.exists():
        has_card = (folder.parent / CARD_NAME).is_file()
        found = f"{folder} is a file{f'; name {folder.parent}' if has_card else ''}."
    return CardError(
        "Weights must be in a folder that 'search retrain' wrote, or be those of one of the "
        f"shipped networks {', '.join(PRESETS)}, but {found}"
    )


def _parse(contents: dict[str, Any]) -> Card:
    normalization, accuracy = contents["normalization"], contents["test_accuracy"]
    dataset = contents["dataset"]
    name, classes = _text(dataset["name"]), dataset.get("classes")
    is_of_a_users = folder_of(name) is not None or name.startswith(TENSORS)
    if not is_of_a_users or classes is None:
        built_in = check_dataset_name(name)
        if classes is None:  # a card of before other data sets than those built in
            classes = class_names(built_in)
    classes = _different(map(_text, _list(classes)))
    hyperparameters = Hyperparameters.from_dict(contents["hyperparameters"])
    if len(classes) != hyperparameters.spec.n_classes:
        raise ValueError(f"{len(classes)} names for {hyperparameters.spec.n_classes} classes")
    n_parameters = hyperparameters.spec.parameter_count
    if n_parameters > _MOST_PARAMETERS:
        raise ValueError(f"{n_parameters} parameters, more than {_MOST_PARAMETERS:,}")
    shape = hyperparameters.spec.input_shape
    if math.prod(shape) > _MOST_PIXELS:
        raise ValueError(f"images of {shape}, more than {_MOST_PIXELS:,} values")
    epochs = contents.get("epochs")
    if epochs is not None and (type(epochs) is not int or not 1 <= epochs <= _MOST_EPOCHS):
        raise ValueError(f"{epochs!r} epochs")
    runs = []
    for run in _list(contents["runs"]):
        accuracies = run.get("accuracies")
        shares = None if accuracies is None else tuple(map(_share, _list(accuracies)))
        runs.append(Run(_count(run["seed"]), shares))
    _different(run.seed for run in runs)
    return Card(
        created=datetime.fromisoformat(contents["created"]),
        study=_text(contents["study"]),
        trial=_count(contents["trial"]),
        dataset=name,
        fingerprint=_text(dataset["fingerprint"]),
        classes=classes,
        metric=check_metric(contents.get("metric", "accuracy")),
        hyperparameters=hyperparameters,
        normalization=_normalization(normalization, hyperparameters.spec.input_shape[0]),
        mean_accuracy=_share(accuracy["mean"]),
        accuracy_std=None if accuracy["std"] is None else _share(accuracy["std"]),
        epochs=epochs,
        runs=tuple(runs),
    )


def _normalization(stored: dict[str, Any], n_channels: int) -> Normalization:
    mean, std = (tuple(map(_finite, _list(stored[name]))) for name in ("mean", "std"))
    are_of_pixels = all(0 <= each <= 1 for each in mean) and all(_LEAST_STD <= s <= 1 for s in std)
    if not len(mean) == len(std) == n_channels or not are_of_pixels:
        raise ValueError(f"a mean {mean} and a std {std} of {n_channels} channels of 0 to 1")
    return Normalization(mean, std)


def _list(value: Any) -> list[Any]:
    """A list: a text, or a table, is one of letters, or of names, to Python."""
    if not isinstance(value, list):
        raise ValueError(f"{value!r} is no list")
    return value


def _different(values: Iterable[_T]) -> tuple[_T, ...]:
    """Values of which each must be there but once."""
    found = tuple(values)
    if len(set(found)) < len(found):
        raise ValueError(f"{found!r} has one twice")
    return found


def _text(value: Any) -> str:
    """A text that a program's source can hold."""
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(f"{value!r} is no text")
    value.encode()  # raises for halves of characters, which JSON can hold
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"{value!r} is no number of a trial or seed")
    return value


def _share(value: Any) -> float:
    if not 0 <= _finite(value) <= 1:
        raise ValueError(f"{value!r} is no share")
    return float(value)


def _finite(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no finite number")
    return float(value)
