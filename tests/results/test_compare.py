"""`search compare`: studies side by side, and what may not be compared."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from optuna.trial import TrialState
from scipy.stats import ttest_ind

from search.results.compare import Confirmed, difference_interval
from search.results.folds import mean_over_parts
from tests.conftest import run_here
from tests.support.made_studies import MadeTrial, confirmation, make_study

RACES = {"high": (0.95, 0.951, 0.949), "close": (0.94, 0.951, 0.957), "low": (0.90, 0.901, 0.899)}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database of studies on one question, and of some on others."""
    url = f"sqlite:///{tmp_path_factory.mktemp('compared') / 'studies.db'}"
    for number, (name, values) in enumerate(RACES.items()):
        trials = [
            MadeTrial((0.5, 0.9, 0.96), values={"momentum": 0.9 + number / 100}),
            MadeTrial((0.5,), TrialState.PRUNED, {"momentum": 0.8}),
            MadeTrial((), TrialState.FAIL, {"momentum": 0.81}, {"reason": "no memory"}),
        ]
        beaten = {1: (0.93, 0.95, 0.955)} if name == "close" else {}
        make_study(
            *(url, name, trials),
            budget=3000 + 100 * (name == "low"),
            attributes={"confirmation": confirmation(0, {0: values, **beaten})},
        )
    make_study(url, "open", [MadeTrial((0.5, 0.9, 0.97)), MadeTrial((0.5, 0.9, 0.91))])
    lowest = {"confirmation": confirmation(0, {0: (0.8, 0.801, 0.799)})}
    make_study(url, "longer", [MadeTrial((0.9,) * 5)], epochs=5, attributes=lowest)
    make_study(url, "clothes", [MadeTrial((0.8,) * 3)], dataset="fashion-mnist", attributes=lowest)
    make_study(url, "even", [MadeTrial((0.9,) * 3)], metric="balanced-accuracy")
    make_study(url, "empty", [])
    return url


def compared(url: str, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What the command prints, its lines unbroken."""
    assert run_here("compare", "--storage", url, *words) == 0
    return capsys.readouterr().out


def test_studies_stand_side_by_side(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(compared(url, capsys, "high", "open", "--json"))
    high, other = found["entries"]
    assert (high["name"], high["dataset"], high["budget"], high["epochs"]) == (
        *("high", "digits", 3000, 3),
    )
    assert [high["trials"][key] for key in ("n_trained", "n_pruned", "n_failed")] == [2, 1, 1]
    assert high["confirmed"]["mean"] == pytest.approx(0.95)
    assert high["confirmed"]["low"] < 0.95 < high["confirmed"]["high"]
    assert other["confirmed"] is None
    assert (other["best_trial"], other["best_value"]) == (0, pytest.approx(0.79))
    assert (high["seconds"], other["seconds"]) == (8.0, 12.0)
    assert found["recipes"] == {}
    assert high["confirmed"]["n_raced"] == 1

    text = compared(url, capsys, "high", "close")
    for part in ("95.00 % (of 3)", "cap", "momentum", "0.91"):
        assert part in text
    assert "learning rate" not in text  # it is the same in both
    assert re.search(r"^luck of winning +– +up to 0\.\d\d points$", text, re.M)

    (row,) = re.findall("^metric .*$", compared(url, capsys, "high", "even"), re.M)
    assert row.split() == ["metric", "accuracy", "balanced", "accuracy"]


def test_what_is_not_one_question_is_not_compared(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for other, note in (
        ("longer", "different numbers of epochs are answers to different questions"),
        ("clothes", "different data cannot be compared: high digits, clothes fashion-mnist"),
        ("low", "Under a larger cap"),
        ("open", "open is not confirmed"),
        ("even", "cannot be compared: high accuracy, even balanced accuracy"),
        ("empty", "empty has no complete trial yet"),
    ):
        text = compared(url, capsys, "high", other)
        assert note in text
        assert ("is better than" in text) == (other == "low")
    assert "cannot be compared" not in compared(url, capsys, "high", "close")


def test_confirmed_winners_are_told_apart_or_said_to_be_too_close(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = compared(url, capsys, "low", "high", "close")
    assert "high is better than low: +5.00 points" in text
    assert "high and close are too close to tell: +0.07 points" in text


def winner(values: Sequence[float], n_raced: int = 1, parts: Sequence[int] = ()) -> Confirmed:
    """The winner of so many that raced, of one part of the data unless they are named."""
    known = tuple(parts) or (0,) * len(values)
    return Confirmed(
        mean_over_parts(values, known), None, None, None, n_raced, tuple(values), known
    )


def test_the_interval_of_a_difference_is_welchs() -> None:
    ours, theirs = (0.95, 0.951, 0.949, 0.97), (0.94, 0.951, 0.957)
    expected = ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    found = difference_interval(winner(ours), winner(theirs), n_beaten=1)
    assert found == pytest.approx((expected.low, expected.high))
    assert difference_interval(winner(ours), winner(theirs[:1]), n_beaten=1) is None
    assert difference_interval(winner((0.9, 0.9)), winner((0.8, 0.8)), n_beaten=1) is None


@pytest.mark.parametrize(("n_ours", "n_theirs"), [(7, 1), (2, 7), (7, 7)])
def test_the_interval_holds_the_difference_of_winners_however_many_raced(
    n_ours: int, n_theirs: int
) -> None:
    """Of equal candidates, so that the true difference is none."""
    chances = np.random.default_rng(1)
    n_held, n_pairs = 0, 1000
    for _ in range(n_pairs):
        raced = [chances.normal(0.95, 0.002, (n, 10)) for n in (n_ours, n_theirs)]
        ours, theirs = (
            winner(runs[runs.mean(axis=1).argmax()].tolist(), len(runs)) for runs in raced
        )
        if ours.mean < theirs.mean:
            ours, theirs = theirs, ours
        interval = difference_interval(ours, theirs, n_beaten=ours.n_raced)
        assert interval is not None
        n_held += interval[0] <= 0 <= interval[1]
    assert n_held / n_pairs >= 0.94


def test_the_interval_lies_about_the_difference_that_is_told() -> None:
    """Also where a part of the data validated more runs than another, which counts the same."""
    ours = winner((0.95, 0.951, 0.949, 0.99), parts=(0, 0, 0, 1))
    theirs = winner((0.94, 0.951, 0.957))
    found = difference_interval(ours, theirs, n_beaten=1)
    assert found is not None
    assert sum(found) / 2 == pytest.approx(0.97 - theirs.mean)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("high",), "Two studies or more must be named, each once, but got high"),
        (("high", "high"), "each once, but got high, high"),
        (("high", "nobody"), "even, empty, but there is no 'nobody'."),
    ],
)
def test_names_that_cannot_be_compared_are_refused(
    url: str, names: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_here("compare", "--storage", url, *names) == 2
    assert message in capsys.readouterr().err


def test_studies_of_other_images_under_one_name_are_told_apart(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = f"sqlite:///{tmp_path / 'studies.db'}"
    make_study(other, "one", [])
    study = make_study(other, "two", [])
    settings = study.user_attrs["settings"]
    study.set_user_attr("settings", {**settings, "split_fingerprint": "another"})
    assert "other images or another split" in compared(other, capsys, "one", "two")
