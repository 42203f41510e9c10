"""`search pictures`: what it draws, the numbers behind that, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import search
from search.data.dataset import Examples
from search.data.load import load_dataset
from search.data.names import DatasetName, class_names
from search.published import LIST_NAME
from search.report.weights_figures import (
    N_MISTAKES,
    Answers,
    confusion_matrix,
    draw_confusion,
    draw_curves,
    draw_mistakes,
    find_mistakes,
    picture_png,
    probabilities_of,
)
from search.training.card import Card, read_card
from tests.conftest import run_here

NAMES = ("confusion.png", "curves.png", "mistakes.png")


def change_card(folder: Path, **changes: object) -> Card:
    """Writes a folder's card with other contents, and reads it."""
    path = folder / "card.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return read_card(folder)


def is_blank(path: Path) -> bool:
    return len(set(Image.open(path).convert("L").tobytes())) == 1


def test_three_pictures_are_drawn_beside_the_weights(
    weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name for path in weights.iterdir()}
    assert run_here("pictures", str(weights)) == 0
    assert {path.name for path in weights.iterdir()} == before | set(NAMES)
    out = capsys.readouterr().out
    for name in NAMES:
        assert str(weights / name) in out
        width, height = Image.open(weights / name).size
        assert width == 1800
        assert 400 <= height <= 2000
        assert not is_blank(weights / name)


def test_the_numbers_are_those_of_the_network(weights: Path) -> None:
    test = load_dataset("digits", weights).test
    network = search.load(weights)
    probabilities = probabilities_of(network, test)
    with torch.inference_mode():
        predicted = network(test.images).argmax(dim=1)
    expected = np.zeros((10, 10), dtype=np.int64)
    for label, answer in zip(test.labels.tolist(), predicted.tolist(), strict=True):
        expected[label, answer] += 1
    counts = confusion_matrix(probabilities, test.labels)
    assert np.array_equal(counts, expected)

    last = json.loads((weights / "card.json").read_text())["runs"][0]["last_accuracy"]
    assert np.trace(counts) / len(test) == pytest.approx(last)

    mistakes = find_mistakes(probabilities, test.labels)
    assert len(mistakes) == len(test) - np.trace(counts) > 1
    assert (predicted[mistakes] != test.labels[mistakes]).all()
    sureness = probabilities[mistakes].max(dim=1).values
    assert (sureness.diff() <= 0).all()


def test_titles_count_the_mistakes_and_name_the_seed(weights: Path) -> None:
    card, test = read_card(weights), load_dataset("digits", weights).test
    wrong = torch.full((len(test), 10), 0.01)
    wrong[torch.arange(len(test)), (test.labels + 1) % 10] = 0.91
    counts = confusion_matrix(wrong, test.labels)
    classes = class_names("digits")
    for figure in (
        draw_confusion(Answers.of(card, 2), counts, classes),
        draw_mistakes(Answers.of(card, 2), test, wrong, classes),
    ):
        title, subtitle, *_ = (text.get_text() for text in figure.texts)
        assert title.startswith("359 of the 359 test images wrong")
        assert "the network of seed 2" in subtitle
    (axes,) = figure.axes
    assert len(axes.images) == N_MISTAKES
    assert [text.get_text() for text in axes.texts][:2] == ["0", "1 (91 %)"]


def test_the_true_class_stands_on_the_left_also_where_letters_run_to_the_left(
    weights: Path,
) -> None:
    classes = ["\u05db\u05dc\u05d1", "\u05e2\u05d1", *map(str, range(30))]
    counts = np.zeros((32, 32), dtype=np.int64)
    counts[0, 1] = 1
    figure = draw_confusion(Answers.of(read_card(weights), 1), counts, classes)
    (label,) = figure.axes[0].get_yticklabels()
    # What is neither letter nor mark takes the direction of what is on both of its sides.
    assert label.get_text() == f"\u200e{classes[0]}\u200e → \u200e{classes[1]}"


