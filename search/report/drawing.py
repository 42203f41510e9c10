"""How pictures are drawn: with settings of their own, and with fonts that have their letters.

Whoever draws does it inside `own_settings`, so that no `matplotlibrc` of a user's matters, and what
looks like a formula in a text is none.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

from search.plain_text import printable

_FAMILY = "DejaVu Sans"  # which comes with matplotlib
# What fonts that have the letters of many languages have in their files' names.
_LIKELY = ("cjk", "hans", "noto", "wqy", "droid", "unifont", "arialuni", "msyh", "malgun", "gothic")
_LONGEST_LABEL = 14  # characters of a class's name beside a picture of all classes
_SETTINGS = {
    **{key: value for key, value in mpl.rcParamsDefault.items() if not key.startswith("backend")},
    "font.family": [_FAMILY],
    "text.parse_math": False,
}


@contextmanager
def own_settings() -> Iterator[None]:
    """What is drawn and saved inside is so by our settings; behind it a user's are back."""
    logger = logging.getLogger("matplotlib.font_manager")
    with mpl.rc_context(_SETTINGS):
        level = logger.level
        logger.setLevel(logging.ERROR)  # else each use of a font that has not all letters is told
        try:
            yield
        finally:
            logger.setLevel(level)


def picture_text(text: str) -> str:
    r"""A text as a picture can show it, in one line; inside `own_settings`, before it is drawn.

    A character that no font of the machine has stands as `\u732b`.
    """
    shown = printable(text)
    lacking = _lacking(shown)
    return "".join(ascii(each)[1:-1] if each in lacking else each for each in shown)


def class_labels(classes: Sequence[str]) -> list[str]:
    """What stands for each class beside a picture: its name or, where that cannot, its number.

    It cannot where no font of the machine has its letters, or where it is too long and begins as
    another. Inside `own_settings`, before the picture is begun.
    """
    printed = [printable(name) for name in classes]
    lacking = _lacking("".join(printed))
    labels = [_shortened(name) for name in printed]
    times = Counter(labels)
    numbers = [f"class {number}" for number in range(len(classes))]
    found = [
        number if times[label] > 1 or lacking.intersection(label) or not label.strip() else label
        for number, label in zip(numbers, labels, strict=True)
    ]
    return found if len(set(found)) == len(found) else numbers  # one is called as another's number


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_LABEL else f"{name[: _LONGEST_LABEL - 1]}…"


def _lacking(text: str) -> set[str]:
    """The characters that cannot be drawn, once what fonts the machine has for them are in use."""
    wanted = {each for each in text if not each.isspace()} - _letters(_own_font())
    if wanted:
        for path in _fonts_with("".join(sorted(wanted))):
            family = _family_of(path)
            families = mpl.rcParams["font.family"]
            if family not in families:
                mpl.rcParams["font.family"] = [*families, family]
            wanted -= _letters(path)
    return wanted


@lru_cache(maxsize=64)
def _fonts_with(letters: str) -> tuple[str, ...]:
    """Files of fonts that have as many of the letters as there are on this machine."""
    found, lacking = [], set(letters)
    for path in sorted(font_manager.findSystemFonts(), key=_rank):
        if lacking & _letters(path):
            found.append(path)
            lacking -= _letters(path)
        if not lacking:
            break
    return tuple(found)


def _rank(path: str) -> tuple[bool, bool, str]:
    """The likeliest first; upright and regular ones before others."""
    name = Path(path).name.lower()
    return not any(word in name for word in _LIKELY), "regular" not in name, name


@cache
def _letters(path: str) -> frozenset[str]:
    """The characters that a font has; none of a file that cannot be used."""
    try:
        font = FT2Font(path)
    except (OSError, RuntimeError):
        return frozenset()
    if not font.scalable:  # pictures of letters, which are drawn in no other size
        return frozenset()
    return frozenset(map(chr, font.get_charmap()))


@cache
def _family_of(path: str) -> str:
    """The name of a font, by which matplotlib finds it from now on."""
    font_manager.fontManager.addfont(path)
    return font_manager.FontProperties(fname=path).get_name()


@cache
def _own_font() -> str:
    return font_manager.findfont(_FAMILY, fallback_to_default=True)
