"""How pictures are drawn: by no settings of a user's, with letters of all languages, readable."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from search.data.dataset import Examples
from search.report.confusions import MOST_CLASSES, N_PAIRS, most_confused
from search.report.drawing import class_labels, own_settings, picture_text
from search.report.page import N_MISTAKES, Errors
from search.report.validation import Validated
from search.report.weights_figures import Answers, draw_confusion, draw_mistakes, picture_png
from tests.conftest import Command
from tests.support.made_studies import MadeTrial, make_study

ANSWERS = Answers("test", 1, "photos; trial 1 of $study_")
RUNIC = "ꀀ"  # of a script (Yi) that fonts seldom have


def make_font(path: Path, letter: str) -> None:
    """A font with one letter, which is a square."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for point in ((0, 700), (700, 700), (700, 0)):
        pen.lineTo(point)
    pen.closePath()
    square = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "square"])
    builder.setupCharacterMap({ord(letter): "square"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "square": square})
    builder.setupHorizontalMetrics({".notdef": (800, 0), "square": (800, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "One Letter", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)


def test_no_two_classes_look_alike() -> None:
    names = ["cat", "\ue000", "\ue001", "$x$", "a" * 40, "a" * 41, "\x1b[31m", " ", ""]
    with own_settings():
        assert class_labels(names) == [
            *("cat", "class 1", "class 2", "$x$", "class 4", "class 5", "\\x1b[31m"),
            *("class 7", "class 8"),
        ]
        assert class_labels(["cat", "class 2", "\ue000"]) == ["class 0", "class 1", "class 2"]
        assert picture_text("of \ue000") == "of \\ue000"


def test_a_font_of_the_machine_that_has_the_letters_is_taken(command: Command) -> None:
    fonts = command.folder / "fonts"
    fonts.mkdir()
    make_font(fonts / "one.ttf", RUNIC)
    code = (
        "from search.report.drawing import class_labels, own_settings; import matplotlib as mpl\n"
        f"with own_settings(): print(class_labels([{RUNIC!r}]), mpl.rcParams['font.family'])"
    )
    done = command.run_words(
        [sys.executable, "-c", code],
        XDG_DATA_HOME=str(command.folder),
        MPLCONFIGDIR=str(command.folder),
        PYTHONIOENCODING="utf-8",
    )
    assert done.out.strip() == f"['{RUNIC}'] ['DejaVu Sans', 'One Letter']", done.err


def confused(n_classes: int) -> np.ndarray:
    counts = np.diag(np.full(n_classes, 5))
    counts[2, 1], counts[0, 3] = 4, 3
    return counts


def test_the_worst_pairs_are_those_of_most_images() -> None:
    worst = [(p.label, p.answer, p.n_wrong, p.n_images) for p in most_confused(confused(9))]
    assert worst == [(2, 1, 4, 9), (0, 3, 3, 8)]
    assert most_confused(np.diag([3, 4])) == []


def test_three_thousand_classes_have_pictures_and_a_page_that_can_be_read() -> None:
    n = 3000
    names = [f"class of its own {number}" for number in range(n)]
    labels = torch.arange(n)
    probabilities = torch.full((n, n), 1e-6)
    probabilities[labels, (labels + 1) % n] = 0.9  # all are wrong
    examples = Examples(torch.zeros(n, 1, 8, 8, dtype=torch.uint8), labels)
    counts = np.zeros((n, n), dtype=np.int64)
    counts[labels, (labels + 1) % n] = 1
    figure = draw_confusion(ANSWERS, counts, names)
    assert len(figure.axes[0].get_yticklabels()) == N_PAIRS
    assert draw_mistakes(ANSWERS, examples, probabilities, names)
    assert len(picture_png(figure)) < 500_000
    errors = Errors.of(Validated(1, names, examples, probabilities, counts, labels))
    assert (len(errors.rows), len(errors.pairs), errors.n_wrong) == (0, N_PAIRS, n)
    assert len(errors.mistakes) == N_MISTAKES


@pytest.mark.parametrize("n_classes", [MOST_CLASSES, MOST_CLASSES + 1])
def test_every_text_beside_many_classes_has_its_place(n_classes: int) -> None:
    names = [f"a name of {number}" for number in range(n_classes - 1)]
    answers = replace(ANSWERS, origin=f"photos; trial 1 of {'long' * 100}")
    figure = draw_confusion(answers, confused(n_classes), ["\ue000", *names])
    picture_png(figure)
    for text in figure.texts:
        box = text.get_window_extent()
        assert figure.bbox.containsx(box.x1), text
        assert box.y0 >= 0, text
    axes = figure.axes[0]
    heading = [text.get_window_extent() for text in figure.texts[:2]]
    assert not heading[0].overlaps(heading[1])
    for ticks in (axes.get_xticklabels(), axes.get_yticklabels()):
        boxes = [tick.get_window_extent() for tick in ticks if tick.get_text()]
        assert not [a for a, b in pairwise(boxes) if a.overlaps(b)]
        assert all(figure.bbox.containsx(box.x0) and box.y0 >= 0 for box in boxes)


@pytest.mark.parametrize("n_classes", [3, MOST_CLASSES + 1])
def test_no_text_of_a_picture_runs_into_another_or_off_the_page(n_classes: int) -> None:
    names = [f"{RUNIC}{number}" for number in range(n_classes - 2)]  # shown by their numbers
    names += ["W" * 14, "M" * 14]
    probabilities = torch.full((20, n_classes), 1e-6)
    labels = torch.full((20,), n_classes - 1)
    probabilities[:, n_classes - 2] = 0.9  # all are wrong
    examples = Examples(torch.zeros(20, 1, 8, 8, dtype=torch.uint8), labels)
    counts = np.ones((n_classes, n_classes), dtype=np.int64)
    mistakes = draw_mistakes(ANSWERS, examples, probabilities, names)
    for figure in (mistakes, draw_confusion(ANSWERS, counts, names)):
        picture_png(figure)
        assert all(figure.bbox.x1 > text.get_window_extent().x1 for text in figure.texts)
        _, subtitle, _ = figure.texts
        assert subtitle.get_window_extent().y0 > figure.axes[0].get_window_extent().y1
    boxes = [text.get_window_extent() for text in mistakes.axes[0].texts]
    assert len(boxes) == 40
    assert not [a for a, b in pairwise(boxes[::2]) if a.overlaps(b)]
    assert not [a for a, b in pairwise(boxes[1::2]) if a.overlaps(b)]


UPDATE = """
from pathlib import Path
from search.report.dashboard_sync import DashboardSync
from search.storage.open import opened_storage
from search.study.open import open_study

with opened_storage("sqlite:///studies.db", write=True) as storage:
    sync = DashboardSync(storage, open_study(storage, "made"), Path("files"), notice=print)
    sync.update()
    sync.update()
"""


def update_dashboard(command: Command, **environment: str) -> str:
    """What a new process prints that draws the curves of a study of two trials."""
    trials = [MadeTrial([0.5, share, share]) for share in (0.6, 0.7)]
    make_study(f"sqlite:///{command.database}", "made", trials)
    done = command.run_words([sys.executable, "-c", UPDATE], **environment)
    assert done.code == 0, done.err
    return done.out


def test_a_matplotlibrc_of_a_users_changes_nothing_and_ends_nothing(command: Command) -> None:
    (command.folder / "matplotlibrc").write_text("text.usetex: True\nfont.family: No Such Font\n")
    assert update_dashboard(command) == ""
    assert len(list((command.folder / "files").glob("*-0"))) == 2  # curves


def test_a_matplotlib_that_a_users_settings_break_is_imported_without_them(
    command: Command,
) -> None:
    (command.folder / "matplotlibrc").write_bytes(b"\xff\xfe")
    code = (
        "from search.report.loading import load_matplotlib; load_matplotlib()\n"
        "import search.report.drawing"
    )
    done = command.run_words([sys.executable, "-c", code], MPLBACKEND="no such")
    assert done.code == 0, done.err


def test_settings_of_a_users_are_back_behind_a_picture() -> None:
    with mpl.rc_context({"font.size": 31, "text.usetex": True}):
        figure = draw_confusion(ANSWERS, confused(4), list("abcd"))
        assert figure.texts[-1].get_text().endswith("$study_")
        assert picture_png(figure)
        assert mpl.rcParams["font.size"] == 31
        assert mpl.rcParams["text.usetex"]


def test_curves_that_cannot_be_drawn_end_nothing_and_are_told_once(command: Command) -> None:
    package = command.folder / "matplotlib"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('no drawing here')")
    told = update_dashboard(command, PYTHONPATH=str(command.folder))
    assert told.count("left out (RuntimeError: no drawing here)") == 1
    assert not list((command.folder / "files").iterdir())
