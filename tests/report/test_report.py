"""`search report`: what its page says, of studies of every kind, and the numbers behind that."""

from __future__ import annotations

import math
import re
import shutil
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState
from optuna_dashboard import get_note
from PIL import Image
from scipy.stats import binomtest

from search.data.load import load_dataset
from search.data.names import SPLITS, Split
from search.folders import REPORT_FILES
from search.published import LIST_NAME
from search.report import importance
from search.report.dashboard_sync import DashboardSync
from search.report.effort import effort
from search.report.facts import wilson_interval
from search.report.importance import LEAST_TRIALS, influences
from search.space.space import Space
from search.storage.open import opened_storage
from search.study.findings import Findings
from search.study.history import RunRecord, record_run
from search.study.open import open_study
from tests.conftest import Command, Result, run_here
from tests.support.made_studies import MadeTrial, confirmation, make_study, record

STUDY = "digits-3000x3"
COMPLETE, PRUNED, FAIL = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL


class Page(HTMLParser):
    """What a page says, and what it would fetch."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.html = path.read_text(encoding="utf-8")
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self._texts: list[str] = []
        self._is_style = False
        self.feed(self.html)
        self.text = " ".join("".join(self._texts).split())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._is_style = tag == "style"
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "srcset", "data"):
                self.addresses.append(str(value))
            if name == "id":
                self.ids.append(str(value))

    def handle_endtag(self, tag: str) -> None:
        self._is_style = False

    def handle_data(self, data: str) -> None:
        if not self._is_style:
            self._texts.append(data)


def report(url: str, out: Path, *options: str) -> Page:
    """The page that the command writes."""
    assert run_here("report", "--storage", url, "--out", str(out), *options) == 0
    return Page(out / "report.html")


@dataclass(frozen=True)
class Reported:
    """A finished search, and its report before anything else was done with it."""

    folder: Path
    page: Page = field(compare=False)

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder / 'studies.db'}"


@pytest.fixture(scope="module")
def reported(finished_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Reported:
    folder = tmp_path_factory.mktemp("reported")
    shutil.copytree(finished_folder, folder, dirs_exist_ok=True)
    page = report(f"sqlite:///{folder / 'studies.db'}", folder / "out")
    return Reported(folder, page)


def test_a_report_tells_what_was_asked_what_came_out_and_how_sure_that_is(
    reported: Reported,
) -> None:
    study = Command(reported.folder).study(STUDY)
    best, page = study.best_trial, reported.page
    for part in (
        *(STUDY, "fewer than 3,000 parameters", "after 3 epochs"),
        "1,079 images train, 359 validate, 359 are kept back as the test set",
        f"in its one run it got {100 * best.values[0]:.2f} % of the validation images right",
        f"{best.user_attrs['parameter_count']:,}",
        *("Not confirmed yet.", f"search confirm --study {STUDY}"),
        "candidates over the cap; none became a trial",
        *("The test set is still sealed", f"search report --train --study {STUDY}"),
        f"Too few trials to say: it takes {LEAST_TRIALS}",
        "search run --dataset digits --budget 3000 --epochs 3 --trials 4 --space standard "
        "--pruner none --seed 1 --workers 2 --study",
    ):
        assert part in page.text
    assert Findings.read(study).test_looks == 0


def test_a_report_is_one_file_with_its_pictures_inside_and_beside_it(reported: Reported) -> None:
    page, out = reported.page, reported.folder / "out"
    assert {path.name for path in out.iterdir()} == {
        *("report.html", "size.png", "learning.png", "history.png", LIST_NAME)
    }
    assert {"script", "link", "iframe"}.isdisjoint(page.tags)
    assert page.addresses
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in page.addresses)
    assert not re.search(r"url\((?!#)|@import", page.html)
    assert page.tags.count("svg") == 2 * 3  # each for a wide page and for a telephone
    assert len(page.ids) == len(set(page.ids))
    assert {address[1:] for address in page.addresses if address[0] == "#"} <= set(page.ids)
    for path in out.glob("*.png"):
        image = Image.open(path).convert("L")
        assert image.width == 1440
        assert len(set(image.tobytes())) > 1


def test_the_notation_is_explained_as_far_as_it_occurs(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    topology = "c3 4, pool, d3p1, c1 8, gap, out+bias"
    (tmp_path / "own.toml").write_text(f'topology = "{topology}"\nactivation = "hardswish"\n')
    space = Space.load(str(tmp_path / "own.toml"), parameter_cap=3000)
    make_study(url, "made", [MadeTrial([0.5] * 3)], space=space)
    page = report(url, tmp_path / "out", "--study", "made")
    assert "<td>dropout</td>" not in page.html  # the network has none, whatever its space says
    explained = re.findall(r"<code>([^<]*)</code> is ", page.html)
    assert explained == [*("c3", "c1", "d3", "p1", "+bias", "+hs"), *("pool", "gap", "out")]


def test_pictures_take_all_their_colours_from_the_page(reported: Reported) -> None:
    pictures = re.findall(r"<svg.*?</svg>", reported.page.html, re.S)
    used = {found for picture in pictures for found in re.findall(r"#[0-9a-f]{6}\b", picture)}
    assert used == set()
    variables = {found for picture in pictures for found in re.findall(r"var\((--\w+)\)", picture)}
    assert variables
    dark = reported.page.html.split("prefers-color-scheme: dark")[1].split("}")[0]
    assert all(f"{variable}:" in dark for variable in variables)


def test_where_the_best_errs_is_shown_once_it_is_trained_again(
    reported: Reported, capsys: pytest.CaptureFixture[str]
) -> None:
    out = reported.folder / "trained"
    done = Command(reported.folder)("report", "--train", "--out", str(out))
    assert done.code == 0, done.err
    study = Command(reported.folder).study(STUDY)
    # The same seed, the same machine: the same network.
    share = study.best_trial.user_attrs["epochs"][-1]["accuracy"]
    n_wrong = round(359 * (1 - share))
    first = Page(out / "report.html")
    assert f"{n_wrong} of 359" in first.text
    assert f"{100 * share:.2f} % are right after its last epoch" in first.text
    table = first.html.split('class="scroll matrix"')[1].split("</table>")[0]
    right = sum(int(count) for count in re.findall(r'<td class="right">(\d+)<', table))
    assert right == 359 - n_wrong
    assert first.tags.count("img") == min(n_wrong, 30)
    assert {"confusion.png", "mistakes.png"} <= {path.name for path in out.iterdir()}
    assert {path.name for path in out.iterdir() if path.suffix != ".safetensors"} <= {
        *(LIST_NAME, *REPORT_FILES)
    }

    again = report(reported.url, out)  # finds the weights, and trains nothing
    assert f"{n_wrong} of 359" in again.text
    assert "once more" not in capsys.readouterr().out
    assert Findings.read(study).test_looks == 0

    (weights,) = out.glob("*.safetensors")
    weights.write_bytes(b"damaged")
    assert run_here("report", "--storage", reported.url, "--out", str(out)) == 2
    assert "Delete the file, and give the command again with --train" in capsys.readouterr().err
    weights.unlink()
    weights.symlink_to("nowhere")  # a user's, which training would replace
    assert run_here("report", "--train", "--storage", reported.url, "--out", str(out)) == 2
    assert "Delete the file" in capsys.readouterr().err
    assert weights.is_symlink()


def test_what_retraining_found_on_the_test_set_is_told(
    retrained: tuple[Command, Result], tmp_path: Path
) -> None:
    command, _ = retrained
    page = report(f"sqlite:///{command.database}", tmp_path)
    (key,) = (key for key in command.study(STUDY).user_attrs if key.startswith("retrain_"))
    mean = command.study(STUDY).user_attrs[key]["test_accuracy"]["mean"]
    assert f"it gets {100 * mean:.2f} % of the test images right (mean of 2 seeds" in page.text
    assert "The test set was seen 2 times, once for each seed that was scored on it." in page.text
    assert f"search retrain --study {STUDY} --seeds 2" in page.text
    assert Findings.read(command.study(STUDY)).test_looks == 2


def test_a_confirmed_study_tells_its_winner_the_luck_and_who_is_too_close(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'own.db'}"
    trials = [
        MadeTrial((0.5, 0.9, accuracy), values={"learning_rate": rate})
        for accuracy, rate in ((0.96, 0.1), (0.95, 0.11), (0.94, 0.12), (0.93, 0.13))
    ]
    race = {1: (0.94, 0.95, 0.96), 0: (0.93, 0.945, 0.96), 2: (0.80, 0.81, 0.82)}
    make_study(url, "raced", trials, attributes={"confirmation": confirmation(0, race)})
    page = report(url, tmp_path / "out")
    assert (
        "over 3 fresh seeds and 3 parts of the data it gets 95.00 % of the validation images right"
        in page.text
    )
    assert "Trial 1 won with 95.00 %" in page.text
    assert "some 0.50 points of that were luck" in page.text
    assert "trial 0 is too close to tell" in page.text
    assert "Not confirmed" not in page.text
    assert "search confirm --study raced --top 3 --seeds 3" in page.text
    assert (tmp_path / "out" / "race.png").exists()


STRANGE: dict[str, tuple[list[MadeTrial], dict[str, str], tuple[str, ...]]] = {
    "no trial": ([], {}, ("there is no answer", "search run --dataset digits")),
    "all pruned": (
        [MadeTrial((0.5,), PRUNED), MadeTrial((0.4,), PRUNED, {"momentum": 0.85})],
        {},
        ("there is no answer", "left out 4 of 6 epochs: 8 s of training"),
    ),
    "one trial, the rest failed": (
        [
            MadeTrial((1.0, 1.0, 1.0)),
            MadeTrial((), FAIL, {"momentum": 0.85}, {"reason": "<b>no memory</b>"}),
            MadeTrial((), FAIL, {"momentum": 0.86}, {"reason": "interrupted"}),
            MadeTrial((0.5,), PRUNED, {"momentum": 0.87}, loss=math.nan),
        ],
        {},
        ("100.00 %", "1 × <b>no memory</b>", "1 trial ended because the loss was not"),
    ),
    "by size": (
        [
            MadeTrial((0.8,) * 3, values={"budget_share": 0.4}),
            MadeTrial((0.9,) * 3, values={"budget_share": 0.9}),
        ],
        {"objective": "accuracy,size"},
        ("the highest accuracy at each size", "--objective accuracy,size", "Pareto front"),
    ),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_a_study_of_any_kind_has_a_report(kind: str, tmp_path: Path) -> None:
    trials, settings, parts = STRANGE[kind]
    url, name = f"sqlite:///{tmp_path / 'own.db'}", '<i>$x_ & 猫 "y"'
    make_study(url, name, trials, objective=settings.get("objective", "accuracy"))
    page = report(url, tmp_path / "out")
    for part in (name, *parts):
        assert part in page.text
    assert "i" not in page.tags
    assert page.tags.count("b") == 0


def test_the_command_in_a_report_goes_on_with_the_very_study(
    reported: Reported, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = re.findall(r"search run [^:]*?--study \S+", reported.page.text)
    assert run_here(*line.split()[1:], "--storage", reported.url) == 0
    assert "has its 4 trained trials" in capsys.readouterr().out


def test_the_command_in_a_report_has_what_the_last_run_was_told(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'own.db'}"
    study = make_study(url, "own", [MadeTrial((0.9,) * 3)])
    again = RunRecord.now(
        sampler="tpe",
        pruner="halving",
        seed=0,
        device="cpu",
        n_workers=1,  # for the one trial that was left
        n_trials=2,
        patience=30,
        target=0.994,
    )
    record_run(study, again)
    options = "--workers 2 --patience 30 --target 99.4 --study own"
    assert options in report(url, tmp_path / "out").text
    with opened_storage(url, write=True) as storage:
        study = open_study(storage, "own")
        DashboardSync(storage, study, None).update()
        note = get_note(study)
    assert f"--trials 2 --space standard {options}" in note


def test_a_space_of_ones_own_is_written_beside_the_report(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'own.db'}"
    (tmp_path / "own.toml").write_text("batch_size = [32, 64]\nmomentum = 0.9\n")
    space = Space.load(str(tmp_path / "own.toml"), parameter_cap=3000)
    make_study(url, "own", [MadeTrial((0.9,) * 3, values={"batch_size": 32})], space=space)
    page = report(url, tmp_path / "out")
    assert "--space space.toml" in page.text
    again = Space.load(str(tmp_path / "out" / "space.toml"), parameter_cap=3000)
    assert again.table == space.table


def test_what_cannot_be_reported_is_refused_and_nothing_is_written(
    reported: Reported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    empty = f"sqlite:///{tmp_path / 'own.db'}"
    make_study(empty, "empty", [])
    for options, message in (
        (("--storage", reported.url, "--study", "nobody"), "there is no 'nobody'"),
        (("--storage", empty, "--train"), "'empty' has none yet; leave out --train"),
    ):
        assert run_here("report", "--out", out, *options) == 2
        assert message in capsys.readouterr().err
    assert not Path(out).exists()


def test_stopping_saves_the_epochs_left_at_a_trials_own_pace() -> None:
    space = Space.load("standard", parameter_cap=3000)
    made = [
        MadeTrial((0.9,) * 10),
        MadeTrial((0.5,) * 4, PRUNED),
        MadeTrial((0.1,), PRUNED, loss=math.nan),
        MadeTrial((), FAIL),
    ]
    found = effort([trial.frozen(space, 3000, 1) for trial in made], 10)
    assert (found.epochs_trained, found.epochs_saved) == (15, 6)
    assert (found.seconds_trained, found.seconds_saved) == (30.0, 12.0)
    assert (found.n_stopped, found.n_diverged) == (1, 1)
    assert found.saved_share == pytest.approx(12 / 42)


@pytest.mark.parametrize(("n_right", "n"), [(9947, 10_000), (359, 359), (0, 50)])
def test_the_interval_of_a_share_is_wilsons(n_right: int, n: int) -> None:
    expected = binomtest(n_right, n).proportion_ci(method="wilson")
    assert wilson_interval(n_right / n, n) == pytest.approx((expected.low, expected.high), abs=1e-7)


def drawn(n: int) -> list[FrozenTrial]:
    """Trials that `cause` decides and `noise` and `kind` do not, a third of them stopped early."""
    random = np.random.default_rng(1)
    distributions = {
        "cause": FloatDistribution(1e-4, 1, log=True),
        "noise": FloatDistribution(0, 1),
        "kind": CategoricalDistribution(["a", "b"]),
    }
    trials = []
    for number in range(n):
        position = random.random()
        accuracy, is_stopped = 1 - abs(position - 0.8), position < 0.3
        trial = optuna.create_trial(
            state=PRUNED if is_stopped else COMPLETE,
            value=None if is_stopped else accuracy,
            params={
                "cause": 10 ** (4 * position - 4),
                "noise": random.random(),
                "kind": str(random.choice(["a", "b"])),
            },
            distributions=distributions,
            user_attrs=record(accuracy),
        )
        trial.number = number
        trials.append(trial)
    return trials


def test_what_decides_is_told_from_what_chance_makes() -> None:
    rows = influences(drawn(40))
    assert [row.name for row in rows if row.is_beyond_chance] == ["cause"]
    cause = rows[0]
    assert (cause.low, cause.high) == (1e-4, 1)
    best = [place for place, good in zip(cause.positions, cause.is_best, strict=True) if good]
    assert len(best) == 10
    assert 0.6 < min(best) <= max(best) <= 1
    assert influences(drawn(LEAST_TRIALS - 1)) == []


def test_of_many_trials_some_are_asked_what_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importance, "MOST_TRIALS", 30)
    for n_trials, n_asked in ((30, 30), (45, 23), (90, 30)):
        rows = influences(drawn(n_trials))
        assert {len(row.positions) for row in rows} == {n_asked}
    assert rows[0].name == "cause"
    all_rows = {row.name: row.positions for row in rows}
    monkeypatch.setattr(importance, "MOST_TRIALS", 90)
    (cause,) = (row for row in influences(drawn(90)) if row.name == "cause")
    assert cause.positions[::3] == all_rows["cause"]  # from the first to the last


def test_the_numbers_of_images_are_those_of_the_data(tmp_path: Path) -> None:
    info = load_dataset("digits", tmp_path).info
    assert SPLITS["digits"] == Split(info.n_training, info.n_validation, info.n_test)
