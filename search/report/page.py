"""A study's report as one HTML file that needs nothing beside it, neither network nor script."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from search.data.names import short_name
from search.plain_text import printable_lines, shell_line
from search.report import palette
from search.report.confusions import MOST_CLASSES, most_confused, off_diagonal
from search.report.facts import Report
from search.report.importance import BEST_SHARE, LEAST_TRIALS
from search.report.pictures import Picture, image_png
from search.study.record import TrialRecord
from search.wording import counted, duration, percent, seeds_words, seen_words, thousands

if TYPE_CHECKING:
    from search.report.validation import Validated

N_MISTAKES = 30  # shown at most
_DATASETS = {
    "mnist": "MNIST",
    "fashion-mnist": "Fashion-MNIST",
    "kmnist": "Kuzushiji-MNIST",
    "digits": "scikit-learn’s digits",
}


@dataclass(frozen=True, slots=True)
class Mistake:
    """A validation image that was taken for a wrong class, and how sure the network was."""

    image: str
    label: str
    answer: str
    sureness: int


@dataclass(frozen=True, slots=True)
class Errors:
    """Where the network errs on the validation images.

    Args:
        rows: of the confusion matrix: the true class, a count for each class, and their sum
            without the diagonal; none where it has too many classes to be read.
        most: the highest count beside the diagonal.
        pairs: where there are no rows, the classes that are confused most: the true one, the other,
            how many images, and of how many.
    """

    seed: int
    accuracy: float
    n_images: int
    n_wrong: int
    classes: Sequence[str]
    rows: Sequence[tuple[str, Sequence[int], int]]
    most: int
    pairs: Sequence[tuple[str, str, int, int]]
    mistakes: Sequence[Mistake]

    @classmethod
    def of(cls, validated: Validated) -> Errors:
        classes, wrong = validated.classes, off_diagonal(validated.counts)
        is_readable = len(classes) <= MOST_CLASSES
        per_class = zip(classes, validated.counts.tolist(), wrong.sum(axis=1).tolist(), strict=True)
        pairs = () if is_readable else most_confused(validated.counts)
        shown = validated.mistakes.tolist()[:N_MISTAKES]
        return cls(
            seed=validated.seed,
            accuracy=validated.accuracy,
            n_images=len(validated.examples),
            n_wrong=int(wrong.sum()),
            classes=classes,
            rows=list(per_class) if is_readable else [],
            most=max(1, int(wrong.max())),
            pairs=[
                (classes[pair.label], classes[pair.answer], pair.n_wrong, pair.n_images)
                for pair in pairs
            ],
            mistakes=[_mistake(validated, index) for index in shown],
        )


def _mistake(validated: Validated, index: int) -> Mistake:
    examples, classes = validated.examples, validated.classes
    probabilities = validated.probabilities[index]
    answer = int(probabilities.argmax())
    png = base64.b64encode(image_png(examples.images[index].tolist())).decode()
    return Mistake(
        image=f"data:image/png;base64,{png}",
        label=classes[int(examples.labels[index])],
        answer=classes[answer],
        sureness=min(99, int(100 * probabilities[answer])),  # no mistake is 100 % sure
    )


# What may stand in a layer, and what it means.
_NOTATION = (
    ("c3", "a 3 × 3 convolution to so many channels, batch normalisation and ReLU"),
    ("c1", "the same with a 1 × 1 kernel"),
    ("d3", "a 3 × 3 convolution of each channel by itself"),
    ("p1", "a margin of one pixel of zeros"),
    ("+bias", "a bias"),
    ("+hs", "hard swish as the activation, in place of ReLU"),
    ("pool", "2 × 2 max pooling"),
    ("drop", "dropout, behind it its rate"),
    ("gap", "the mean over the image"),
    ("out", "a 1 × 1 convolution to the classes"),
)


def _unbroken(text: str) -> str:
    """A text whose words stay on one line."""
    return text.replace(" ", "\u00a0")


def _command(*words: object) -> Markup:
    """A command of ours; a line may end between its words only, and not at a hyphen."""
    quoted = [shell_line([str(word)]) for word in ("search", *words)]
    return Markup(" ").join(Markup("<span>{}</span>").format(word) for word in quoted)


def _shown(value: object) -> object:
    """What the page shows of a value, before it is escaped as HTML."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return printable_lines(value)


def render_page(report: Report, pictures: Sequence[Picture], errors: Errors | None) -> str:
    """The page, with all pictures in it.

    Args:
        errors: None where no weights are there that tell.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters |= {
        "record": TrialRecord.read,
        "utc": lambda moment: f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}",
        "percent": lambda share: _unbroken(percent(share)),
        "thousands": thousands,
        "duration": lambda seconds: _unbroken(duration(seconds)),
        "counted": lambda n, noun: _unbroken(counted(n, noun)),
        "seen": seen_words,
        "seeds": seeds_words,
        "layers": lambda spec: ", ".join(map(_unbroken, str(spec).split(", "))),
        "bound": lambda share: f"{100 * share:.2f}",
    }
    values: dict[str, Any] = {
        "report": report,
        "pictures": {
            picture.name: Markup(picture.wide + picture.narrow)  # made here, of escaped text
            for picture in pictures
        },
        "errors": errors,
        "dataset": _DATASETS.get(report.settings.dataset, short_name(report.settings.dataset)),
        "metric": report.metric,
        "legend": [
            (sign, meaning)
            for sign, meaning in _NOTATION
            if any(sign in row.layer for row in report.layers)
        ],
        "n_influences": sum(row.is_beyond_chance for row in report.influences),
        "best_share": BEST_SHARE,
        "least_trials": LEAST_TRIALS,
        "command": _command,
        "palette": {name.lower(): value for name, value in vars(palette).items() if name.isupper()},
        "version": version("budget-search"),
        "now": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    return environment.get_template("report.html").render(values)
