"""A network and its recipe as one plain PyTorch program, as a person would write it by hand."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any

import jinja2

from search.data.folder_layout import IMAGE_ENDINGS, SYSTEM_ENDINGS, SYSTEM_FOLDERS
from search.data.names import TENSORS, folder_of, short_name
from search.data.split_names import PART_NAMES
from search.exceptions import InputError
from search.plain_text import printable
from search.space.baselines import Baseline
from search.space.hyperparameters import (
    N_CONTROL_POINTS,
    Augmentation,
    Constant,
    Hyperparameters,
    OneCycle,
    StepDecay,
)
from search.training.card import Card
from search.training.metrics import Metric, metric_words
from search.wording import percent
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
from search_models.network import in_notation
from search_models.size import LayerRow, receptive_field
from search_models.spec import ModelSpec

# torchvision's names of the data sets that it brings.
_DATASET_CLASSES = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST"}
_OPTIMIZER_CLASSES = {"sgd": "SGD", "nesterov": "SGD", "adam": "Adam", "adamw": "AdamW"}
_ACTIVATIONS: dict[Activation, tuple[str, str]] = {  # in words, and in torch.nn.functional
    "relu": ("ReLU", "relu"),
    "hardswish": ("hard swish", "hardswish"),
}
# Of MNIST's training images during a search; a hand-tuned system brings none of its own.
_MNIST_MEAN, _MNIST_STD = 0.1306, 0.308
_LINE_WIDTH = 88  # what ruff and Black allow unless told otherwise


@dataclass(frozen=True, slots=True)
class Source:
    """What a program is written from.

    Args:
        origin: where network and recipe come from, in sentences.
        mean, std: of each channel of the training images, pixels from 0 to 1.
        metric: by which the program tests the network.
        n_held_out: how many training images are left out.
    """

    origin: str
    hyperparameters: Hyperparameters
    dataset: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    epochs: int
    n_held_out: int = 0
    metric: Metric = "accuracy"


def card_source(card: Card) -> Source:
    """What the program of a retrained network is written from.

    Raises:
        InputError: if the card does not say for how many epochs it was trained, or its data were
            given in Python.
    """
    if card.epochs is None:
        raise InputError(
            "The card must say for how many epochs the network was trained, but it was written "
            "before that was kept; run 'search retrain' again."
        )
    if card.dataset.startswith(TENSORS):
        raise InputError(
            "A program must find its images in files, but those of "
            f"{short_name(card.dataset)!r} were given in Python; take the network as ONNX, or "
            "search a folder of the images."
        )
    if not isinstance(card.hyperparameters.spec, ModelSpec):
        raise InputError(
            "A program can be written of a network in the search's own notation, but this one is "
            f"built by {card.hyperparameters.spec}, which is a program already; take the network "
            "as ONNX, or copy that file."
        )
    n_last, n_seeds = min(3, card.epochs), len(card.runs)
    over = f"{f'last {n_last} epochs' if n_last > 1 else 'last epoch'} of {n_seeds} "
    return Source(
        origin=f"Found by a hyperparameter search: trial {card.trial} of the study {card.study}. "
        f"Test {metric_words(card.metric)}, {over}{'seeds' if n_seeds > 1 else 'seed'}: "
        f"{percent(card.mean_accuracy)}.",
        hyperparameters=card.hyperparameters,
        dataset=card.dataset,
        mean=card.normalization.mean,
        std=card.normalization.std,
        epochs=card.epochs,
        metric=card.metric,
    )


def baseline_source(baseline: Baseline) -> Source:
    """What the program of a hand-tuned system is written from."""
    claimed = baseline.claim.last_three_mean or baseline.claim.last_epoch
    return Source(
        origin=f"The hand-tuned system {baseline.name}, whose author claims a test accuracy of "
        f"{claimed:.2f} %.",
        hyperparameters=baseline.hyperparameters,
        dataset="mnist",
        mean=(_MNIST_MEAN,),
        std=(_MNIST_STD,),
        epochs=baseline.epochs,
        n_held_out=baseline.n_held_out,
    )


def to_python(source: Source, *, file_name: str) -> str:
    """The text of a program that trains the network by its recipe and tests it each epoch.

    It needs PyTorch and torchvision (scikit-learn for `digits`, Pillow for a folder of images), and
    nothing of this package. Its
    network has its tensors in the order of `ConvNet`, so that weights fit one to one.

    Args:
        file_name: under which it will lie.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("search.export", "."),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["number"] = _number
    environment.globals["layer_line"] = _layer_line
    template = environment.get_template("network.py.jinja")
    return template.render(_values(source, file_name))


