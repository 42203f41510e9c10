"""Pictures of a retrained network: how it learnt, what it confuses, which images it gets wrong."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray
from torch import Tensor, nn

from search.data.dataset import Examples
from search.data.names import short_name
from search.exceptions import SearchError
from search.report.confusions import MOST_CLASSES, most_confused, off_diagonal
from search.report.drawing import class_labels, own_settings, picture_text
from search.report.palette import FAINT, INK, MUTED, RIGHT, SEED, WRONG
from search.training.card import Card
from search.training.epochs import N_LAST_EPOCHS
from search.training.metrics import metric_words
from search.wording import percent

# Sizes are in inches. What stands in a picture is large enough to be read at 900 pixels across,
# 100 to the inch; it is drawn with twice as many.
_WIDTH = 9.0
_DOTS_PER_INCH = 200
_MARGIN = 0.3
_HEAD = 0.95  # title and subtitle
_FOOT = 0.4  # whose weights these are
_LONGEST_FOOT = 120  # characters of it

_LETTERS_ABREAST = 100  # of the names of all classes, below the columns of a matrix

_WRONG_SHADES = LinearSegmentedColormap.from_list("wrong", ["#ffffff", "#fdba8c", WRONG])

N_MISTAKES = 60  # shown at most
_BATCH_SIZE = 100  # whose maps stay in the processor's cache: four times as fast as a thousand


@dataclass(frozen=True, slots=True)
class Answers:
    """Whose answers a picture shows, on which images.

    Args:
        part: `test` or `validation`.
        seed: of the training run that the network comes from.
        origin: a line for the picture's foot.
    """

    part: str
    seed: int
    origin: str

    @classmethod
    def of(cls, card: Card, seed: int) -> Answers:
        """Those of a retrained network on the test images."""
        return cls("test", seed, _origin(card))


def probabilities_of(network: nn.Module, examples: Examples) -> Tensor:
    """The probability of each class for each image, (N, n_classes), as float32."""
    with torch.inference_mode():
        batches = [network(images) for images in torch.split(examples.images, _BATCH_SIZE)]
    return torch.cat(batches).softmax(dim=1)


def confusion_matrix(probabilities: Tensor, labels: Tensor) -> NDArray[np.int64]:
    """How many images of each class (row) were taken for each class (column).

    Args:
        probabilities: (N, n_classes); the likeliest class is what an image was taken for.
        labels: (N,), the true classes.
    """
    n_classes = probabilities.shape[1]
    cells = labels * n_classes + probabilities.argmax(dim=1)
    counts = torch.bincount(cells, minlength=n_classes**2)
    return counts.view(n_classes, n_classes).numpy()


def find_mistakes(probabilities: Tensor, labels: Tensor) -> Tensor:
    """The indices (M,) of the images that were taken for a wrong class, the surest mistake first.

    Args:
        probabilities: (N, n_classes).
        labels: (N,), the true classes.
    """
    probability, predicted = probabilities.max(dim=1)
    wrong = (predicted != labels).nonzero().flatten()
    return wrong[probability[wrong].argsort(descending=True, stable=True)]


@own_settings()
def picture_png(figure: Figure) -> bytes:
    """A picture as PNG."""
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


@own_settings()
def draw_curves(card: Card) -> Figure:
    """The accuracy on the test images after each epoch: a line for each run, and their mean.

    Raises:
        SearchError: if the card was written before accuracies were kept.
    """
    accuracies = _accuracies(card)
    n_runs, n_epochs = accuracies.shape
    n_last = min(N_LAST_EPOCHS, n_epochs)
    spread = "" if card.accuracy_std is None else f" ± {100 * card.accuracy_std:.2f}"
    over = f"the last {n_last} epochs (shaded)" if n_epochs > n_last else f"all {n_epochs} epochs"
    mean = f"Above: mean over {over}, " if n_epochs > 1 else ""
    on_average = ", on average" if n_epochs > 1 else ""
    runs = f"{n_runs} seeds" if n_runs > 1 else f"seed {card.runs[0].seed}"
    low, high = _limits(accuracies)
    hidden = " Early epochs reach below the picture." if accuracies.min() < low else ""
    figure, axes = _page(
        _origin(card),
        5.4,
        f"{percent(card.mean_accuracy)}{spread} {_of_test_images(card)}{on_average}",
        f"Test {metric_words(card.metric)} after each epoch. {mean}{runs}.{hidden}",
    )
    epochs = np.arange(1, n_epochs + 1)
    line = "-" if n_epochs > 1 else "o"  # one point makes no line
    if n_epochs > n_last:
        axes.axvspan(
            n_epochs - n_last + 0.5, n_epochs + 0.5, color="#eef2f6", linewidth=0, zorder=0
        )
    if n_runs > 1:
        axes.plot(epochs, accuracies[:1].T, line, color=SEED, linewidth=1.1, label="each seed")
        axes.plot(epochs, accuracies[1:].T, line, color=SEED, linewidth=1.1)
    label = "mean" if n_runs > 1 else runs
    axes.plot(epochs, accuracies.mean(axis=0), line, color=RIGHT, linewidth=3, label=label)
    axes.set_xlim(0.5, n_epochs + 0.5)
    axes.set_ylim(low, high)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=15, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
    decimals = 2 if high - low < 0.005 else 1 if high - low < 0.05 else 0
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals, " %"))
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=9, labelcolor=INK)
    axes.set_xlabel("epoch", color=MUTED, fontsize=9)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    axes.legend(  # above the axes, where no line can be
        loc="lower right",
        bbox_to_anchor=(1, 1),
        ncols=2,
        frameon=False,
        fontsize=9,
        labelcolor=INK,
    )
    return figure


def _accuracies(card: Card) -> NDArray[np.float64]:
    """Shares from 0 to 1, (n_runs, n_epochs)."""
    kept = [run.accuracies for run in card.runs if run.accuracies is not None]
    if len(kept) < len(card.runs):
        raise SearchError(
            "The card must have the accuracies after each epoch for curves to be drawn, but it was "
            "written before they were kept; run 'search retrain' again."
        )
    return np.array(kept)


def _limits(accuracies: NDArray[np.float64]) -> tuple[float, float]:
    """What the vertical axis shows: all epochs but, where there are more than a few, a third.

    The first are so much worse that the last could not be told apart beside them.
    """
    n_epochs = accuracies.shape[1]
    later = accuracies[:, n_epochs // 3 if n_epochs > N_LAST_EPOCHS else 0 :]
    low, high = later.min(), later.max()
    margin = max(0.1 * (high - low), 0.0005)
    return low - margin, min(high + margin, 1 + margin / 5)  # no tick above 100 %


@own_settings()
def draw_confusion(answers: Answers, counts: NDArray[np.int64], classes: list[str]) -> Figure:
    """How many images of each class were taken for each, coloured by the mistakes alone.

    Of more classes than can be read, the pairs that are confused most.

    Args:
        counts: (n_classes, n_classes), true classes in rows.
        classes: the classes' names, by label.
    """
    wrong = off_diagonal(counts)
    title = f"{wrong.sum():,} of the {counts.sum():,} {answers.part} images wrong"
    if len(counts) > MOST_CLASSES:
        return _draw_pairs(answers, counts, classes, title)
    n_classes, most = len(counts), max(1, int(wrong.max()))
    labels = class_labels(classes)
    figure, axes = _page(
        answers.origin,
        8.6,
        title,
        f"How many images of each class (row) the network of seed {answers.seed} took for each "
        f"class (column).{_numbers_note(labels, classes)}",
    )
    axes.imshow(wrong, cmap=_WRONG_SHADES, vmin=0, vmax=most, aspect="auto")
    size = min(11.0, 130 / n_classes)  # points: a number of four digits fits its cell
    for row, column in np.argwhere(counts > 0):
        count = counts[row, column]
        if row == column:
            corner = (column - 0.5, row - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, facecolor="#e3ecf6", linewidth=0))
            color = RIGHT
        else:
            color = "white" if count > 0.8 * most else INK
        axes.text(column, row, f"{count:,}", color=color, fontsize=size, ha="center", va="center")
    edges = np.arange(n_classes + 1) - 0.5
    for draw_lines in (axes.hlines, axes.vlines):
        draw_lines(edges, edges[0], edges[-1], color=FAINT, linewidth=0.7, clip_on=False)
    ticks = range(n_classes)
    axes.set_xticks(ticks, labels)
    axes.set_yticks(ticks, labels)
    axes.tick_params(length=0, labelsize=min(9.5, 1.1 * size), labelcolor=INK)
    if n_classes * max(map(len, labels)) > _LETTERS_ABREAST:
        axes.tick_params(axis="x", rotation=90)
    axes.set_xlabel("taken for", color=MUTED, fontsize=9)
    axes.set_ylabel("true class", color=MUTED, fontsize=9)
    sums = axes.secondary_yaxis("right")
    sums.set_yticks(ticks, [f"{n:,} wrong" for n in wrong.sum(axis=1)])
    sums.tick_params(length=0, labelsize=min(9.0, 1.1 * size), labelcolor=WRONG)
    for spine in (*axes.spines.values(), *sums.spines.values()):
        spine.set_visible(False)
    return figure


def _draw_pairs(
    answers: Answers, counts: NDArray[np.int64], classes: list[str], title: str
) -> Figure:
    """A bar for each of the pairs of classes that are confused most."""
    pairs = most_confused(counts)
    shown = [classes[number] for pair in pairs for number in (pair.label, pair.answer)]
    labels = class_labels(classes)
    figure, axes = _page(
        answers.origin,
        _HEAD + _FOOT + 0.7 + 0.22 * max(1, len(pairs)),
        title,
        f"{len(classes):,} classes; the {len(pairs)} pairs that the network of seed {answers.seed} "
        "confuses most, as true class → taken for."
        + _numbers_note([labels[n] for pair in pairs for n in (pair.label, pair.answer)], shown)
        if pairs
        else f"The network of seed {answers.seed} confuses none of {len(classes):,} classes.",
    )
    axes.barh(range(len(pairs)), [pair.n_wrong for pair in pairs], 0.7, color=WRONG)
    axes.set_ylim(len(pairs) - 0.4, -0.6)
    names = [f"{labels[pair.label]} → {labels[pair.answer]}" for pair in pairs]
    axes.set_yticks(range(len(pairs)), names)
    for place, pair in enumerate(pairs):
        text = f"{pair.n_wrong:,} of {pair.n_images:,}"
        axes.text(pair.n_wrong, place, f" {text}", color=INK, fontsize=9, va="center")
    axes.set_xlim(0, 1.2 * max((pair.n_wrong for pair in pairs), default=1))
    axes.set_xticks([])
    axes.tick_params(length=0, labelsize=9, labelcolor=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def _numbers_note(labels: Sequence[str], classes: Sequence[str]) -> str:
    """What is to be said where classes stand by their numbers."""
    is_numbered = any(
        label != name and re.fullmatch(r"class \d+", label)
        for label, name in zip(labels, classes, strict=True)
    )
    return (
        " Classes whose names cannot be written here have numbers, from 0." if is_numbered else ""
    )


@own_settings()
def draw_mistakes(
    answers: Answers, examples: Examples, probabilities: Tensor, classes: list[str]
) -> Figure:
    """The images that are taken for a wrong class, the surest mistakes first.

    Args:
        examples: all N images that were asked about, (N, C, H, W), and their labels.
        probabilities: (N, n_classes).
        classes: the classes' names, by label.
    """
    mistakes = find_mistakes(probabilities, examples.labels)
    n_wrong, shown = len(mistakes), mistakes[:N_MISTAKES].tolist()
    n_columns = 10
    n_rows = max(1, -(-len(shown) // n_columns))
    labels = class_labels(classes)
    names_are_long = max(map(len, labels)) > 3
    gap, caption = 0.12, 0.58 if names_are_long else 0.44
    side = (_WIDTH - 2 * _MARGIN + gap) / n_columns - gap
    height, room = n_rows * (side + caption), side + 0.7 * gap
    which = f"; the {N_MISTAKES} surest mistakes" if n_wrong > N_MISTAKES else ""
    figure, axes = _page(
        answers.origin,
        _HEAD + height + _FOOT,
        f"{n_wrong:,} of the {len(examples):,} {answers.part} images wrong{which}",
        f"Below each image: its true class, what the network of seed {answers.seed} takes it for, "
        f"and how sure it is.{_numbers_note(labels, classes)}"
        if shown
        else f"The network of seed {answers.seed} has nothing to show here.",
    )
    axes.axis("off")
    predicted = probabilities.argmax(dim=1)
    for cell, index in enumerate(shown):
        left = cell % n_columns * (side + gap)
        top = cell // n_columns * (side + caption)
        image = examples.images[index].permute(1, 2, 0).numpy()  # (H, W, C)
        rows, columns = (side * n / max(image.shape[:2]) for n in image.shape[:2])
        x, y = left + (side - columns) / 2, top + side - rows  # on the line above its caption
        extent = (x, x + columns, y + rows, y)
        shown_image = image if image.shape[-1] == 3 else image[..., 0]
        axes.imshow(shown_image, cmap="Greys", vmin=0, vmax=255, extent=extent, aspect="auto")
        axes.add_patch(Rectangle((x, y), columns, rows, fill=False, edgecolor=FAINT, clip_on=False))
        label, answer = int(examples.labels[index]), int(predicted[index])
        percent = min(99, int(100 * probabilities[index, answer]))  # no mistake is 100 % sure
        sure = f"\n{percent} %" if names_are_long else f" ({percent} %)"
        for below, text, color in (
            (0.05, labels[label], INK),
            (0.19, labels[answer] + sure, WRONG),
        ):
            place_of_text = (left + side / 2, top + side + below)
            caption_text = axes.text(*place_of_text, text, color=color, ha="center", va="top")
            caption_text.set_fontsize(8.5 * min(1.0, room / _inches(caption_text, 8.5)))
    axes.set_xlim(0, _WIDTH - 2 * _MARGIN)
    axes.set_ylim(height, 0)
    return figure


def _inches(text: Text, size: float) -> float:
    """How wide a text is in this size, in points."""
    text.set_fontsize(size)
    return float(text.get_window_extent().width / _DOTS_PER_INCH)


def _of_test_images(card: Card) -> str:
    if card.metric == "accuracy":
        return "of the test images right"
    return f"{metric_words(card.metric)} on the test images"


def _origin(card: Card) -> str:
    when = f"{card.created:%Y-%m-%d %H:%M} UTC"
    return f"{short_name(card.dataset)}; trial {card.trial} of {card.study}, retrained {when}"


def _page(origin: str, height: float, title: str, subtitle: str) -> tuple[Figure, Axes]:
    """A page with a heading, the weights' origin at its foot, and axes between the two."""
    origin = picture_text(origin)
    if len(origin) > _LONGEST_FOOT:  # of a study with a long name
        half = _LONGEST_FOOT // 2
        origin = f"{origin[:half]}…{origin[-half:]}"
    left = _MARGIN / _WIDTH
    area = (left, _FOOT / height, 1 - 2 * left, 1 - (_HEAD + _FOOT) / height)
    figure = Figure(
        (_WIDTH, height),
        dpi=_DOTS_PER_INCH,
        facecolor="white",
        layout=ConstrainedLayoutEngine(rect=area, w_pad=0, h_pad=0),
    )
    FigureCanvasAgg(figure)
    figure.text(left, 1 - 0.42 / height, title, color=INK, fontsize=15, weight="bold")
    below = figure.text(left, 1 - 0.68 / height, subtitle, color=MUTED, fontsize=9.5)
    share = (1 - 2 * left) * figure.bbox.width / below.get_window_extent().width
    if share < 1:  # two lines have room
        letters = int(0.95 * share * len(subtitle))
        below.set(text=textwrap.fill(subtitle, letters), y=1 - 0.54 / height, va="top")
    figure.text(left, 0.14 / height, origin, color=MUTED, fontsize=7.5)
    return figure, figure.subplots()
