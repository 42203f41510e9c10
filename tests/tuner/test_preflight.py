"""What is wrong with where a search would write is told before PyTorch, which takes seconds."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from search.space.presets import preset_folder
from search.study.locks import locked_file
from tests.conftest import DIGITS_RUN, Command
from tests.support.image_folders import make_folder
from tests.support.made_studies import MadeTrial, make_study

# In one process, one after another: PyTorch must not be there after any of them.
_CODE = """
import contextlib, io, json, sys
from search.cli import main
told = []
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            main(words)
            code = 0
        except SystemExit as exit:
            code = exit.code
    told.append([code, " ".join(err.getvalue().split()), "torch" in sys.modules])
print(json.dumps(told))
"""
_HERE = "sqlite:///studies.db"  # where the study digits-3000x3 is


def _run(
    *words: str, budget: int = 3000, dataset: str = "digits", storage: str = _HERE
) -> list[str]:
    data = ["--dataset", dataset, "--budget", str(budget), "--epochs", "3"]
    return ["run", *data, "--storage", storage, *words]


_CASES = {
    "must exist, but nowhere does not": _run(storage="sqlite:///nowhere/studies.db"),
    "cannot be opened": _run(storage="postgresql://a:b@127.0.0.1:1/studies"),
    "budget 3000 there and 2999 here": _run("--study", "digits-3000x3", budget=2999),
    "metric accuracy there and balanced-accuracy here": _run("--metric", "balanced-accuracy"),
    "dataset digits there and mnist here": _run("--study", "digits-3000x3", dataset="mnist"),
    "space standard there and wide here": _run("--space", "wide"),
    "there is no 'nobody'": _run("--study", "new", "--from-study", "nobody"),
    "--from-study names 'digits-3000x3' itself": _run("--from-study", "digits-3000x3"),
    "name another with --worker-log": _run("--study", "new", "--worker-log", "studies.db/log"),
    "name another with --artifacts": _run("--study", "new", "--artifacts", "studies.db"),
    "digits has its own, 28; leave it out": _run("--image-size", "32"),
    "auto has its own, 28; leave it out": _run("--image-size", "32", dataset="auto"),
    "'tensors:mine' was asked for by name": _run(dataset="tensors:mine"),
    "Workers must be at most": _run("--workers", "100000"),
    "did you mean mnist?": _run(dataset="MNIST"),
    "'127.0.0.1:1' does not": _run("--engine", "ray", "--ray-address", "127.0.0.1:1"),
    "'nowhere' does not (an address is": _run("--engine", "ray", "--ray-address", "nowhere"),
    "A log must be tensorboard:FOLDER": _run("--log", "tensorbord:log"),
}
_WITHOUT_GPU = {
    "The device cuda needs a GPU": _run("--device", "cuda"),
    "The device cuda:1 needs a GPU": ["retrain", "--storage", _HERE, "--device", "cuda:1"],
}


def _check(cases: Sequence[tuple[str, list[str]]], folder: Path) -> None:
    """Sees that each command is refused with those words, and without PyTorch."""
    done = subprocess.run(
        [sys.executable, "-c", _CODE, json.dumps([words for _, words in cases])],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    for (why, _), (code, error, has_torch) in zip(cases, json.loads(done.stdout), strict=True):
        assert why in error
        assert code == 2, error
        assert not has_torch, error


def test_a_place_that_cannot_be_is_told_before_pytorch_is_loaded(
    finished_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "flat.jpg").write_bytes(b"no image")
    make_folder(tmp_path / "few", {"cat": 5, "dog": 4}, colour=False)
    cases = _CASES | ({} if torch.cuda.is_available() else _WITHOUT_GPU)
    cases |= {
        "has no sub-folder; sort the": _run(dataset=f"folder:{tmp_path / 'few' / 'cat'}"),
        "has only 'few'; are its classes in": _run(dataset=f"folder:{tmp_path}"),
        "digits.db-artifacts is not (Not a directory); name another with --artifacts": _run(
            storage="sqlite:///digits.db"
        ),
        "dog has 4 (": _run(dataset=f"folder:{tmp_path / 'few'}"),
        "in it lies few, flat.jpg. Name": ["baseline", "v36", "--data-dir", str(tmp_path)],
        "in it lies few, flat.jpg": _run("--data-dir", str(tmp_path), dataset="fashion-mnist"),
    }
    (finished_folder / "digits.db-artifacts").write_bytes(b"mine")
    before = {path: path.stat().st_mtime_ns for path in finished_folder.rglob("*.db")}
    _check(list(cases.items()), finished_folder)
    assert before == {path: path.stat().st_mtime_ns for path in finished_folder.rglob("*.db")}
    assert not (finished_folder / "nowhere").exists()


def test_that_a_study_is_searched_already_is_told_before_pytorch_is_loaded(tmp_path: Path) -> None:
    """Whoever names no data set goes on with the study of that cap that was used last."""
    database = tmp_path / "studies.db"
    study = make_study(f"sqlite:///{database}", "digits-3000x3", [MadeTrial((0.5, 0.6, 0.7))])
    searched = f"process {os.getpid()} on {socket.gethostname()} is searching 'digits-3000x3'"
    with locked_file(database, study):
        _check(
            [
                (searched, _run()),
                (searched, _run(dataset="auto")),
                (searched, _run("--study", "digits-3000x3", dataset="auto")),
            ],
            tmp_path,
        )


def test_what_commands_of_networks_lack_is_told_before_pytorch_is_loaded(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(preset_folder("best-1-epoch"), weights)
    (weights / "seed-1.safetensors").unlink()
    (tmp_path / "no.jpg").write_bytes(b"no image")
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    make_study(url, "made", [MadeTrial((0.5, 0.6, 0.7))], dataset="mnist")
    lacking = ["--data-dir", str(tmp_path)]
    absent = "does not have its four files"
    _check(
        [
            ("there is no elsewhere.", ["pictures", "elsewhere"]),
            (absent, ["pictures", "weights", *lacking]),
            ("seed must be one of 1, 2", ["predict", "weights", "a.jpg", "--seed", "99"]),
            ("the weights are missing", ["predict", "weights", "a.jpg", "--seed", "1"]),
            ("a.jpg is not (No such file", ["predict", "weights", "a.jpg"]),
            ("no.jpg is not (cannot identify", ["predict", "weights", "no.jpg"]),
            ("there is no best-1; did you mean", ["export", "best-1", "--out", "a.onnx"]),
            ("of 1, 2, 3, 4, 5, but", ["export", "weights", "--out", "a.onnx", "--seed", "9"]),
            ("no.jpg is not (File exists)", ["export", "weights", "--out", "no.jpg/a.onnx"]),
            (absent, ["ablate", "--storage", url, *lacking]),
            (absent, ["confirm", "--storage", url, *lacking]),
            (absent, ["retrain", "--storage", url, *lacking]),
            (absent, ["report", "--train", "--storage", url, *lacking]),
        ],
        tmp_path,
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_device_is_refused_before_the_server_of_workers_is_started() -> None:
    code = """
import sys
from search.exceptions import DeviceError
from search.workers.setup import prepare_workers
import multiprocessing.forkserver as forkserver
try:
    prepare_workers(None, "cuda")
except DeviceError:
    sys.exit(forkserver._forkserver._forkserver_pid is not None)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_search_of_a_queue_makes_no_database_in_the_place_of_the_queue_s(
    command: Command,
) -> None:
    """Nobody would know of it: the job stood in the one that is gone."""
    done = command.apart(*DIGITS_RUN, "--trials", "1", SEARCH_JOB="1")
    assert done.code == 2
    assert "There is no database" in done.err
    assert not command.database.exists()