def _values(source: Source, file_name: str) -> dict[str, Any]:
    """What the template asks for."""
    hyperparameters, schedule = source.hyperparameters, source.hyperparameters.schedule
    spec = in_notation(hyperparameters.spec)
    augments = not hyperparameters.augmentation.is_identity
    shrinks = augments and hyperparameters.final_augmentation != 1
    counts_steps = shrinks or hyperparameters.ema_epochs > 0
    steps_each_batch = not isinstance(hyperparameters.schedule, StepDecay | Constant)
    is_digits, is_folder = source.dataset == "digits", folder_of(source.dataset) is not None
    needs = "scikit-learn" if is_digits else "Pillow" if is_folder else "torchvision"
    n_parameters = spec.parameter_count
    epochs = f"{source.epochs} epoch{'s' if source.epochs > 1 else ''}"
    return {
        "title": f"{n_parameters:,} parameters, {epochs} of "
        f"{_for_docstring(short_name(source.dataset))}.",
        "origin": textwrap.fill(_for_docstring(source.origin), _LINE_WIDTH),
        "usage": _for_docstring(file_name) + ("" if is_digits else " --data DIR"),
        "needs": f"torch and {needs}",
        "hyperparameters": hyperparameters,
        "epochs": source.epochs,
        "mean": _numbers(source.mean),
        "std": _numbers(source.std),
        "metric": metric_words(source.metric),
        "is_digits": is_digits,
        "is_folder": is_folder,
        "height": spec.input_shape[1],
        "width": spec.input_shape[2],
        "size": max(spec.input_shape[1:]),
        "endings": sorted(IMAGE_ENDINGS),
        "part_names": PART_NAMES,
        "system_folders": sorted(SYSTEM_FOLDERS),
        "system_endings": SYSTEM_ENDINGS,
        "dataset_class": _DATASET_CLASSES.get(source.dataset),
        "n_held_out": source.n_held_out,
        "layers": _layers(spec),
        "n_parameters": n_parameters,
        "receptive_field": receptive_field(spec),
        "augments": augments,
        "augmentation": hyperparameters.augmentation,
        "n_control_points": N_CONTROL_POINTS,
        "augmentation_words": _augmentation_words(hyperparameters.augmentation),
        "augment_call": f"augment(train_images[batch]{', strength' if shrinks else ''})"
        if augments
        else "train_images[batch]",
        "shrinks": shrinks,
        "counts_steps": counts_steps,
        "uses_steps": counts_steps or steps_each_batch,
        "uses_math": counts_steps
        or steps_each_batch
        or hyperparameters.augmentation.rotation_degrees > 0
        or hyperparameters.augmentation.shear_degrees > 0,
        "optimizer_class": _OPTIMIZER_CLASSES[hyperparameters.optimizer],
        "schedule": hyperparameters.schedule,
        "schedule_class": type(hyperparameters.schedule).__name__,
        "steps_each_batch": steps_each_batch,
        "cycles_momentum": isinstance(schedule, OneCycle) and schedule.cycle_momentum,
        "trained": "average" if hyperparameters.ema_epochs else "net",
    }


