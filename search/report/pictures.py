"""The pictures of a study's report: for a page, in its own colours, and as PNG files.

For a page each is drawn twice as SVG, for a wide one and for a telephone. Colours become variables
of the page, so that a dark one needs no other picture, and text stays text.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import matplotlib.image
import numpy as np
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial

from search.report import palette
from search.report.axes import NARROW, WIDE
from search.report.drawing import own_settings, picture_text
from search.report.facts import Report
from search.report.figures import draw_history, draw_influences, draw_learning, draw_race, draw_size
from search.report.loading import left_out
from search.report.palette import INK, PAPER

_DOTS_PER_INCH = 200
_VARIABLES = {
    value: f"var(--{name.lower()})" for name, value in vars(palette).items() if name.isupper()
}


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of a report.

    Args:
        name: of its file, without a suffix.
        title: what it shows; the heading of the PNG, and for those who cannot see it.
        wide, narrow: SVG elements for columns of about 690 and 350 pixels.
        png: the wide one with its title, on white.
    """

    name: str
    title: str
    wide: str
    narrow: str
    png: bytes


@own_settings()
def draw_pictures(report: Report, undrawn: Callable[[str], None]) -> list[Picture]:
    """The pictures that a study has something to show in.

    Args:
        undrawn: told, in a sentence, of each that cannot be drawn; the others are.
    """
    candidates: tuple[tuple[str, str, object, Callable[[Report, float], Figure]], ...] = (
        ("race", "Fresh seeds of the best trials", report.race, draw_race),
        ("size", "Accuracy against size", report.front, draw_size),
        ("learning", "How each trial learnt", _learners(report), draw_learning),
        ("influence", "What sets the best trials apart", report.influences, draw_influences),
        ("history", "The best, trial by trial", report.complete, draw_history),
    )
    pictures = []
    for name, title, content, draw in candidates:
        if content:
            try:
                pictures.append(_picture(report, name, title, draw))
            except Exception as error:  # whatever a drawing library meets on a machine
                undrawn(left_out(f"{name}.png", error))
    return pictures


def _learners(report: Report) -> list[FrozenTrial]:
    """The trials that have curves: of a single epoch none has."""
    return report.trained if report.settings.epochs > 1 else []


def _picture(
    report: Report, name: str, title: str, draw: Callable[[Report, float], Figure]
) -> Picture:
    wide, narrow = draw(report, WIDE), draw(report, NARROW)
    return Picture(
        name,
        title,
        wide=_svg(wide, f"{name}-wide", title),
        narrow=_svg(narrow, f"{name}-narrow", title),
        png=_png(wide, f"{title}: {report.study}"),
    )


def _svg(figure: Figure, name: str, title: str) -> str:
    """A figure as an element of a page.

    Args:
        name: that no other picture of the page has; names inside it follow from it.
    """
    file = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    text = file.getvalue()
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None
    body = text[
        text.index("</defs>") + len("</defs>") :
    ]  # the first holds a style for all elements
    for pattern, replacement in (
        (r'<g id="[^"]*"', "<g"),  # what nothing refers to; the rest of the names are hashes
        (r"font-family: [^;\"]*;? ?", ""),
        (r' transform="rotate\(-?0 [^"]*\)"', ""),
        (r"(?<=[A-Za-z0-9.])\s*\n\s*(?=[LCMzQ])", " "),
        (r"\n\s*", "\n"),
    ):
        body = re.sub(pattern, replacement, body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, variable)
    return f'<svg class="{name.rpartition("-")[2]}" role="img" aria-label="{title}" {box[0]}>{body}'


def _png(figure: Figure, title: str) -> bytes:
    figure.suptitle(picture_text(title), x=0.01, ha="left", color=INK, fontsize=12, weight="bold")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DOTS_PER_INCH, facecolor=PAPER)
    return file.getvalue()


@own_settings()
def image_png(pixels: Sequence[Sequence[Sequence[int]]]) -> bytes:
    """An image as PNG; a grey one is black on nothing, so that a page's own paper shows through.

    Args:
        pixels: (C, H, W), from 0, which is the background of a grey image, to 255. What has
            neither one channel nor three is shown by its first.
    """
    channels = np.asarray(pixels, dtype=np.uint8)
    rgba = np.zeros((*channels.shape[1:], 4), dtype=np.uint8)
    if len(channels) == 3:
        rgba[..., :3], rgba[..., 3] = channels.transpose(1, 2, 0), 255
    else:
        rgba[..., 3] = channels[0]
    file = io.BytesIO()
    mpl.image.imsave(file, rgba, format="png")
    return file.getvalue()
