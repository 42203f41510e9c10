"""The package from Python: its names, each example of the documentation, the notebook."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any, assert_type

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from optuna.study import Study

import search
from scripts.run_notebook import run_notebook
from search.exceptions import InputError
from search.study.findings import Findings
from tests.conftest import DIGITS_RUN, Command
from tests.support.image_folders import make_folder
from tests.support.made_studies import MadeTrial, make_study

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "docs" / "python.ipynb"
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)


def test_every_name_loads_and_is_listed() -> None:
    for name in search.__all__:
        assert getattr(search, name) is not None
    assert set(search.__all__) <= set(dir(search))
    with pytest.raises(AttributeError, match="no attribute 'open_studies'"):
        search.open_studies  # noqa: B018
    for package in ("search", "search_models"):
        assert (files(package) / "py.typed").is_file()


def test_a_type_checker_knows_the_names(tmp_path: Path) -> None:
    # What these lines claim is checked by the type checker, which reads the tests as well.
    request = search.SearchRequest(budget=1, epochs=1)
    assert_type(request.epochs, int)
    assert_type(search.load_dataset("digits", tmp_path), search.Dataset)
    with pytest.raises(search.SearchError):
        assert_type(search.open_study(storage=f"sqlite:///{tmp_path}/none.db"), Study)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with photographs in it."""
    make_folder(tmp_path / "photos", {"cat": 8, "dog": 9}, colour=True, ending=".jpg")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_blocks(page: Path) -> tuple[dict[str, Any], str]:
    """Runs each example of a page, one after the other; returns what they left, and printed."""
    names: dict[str, Any] = {"__name__": "page"}
    out = Path("printed.txt")
    with out.open("w") as file, contextlib.redirect_stdout(file):
        for block in _BLOCK.findall(page.read_text()):
            exec(compile(block, page.name, "exec"), names)
    return names, out.read_text()


def test_every_example_of_the_page_works(place: Path) -> None:
    names, printed = run_blocks(ROOT / "docs" / "python.md")
    assert "digits-3000x3, new\n" in printed
    assert "\ntrial 0, 2,990 parameters: " in printed
    assert "The study has its 4 trained trials.\n" in printed
    assert "digits-3000x3, goes on with 4 trained trials\n" in printed
    assert "('cat', 'dog') 10 4 3" in printed or "('cat', 'dog') 9 4 4" in printed
    assert "A network must have fewer parameters than the budget" in printed
    assert names["logits"].shape == (359, 10)
    assert {path.name for path in (place / "runs").iterdir()} == {
        "channels",
        "digits-3000x3",
    }
    card = json.loads((names["folder"] / "card.json").read_text())
    assert card["dataset"]["name"] == "tensors:channels"
    assert card["dataset"]["classes"] == ["red", "green", "blue"]


def test_a_users_own_models_stands_in_nobodys_way(command: Command) -> None:
    (command.folder / "models.py").write_text("raise SystemExit('this file is not for the search')")
    (command.folder / "mine.py").write_text(
        "import search\nprint(search.ModelSpec.parse('c3 10, gap'), search.load('best-8k'))\n"
    )
    done = command.run_words([sys.executable, "mine.py"])
    assert done.code == 0, done.err


def test_no_file_of_the_users_is_run_where_a_search_is_started(command: Command) -> None:
    # Files with the names of modules: ours, those of what we use, those of Python itself.
    for name in ("models", "search", "search_models", "torch", "random", "queue", "socket"):
        (command.folder / f"{name}.py").write_text("open('executed', 'w')\nraise SystemExit(3)\n")
    script = str(Path(sys.executable).parent / "search")  # as a user has it, not python -m
    words = (script, *DIGITS_RUN, "--trials", "1", "--workers", "1")
    done = command.run_words(list(words))
    assert done.code == 0, done.err
    assert len(command.study("digits-3000x3").trials) == 1
    assert not (command.folder / "executed").exists()


def test_nor_where_python_itself_has_put_the_working_folder_on_its_path(command: Command) -> None:
    # By -m, and by parts of PYTHONPATH. What runs before this package is run all the same.
    for name in ("models", "search_models", "torch", "random", "queue", "socket", "signal"):
        (command.folder / f"{name}.py").write_text("open('executed', 'w')\nraise SystemExit(3)\n")
    words = command.words("run", "--dataset", "digits", "--budget", "500", "--epochs", "1")
    parts = ("", ".", f"{command.folder}/", str(ROOT))
    path = os.pathsep.join(parts)
    done = command.run_words([*words, "--trials", "1", "--workers", "1"], PYTHONPATH=path)
    assert done.code == 0, done.err
    assert len(command.study("digits-500x1").trials) == 1
    assert not (command.folder / "executed").exists()


def test_a_target_is_searched_as_by_the_command(place: Path) -> None:
    from search.tuner.options import Target

    request = search.SearchRequest(
        *(3000, 1, 2), dataset="digits", space="standard", target=Target(0.999), n_workers=2
    )
    study = search.run_search(request)
    assert study.study_name == "digits-3000x1"  # none reached it: the last cap's
    assert "confirmation" in study.user_attrs


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("budget", value) for value in (0, 3000.0)],
        *[("epochs", value) for value in (0, True)],
        *[("n_trials", value) for value in (-3, "5")],
        *[("seed", value) for value in (-1, None)],
        *[("n_workers", value) for value in (-1, 0)],
        *[("patience", value) for value in (0, 1.5)],
        *[("timeout_seconds", value) for value in (0, "30m", float("nan"))],
        *[("trial_timeout_seconds", value) for value in (-1.0, float("inf"))],
        *[("lost_after_seconds", value) for value in (0, None)],
        *[("study", 3), ("space", ["adaptive"]), ("sampler", None), ("device", 0), ("pruner", [])],
    ],
)
def test_values_that_cannot_be_meant_are_refused_with_nothing_written(
    name: str, value: object, place: Path
) -> None:
    before = set(place.iterdir())
    right: dict[str, Any] = {"budget": 3000, "epochs": 1, "n_trials": 1, "dataset": "digits"}
    request = search.SearchRequest(**{**right, name: value})
    with pytest.raises(
        InputError, match=f"{name} must be .*but got {re.escape(repr(value))}; give one"
    ):
        search.run_search(request)
    assert set(place.iterdir()) == before