@dataclass(frozen=True, slots=True)
class _ProgramLayer:
    """A layer as the program has it.

    Args:
        modules: what `__init__` makes for it, by attribute.
        expression: what `forward` computes from `x`.
    """

    words: str
    shape: tuple[int, ...]
    parameters: str
    sees: str
    modules: dict[str, str]
    expression: str


def _layers(spec: ModelSpec) -> list[_ProgramLayer]:
    layers = []
    in_channels, n_convolutions = spec.input_shape[0], 0
    for layer, row in zip(spec.layers, spec.layer_table(), strict=True):
        if isinstance(layer, Conv | DepthwiseConv):
            n_convolutions += 1
        layers.append(_program_layer(layer, row, in_channels, n_convolutions))
        in_channels = row.output_shape[0]
    return layers


def _program_layer(layer: Layer, row: LayerRow, in_channels: int, number: int) -> _ProgramLayer:
    """A layer; `number` is that of the last convolution so far, from 1."""
    channels = row.output_shape[0]
    modules: dict[str, str] = {}
    match layer:
        case Conv() | DepthwiseConv():
            convolution, norm = f"conv{number}", f"norm{number}"
            words, function = _ACTIVATIONS[layer.activation]
            options = f", padding={layer.padding}" if layer.padding else ""
            if isinstance(layer, DepthwiseConv):
                words = f"{convolution:<7} 3×3 depthwise, {words}"
                options += f", groups={channels}"
            else:
                words = f"{convolution:<7} {layer.kernel}×{layer.kernel}, {words}"
            bias = "" if isinstance(layer, Conv) and layer.bias else ", bias=False"
            modules[convolution] = f"Conv2d({in_channels}, {channels}, {row.kernel}{options}{bias})"
            modules[norm] = f"BatchNorm2d({channels})"
            expression = f"F.{function}(self.{norm}(self.{convolution}(x)))"
        case Pool():
            words, expression = "max pooling", "F.max_pool2d(x, 2)"
        case Dropout(rate=rate):
            words, expression = "dropout", f"F.dropout(x, {_number(rate)}, self.training)"
        case GlobalAveragePool():
            words, expression = "global average pooling", "F.adaptive_avg_pool2d(x, 1)"
        case Output():
            words, expression = f"{'out':<7} 1×1", "self.out(x)"
            bias = "" if layer.bias else ", bias=False"
            modules["out"] = f"Conv2d({in_channels}, {channels}, 1{bias})"
    return _ProgramLayer(
        words=words,
        shape=row.output_shape,
        parameters=f"{row.parameters:,}" if row.parameters else "–",
        sees=f"{row.receptive_field}×{row.receptive_field}",
        modules=modules,
        expression=expression,
    )


def _layer_line(layer: str, output: str, parameters: str, sees: str) -> str:
    return f"{layer:<34} {output:<10} {parameters:>10}  {sees}".rstrip()


def _augmentation_words(augmentation: Augmentation) -> list[str]:
    changes = {
        "turned": augmentation.rotation_degrees,
        "sheared": augmentation.shear_degrees,
        "resized": augmentation.scale,
        "moved": augmentation.translation,
        "distorted": augmentation.elastic,
        "mirrored": augmentation.flip,
    }
    return [word for word, limit in changes.items() if limit]


def _number(value: float) -> str:
    """A number of Python with four digits, as people write it: `0.05`, `5e-5`, `1e4`."""
    digits, e, exponent = f"{value:.4g}".partition("e")
    return f"{digits}e{int(exponent)}" if e else digits


def _numbers(values: tuple[float, ...]) -> str:
    """A number, or several in brackets."""
    texts = [_number(value) for value in values]
    return texts[0] if len(texts) == 1 else f"({', '.join(texts)})"


def _for_docstring(text: str) -> str:
    """A name as a docstring can have it: nothing in it ends or escapes the string."""
    return printable(text).replace("\\", "/").replace('"', "'")