@pytest.mark.parametrize("sides", [(28, 28), (20, 60), (60, 20)])
def test_mistakes_are_drawn_in_their_proportions(sides: tuple[int, int], weights: Path) -> None:
    examples = Examples(torch.zeros(12, 1, *sides, dtype=torch.uint8), torch.zeros(12).long())
    wrong = torch.eye(2)[torch.ones(12).long()]
    figure = draw_mistakes(Answers.of(read_card(weights), 1), examples, wrong, ["a", "b"])
    (axes,) = figure.axes
    places = [np.reshape(image.get_extent(), (2, 2)) for image in axes.images]
    for place in places:
        columns, rows = abs(place[:, 1] - place[:, 0])
        assert rows / columns == pytest.approx(sides[0] / sides[1])
    below = [text.get_position()[1] for text in axes.texts[::2]]
    assert all(place[1].max() < y for place, y in zip(places, below, strict=True))


def test_a_network_without_mistakes_has_its_pictures_too(weights: Path, tmp_path: Path) -> None:
    study, runs = "$x_ and }", [{"seed": 1, "accuracies": [1.0]}]  # no formula, one point
    accuracy = {"mean": 1.0, "std": None}
    card = change_card(weights, study=study, runs=runs, epochs=1, test_accuracy=accuracy)
    test = load_dataset("digits", weights).test
    right = torch.eye(10)[test.labels]
    counts = confusion_matrix(right, test.labels)
    classes = class_names("digits")
    for figure, title in (
        (draw_confusion(Answers.of(card, 1), counts, classes), "0 of the 359 test images wrong"),
        (
            draw_mistakes(Answers.of(card, 1), test, right, classes),
            "0 of the 359 test images wrong",
        ),
        (draw_curves(card), "100.00 % of the test images right"),
    ):
        assert figure.texts[0].get_text() == title
        (tmp_path / "picture.png").write_bytes(picture_png(figure))
        assert not is_blank(tmp_path / "picture.png")


def test_curves_have_a_line_for_each_seed_and_show_the_last_epochs_whole(weights: Path) -> None:
    runs = [
        {"seed": seed, "accuracies": [0.1, 0.9, 0.97, 0.98 + seed / 1000, 0.99, 0.992]}
        for seed in (1, 2)
    ]
    (axes,) = draw_curves(change_card(weights, runs=runs, epochs=6)).axes
    first, second, mean = (np.asarray(line.get_ydata()) for line in axes.lines)
    assert first.tolist() == runs[0]["accuracies"]
    assert second.tolist() == runs[1]["accuracies"]
    assert mean == pytest.approx((first + second) / 2)
    low, high = axes.get_ylim()
    assert 0.9 < low < 0.97
    assert 0.992 < high < 1


def test_an_old_card_has_no_curves(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contents = json.loads((weights / "card.json").read_text())
    del contents["epochs"]
    for run in contents["runs"]:
        del run["accuracies"]
    (weights / "card.json").write_text(json.dumps(contents))
    out = tmp_path / "new" / "folder"
    assert run_here("pictures", str(weights), "--out", str(out)) == 1
    assert "run 'search retrain' again" in capsys.readouterr().err
    assert sorted(path.name for path in out.iterdir()) == [
        LIST_NAME,
        "confusion.png",
        "mistakes.png",
    ]


def test_what_does_not_belong_together_is_refused_and_nothing_is_written(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    dataset = read_card(weights).dataset
    changed = {"name": dataset, "fingerprint": "0" * 64, "classes": list("0123456789")}
    change_card(weights, dataset=changed)
    assert run_here("pictures", str(weights), "--out", str(out)) == 2
    assert "must be those that the card was written for" in capsys.readouterr().err
    assert run_here("pictures", str(tmp_path), "--out", str(out)) == 2
    assert "must hold a card.json" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "kmnist", "digits"])
def test_each_class_has_a_name(name: DatasetName) -> None:
    assert len(set(class_names(name))) == 10