@pytest.mark.parametrize("name", ["budget", "epochs", "n_trials", "seed", "patience"])
def test_a_number_that_nothing_counts_up_to_is_refused(name: str, place: Path) -> None:
    asked: dict[str, Any] = {"budget": 3000, "epochs": 1, "dataset": "digits"}
    for value in (2**53 + 1, 10**5000):
        with pytest.raises(InputError, match=f"^{name} must be .* to 2.53, but got a larger one"):
            search.run_search(search.SearchRequest(**{**asked, name: value}))
    assert not (place / "studies.db").exists()


@pytest.mark.parametrize("words", [{"seeds": 0}, {"seeds": "3"}, {"n_workers": -1}])
def test_retraining_with_such_numbers_keeps_earlier_weights(
    words: dict[str, Any], place: Path
) -> None:
    data = search.load_dataset("digits")
    study = make_study(f"sqlite:///{place / 'studies.db'}", "made", [MadeTrial((0.9,) * 3)])
    prints = {
        "data_fingerprint": data.info.fingerprint,
        "split_fingerprint": data.info.split_fingerprint,
    }
    study.set_user_attr("settings", {**study.user_attrs["settings"], **prints})
    card = place / "weights" / "card.json"
    card.parent.mkdir()
    card.write_text("of an earlier run")
    with pytest.raises(InputError, match="must be a whole number"):
        search.retrain_trial(study, dataset=data, folder=card.parent, **words)
    assert card.read_text() == "of an earlier run"
    assert Findings.read(study).test_looks == 0


def test_tensors_are_asked_for_where_a_command_needs_them(place: Path) -> None:
    with pytest.raises(search.SearchError, match="give the Dataset itself, in Python"):
        search.load_dataset("tensors:cells")


def test_paths_are_text_as_well(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(place))
    assert len(search.load_dataset("digits", data_dir="~/data").test) == 359
    with pytest.raises(search.SearchError, match=f"and {place}/data does not have its four files"):
        search.load_dataset("mnist", data_dir="~/data")
    photos = search.load_dataset(place / "photos")
    assert photos.info.name == f"folder:{place / 'photos'}"
    with pytest.raises(InputError, match="data_dir must be a path, as text or"):
        search.load_dataset("mnist", data_dir=3)  # type: ignore[arg-type]

    paths: dict[str, Any] = {"data_dir": "data", "artifacts": "~/kept", "worker_log": "logs"}
    request = search.SearchRequest(budget=1, epochs=1, **paths)
    assert request.data_dir == Path("data")
    assert request.artifacts == place / "kept"
    assert request.worker_log == Path("logs")
    asked: dict[str, Any] = {"dataset": place / "photos", "space": place / "space.toml"}
    request = search.SearchRequest(budget=1, epochs=1, **asked)
    assert (request.dataset, request.space) == (photos.info.name, str(place / "space.toml"))
    with pytest.raises(InputError, match="worker_log must be a path, as text or"):
        search.SearchRequest(budget=1, epochs=1, worker_log=True)  # type: ignore[arg-type]


WRONG: Any = b"weights", Path("made"), "0", None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: search.load(WRONG[0]), "folder must be a path, as text or"),
        (lambda: search.load("a\0b"), "folder must be a path, as text or"),
        (lambda: search.load_dataset("mnist", "a\0b"), "data_dir must be a path, as text or"),
        (lambda: search.open_study(storage=WRONG[1]), "A storage must be a URL, as a text"),
        (lambda: search.Client(storage=WRONG[1]), "A storage must be a URL, as a text"),
        (lambda: search.open_study(WRONG[1]), "but there is no PosixPath.*made"),
        (lambda: search.open_trial(search.open_study(), WRONG[2]), "a whole number .*'0'"),
        (
            lambda: search.retrain_trial(search.open_study(), 0, device=WRONG[3]),
            "device must be auto, cpu or cuda, but got None",
        ),
    ],
)
def test_what_is_no_path_text_or_number_is_told(
    call: Callable[[], object], message: str, place: Path
) -> None:
    make_study(f"sqlite:///{place / 'studies.db'}", "made", [MadeTrial((0.9,) * 3)])
    with pytest.raises(search.SearchError, match=message):
        call()


def test_the_notebook_runs_and_is_shown_with_what_it_put_out(tmp_path: Path) -> None:
    out = tmp_path / "python.ipynb"
    run_notebook(NOTEBOOK, out)
    assert NOTEBOOK.stat().st_size < 300_000
    for path in (NOTEBOOK, out):
        notebook = nbformat.read(path, as_version=4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
        outputs = [output for cell in code for output in cell.outputs]
        assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
        assert not [output for output in outputs if output.get("name") == "stderr"]
        assert str(ROOT) not in path.read_text()


def test_a_notebook_with_a_cell_that_fails_is_not_written(tmp_path: Path) -> None:
    cell = nbformat.v4.new_code_cell("1 / 0")
    path = tmp_path / "broken.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        run_notebook(path, tmp_path / "out.ipynb")
    assert not (tmp_path / "out.ipynb").exists()
