"""`search retrain`, and what it leaves to take home."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import optuna
import pytest
import torch
from optuna.trial import TrialState
from safetensors.torch import load_file, save_file

import search
from search.data.load import load_dataset
from search.exceptions import CardError
from search.results.looks import add_looks_of_network
from search.study.findings import Findings
from search.study.open import rebuild
from search.training.card import read_card
from tests.conftest import Command, Result, read_only, run_here, wait_until

NAME = "digits-3000x3"


def test_it_prints_each_epoch_then_seeds_mean_and_spread(
    retrained: tuple[Command, Result],
) -> None:
    out = retrained[1].out
    for seed in (1, 2):
        for epoch in (1, 2, 3):
            assert re.search(rf"^ {{3}}{seed} {{6}}{epoch} ( +[\d.e-]+| %){{7}}$", out, re.M), out
    assert "best epoch" in out
    assert "(mean and spread over 2 seeds; 95 % interval " in out
    assert f"By {NAME}, the test set was seen 2 times, once for each seed" in out
    assert "search pictures weights" in out
    assert "photo.jpg" not in out  # a network of scikit-learn's digits reads none


def test_it_trains_on_train_and_validation_and_stores_the_result(
    retrained: tuple[Command, Result],
) -> None:
    command, _ = retrained
    card = json.loads((command.folder / "weights" / "card.json").read_text())
    study = command.study(NAME)
    assert card["dataset"]["n_training"] == 1438
    assert card["trial"] == study.best_trial.number
    found = Findings.read(study)
    assert found.test_looks == 2
    (stored,) = found.retrainings
    assert stored["runs"] == card["runs"]
    assert [run["seed"] for run in stored["runs"]] == [1, 2]
    assert card["epochs"] == 3
    for run in card["runs"]:
        assert len(run["accuracies"]) == 3
        assert run["accuracies"][-1] == run["last_accuracy"]
        assert run["accuracies"][run["best_epoch"] - 1] == run["best_accuracy"]


def test_another_look_at_the_test_set_is_counted(
    retrained: tuple[Command, Result], tmp_path: Path
) -> None:
    shutil.copytree(retrained[0].folder, tmp_path, dirs_exist_ok=True)
    done = Command(tmp_path)("retrain", "--seeds", "1", "--trial", "0")
    assert done.code == 0, done.err
    assert f"By {NAME}, the test set was seen 3 times" in done.out
    assert (tmp_path / "runs" / NAME / "trial-0" / "card.json").is_file()


def test_pictures_are_a_look_that_the_study_counts_whatever_its_name_is(
    retrained: tuple[Command, Result], tmp_path: Path
) -> None:
    shutil.copytree(retrained[0].folder, tmp_path, dirs_exist_ok=True)
    command = Command(tmp_path)
    with closing(sqlite3.connect(command.database)) as database, database:
        database.execute("UPDATE studies SET study_name = 'renamed'")
    drawn = command("pictures", "weights")
    assert drawn.code == 0, drawn.err
    assert drawn.out.startswith("By renamed, the test set was seen 3 times")  # before it is seen
    last = Findings.read(command.study("renamed")).looks[-1]
    assert (last["by"], last["n"]) == ("pictures", 1)
    command.database.unlink()
    assert "not counted" in command("pictures", "weights").out


def test_of_studies_with_the_same_trial_the_one_that_was_retrained_counts_the_look(
    retrained: tuple[Command, Result], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(retrained[0].folder, tmp_path / "copy"))
    card, url = read_card(folder / "weights"), f"sqlite:///{folder / 'studies.db'}"
    for name in ("renamed", "youngest"):
        optuna.copy_study(
            from_study_name=NAME, to_study_name=name, from_storage=url, to_storage=url
        )
    of_others = (
        "DELETE FROM study_user_attributes WHERE key LIKE 'retrain!_%' ESCAPE '!' AND study_id IN "
        "(SELECT study_id FROM studies WHERE study_name != 'renamed')"
    )
    with closing(sqlite3.connect(folder / "studies.db")) as database, database:
        assert database.execute(of_others).rowcount == 2
    seen = add_looks_of_network(url, card, card.fingerprint, n=1, by="pictures")
    assert (
        seen
        == "By renamed, the test set was seen 3 times, once for each seed that was scored on it."
    )
    with closing(sqlite3.connect(folder / "studies.db")) as database, database:
        database.execute(of_others.replace("!= 'renamed'", "= 'renamed'"))
        database.execute("UPDATE studies SET study_name = 'other' WHERE study_name = 'youngest'")
    youngest = dataclasses.replace(card, study="other")
    assert "By other," in add_looks_of_network(url, youngest, card.fingerprint, n=1, by="pictures")


def test_weights_take_the_place_of_others_only_with_a_word(
    retrained: tuple[Command, Result], tmp_path: Path
) -> None:
    shutil.copytree(retrained[0].folder, tmp_path, dirs_exist_ok=True)
    command = Command(tmp_path)
    before = command.study(NAME).best_trial.number
    other = next(trial.number for trial in command.study(NAME).trials if trial.number != before)
    options = ("retrain", "--seeds", "1", "--trial", str(other), "--out")
    done = command(*options, "weights")
    assert done.code == 0, done.err
    assert f"Replaces the weights of trial {before} of {NAME} in weights." in done.out
    again = command(*options, "weights")
    assert "Replaces" not in again.out
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "curves.png").write_text("mine")
    looks = Findings.read(command.study(NAME)).test_looks
    refused = command(*options, "own")
    assert refused.code == 2
    assert "but own/curves.png is another, or was changed since" in refused.err
    assert (tmp_path / "own" / "curves.png").read_text() == "mine"
    assert Findings.read(command.study(NAME)).test_looks == looks


def test_load_gives_a_network_with_the_accuracy_that_was_printed(
    retrained: tuple[Command, Result],
) -> None:
    command, _ = retrained
    folder = command.folder / "weights"
    run = json.loads((folder / "card.json").read_text())["runs"][1]
    dataset = load_dataset("digits", command.folder)
    network = search.load(folder, seed=2)
    with torch.inference_mode():
        predicted = network(dataset.test.images).argmax(dim=1)
        as_floats = network(dataset.test.images.float() / 255).argmax(dim=1)
    accuracy = (predicted == dataset.test.labels).double().mean().item()
    assert accuracy == pytest.approx(run["last_accuracy"])
    assert torch.equal(predicted, as_floats)


def test_the_first_seed_is_the_one_that_loads(retrained: tuple[Command, Result]) -> None:
    folder = retrained[0].folder / "weights"
    first, second = search.load(folder), search.load(folder, seed=2)
    again = search.load(folder, seed=1)
    for ours, same, other in zip(
        first.parameters(), again.parameters(), second.parameters(), strict=True
    ):
        assert torch.equal(ours, same)
        assert not torch.equal(ours, other)


def test_the_first_seed_that_was_kept_loads(weights: Path) -> None:
    (weights / "seed-1.safetensors").unlink()
    kept, asked = search.load(weights), search.load(weights, seed=2)
    for ours, same in zip(kept.parameters(), asked.parameters(), strict=True):
        assert torch.equal(ours, same)


def test_the_card_rebuilds_the_trial_without_the_database(
    retrained: tuple[Command, Result],
) -> None:
    command, _ = retrained
    study = command.study(NAME)
    network = search.load(command.folder / "weights")
    assert network.network.spec == rebuild(study, study.best_trial).spec


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parameter_count": 17}, "the card says 17 parameters"),
        ({"card_version": 2}, "reads cards of version 1"),
        ({"hyperparameters": {}}, "the card cannot be used"),
        ({"runs": []}, "names no training run"),
        ({"epochs": 4}, "says 4 epochs, but seed 1 has 3 accuracies"),
    ],
)
def test_a_card_that_was_changed_is_refused(
    weights: Path, change: dict[str, object], message: str
) -> None:
    card = json.loads((weights / "card.json").read_text())
    (weights / "card.json").write_text(json.dumps({**card, **change}))
    with pytest.raises(CardError, match=message):
        search.load(weights)


@pytest.mark.parametrize(
    ("way", "values"),
    [
        (("study",), [None, 3, "a\0b", "\ud800"]),
        (("trial",), [True, "1", -1, 1.5, 10**400]),
        (("dataset", "name"), [None, "a\0b", "\ud800"]),
        (("dataset", "classes", 0), [None, 0, "\0", "\udcff"]),
        (("hyperparameters", "learning_rate"), [10**400, math.inf, math.nan]),
        (("hyperparameters", "weight_decay"), [10**400]),
        (("hyperparameters", "ema_epochs"), [10**400]),
        (("hyperparameters", "gradient_clip"), [math.inf]),
        (("normalization", "mean"), [[], "", [0.1, 0.2], [10**400], [1e308], [-1]]),
        (("normalization", "std"), [[], {}, [0], [-1], [0.1, 0.2], [1e-320]]),
        (("test_accuracy", "mean"), [True, -1, 1.5, math.nan, "0.5", 10**400]),
        (("test_accuracy", "std"), [math.inf, "0", []]),
        (("epochs",), [0, -1, 1.5, True, 2**70, 10**400]),
        (
            ("hyperparameters", "spec", "network"),
            ["c1 1000000000, gap, out", f"c3 {9**99}, gap, out"],
        ),
        (("hyperparameters", "spec", "input_shape"), [[1, 10**9, 10**9], [10**400, 28, 28]]),
        (("hyperparameters", "batch_size"), [2**70]),
        (("runs", 0, "seed"), [True, 1.5, "1", -1, 10**400]),
        (("runs", 0, "accuracies", 0), [None, "1", 2, math.nan]),
    ],
)
def test_a_card_with_a_value_that_cannot_be_is_refused(
    weights: Path, way: tuple[str | int, ...], values: list[object]
) -> None:
    text = (weights / "card.json").read_text()
    for value in values:
        card = inner = json.loads(text)
        for key in way[:-1]:
            inner = inner[key]
        inner[way[-1]] = value
        (weights / "card.json").write_text(json.dumps(card))
        with pytest.raises(CardError, match="the card cannot be used"):
            read_card(weights)


def test_a_card_of_a_later_version_is_refused_whatever_is_in_it(weights: Path) -> None:
    (weights / "card.json").write_text(json.dumps({"card_version": 2, "networks": []}))
    with pytest.raises(CardError, match="use the version of the package that wrote it"):
        search.load(weights)


def test_damaged_or_missing_weights_are_refused(weights: Path) -> None:
    path = weights / "seed-1.safetensors"
    tensors = load_file(path)
    save_file({key: each * math.nan for key, each in tensors.items()}, path)
    with pytest.raises(CardError, match="must be finite numbers"):
        search.load(weights)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CardError, match="cannot be read"):
        search.load(weights)
    path.unlink()
    os.mkfifo(path)  # which would be waited for, and no stop would end that
    with pytest.raises(CardError, match="it is no file with contents"):
        search.load(weights)
    path.unlink()
    with pytest.raises(CardError, match="the weights are missing"):
        search.load(weights, seed=1)
    (weights / "seed-2.safetensors").unlink()
    with pytest.raises(CardError, match="the weights are missing"):
        search.load(weights)
    with pytest.raises(CardError, match="seed must be one of 1, 2, but got 9"):
        search.load(weights, seed=9)
    (weights / "card.json").unlink()
    with pytest.raises(CardError, match="must hold a card"):
        search.load(weights)


def test_a_look_that_cannot_be_counted_is_said_with_the_reason(
    retrained: tuple[Command, Result], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(retrained[0].folder, tmp_path / "copy"))
    card, database = read_card(folder / "weights"), folder / "studies.db"

    def look(fingerprint: str) -> str:
        return add_looks_of_network(f"sqlite:///{database}", card, fingerprint, n=1, by="pictures")

    with read_only(database):
        said = look(card.fingerprint)
        assert said.startswith(
            f"{NAME} has found this network, but this look at the test set is not"
        )
        assert f"The database must be writable, but {database} is read-only" in said
        assert look("of other data").startswith("No study here has found this network")
    assert "the test set was seen 3 times" in look(card.fingerprint)
    database.write_bytes(b"something else" * 100)
    said = look(card.fingerprint)
    assert said.startswith(
        "This look at the test set is not counted. The database must be a SQLite"
    )


def test_what_is_no_folder_of_weights_is_refused_by_what_it_is(
    weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed, database = weights / "seed-1.safetensors", weights.parent / "studies.db"
    database.touch()
    for path, said in (
        (database, f"but {database} is a file."),
        (seed, f"but {seed} is a file; name {weights}."),
        (database / "weights", f"but there is no {database / 'weights'}."),
    ):
        for words in (
            ("predict", str(path), "photo.png"),
            ("export", str(path), "--out", str(weights.parent / "net.py")),
            ("pictures", str(path)),
        ):
            assert run_here(*words) == 2
            assert said in capsys.readouterr().err
        with pytest.raises(CardError, match="in a folder that 'search retrain' wrote"):
            search.load(path)
    (weights / "card.json").unlink()
    (weights / "card.json").mkdir()
    with pytest.raises(CardError, match=r"must be readable, but it is not \(Is a directory\)"):
        search.load(weights)


def test_other_data_than_the_study_was_made_with_are_refused(
    finished: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    study = finished.study(NAME)
    settings = {**study.user_attrs["settings"], "data_fingerprint": "0" * 64}
    study.set_user_attr("settings", settings)
    out = str(finished.folder / "weights")
    url = f"sqlite:///{finished.database}"
    assert run_here("retrain", "--storage", url, "--out", out) == 2
    assert "The data must be those of the study" in capsys.readouterr().err
    assert Findings.read(finished.study(NAME)).test_looks == 0


def test_baseline_lists_all_with_their_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here("baseline") == 0
    listed = capsys.readouterr().out
    for name in ("three-step-1", "under-20k", "v36-bias", "one-epoch", "step-lr"):
        assert name in listed
    assert "18,962" in listed


def test_a_baseline_is_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--dataset", "digits", "--epochs", "2", "--seeds", "2", "--workers", "1", "--json")
    assert run_here("baseline", "v36", *options) == 0
    printed = capsys.readouterr()
    measured = json.loads(printed.out)
    assert measured["parameter_count"] == 6_198
    assert measured["claimed_percent"]["last_three_mean"] == 99.42
    assert [run["seed"] for run in measured["runs"]] == [1, 2]
    for run in measured["runs"]:
        assert len(run["accuracies"]) == 2
        assert run["last_three_mean"] == pytest.approx(sum(run["accuracies"]) / 2)
    assert (measured["dataset"]["name"], measured["epochs"]) == ("digits", 2)
    assert (measured["claimed_percent"]["dataset"], measured["claimed_percent"]["epochs"]) == (
        "mnist",
        15,
    )
    assert "chosen here" in printed.err


def test_json_of_all_baselines_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here("baseline", "--json") == 2
    assert "must come with a baseline's name" in capsys.readouterr().err


def test_a_baseline_that_holds_out_more_than_there_is_may_train_on_all(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_here("baseline", "one-epoch", "--dataset", "digits") == 2
    assert "fewer than the 1,438 that digits has" in capsys.readouterr().err

    assert run_here("baseline", "one-epoch", "--dataset", "digits", "--all-images") == 0
    printed = capsys.readouterr().out
    assert "1 epoch on all training images" in printed
    assert "held out" not in printed


def test_baseline_prints_claimed_beside_measured(command: Command) -> None:
    done = command("baseline", "v36", "--dataset", "digits", "--epochs", "2", "--seeds", "2")
    assert done.code == 0, done.err
    assert "chosen here: SGD, batch size 128" in done.out
    assert "claimed" in done.out
    assert "99.42 %" in done.out
    assert "over 2 seeds" in done.out


def test_a_trial_that_was_stopped_is_retrained_only_with_a_word(finished: Command) -> None:
    study = finished.study(NAME)
    trial = study.trials[0]
    stopped = optuna.create_trial(
        state=TrialState.PRUNED,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs={
            **trial.user_attrs,
            "number": 4,
            "epochs": trial.user_attrs["epochs"][:2],
            "reason": "weak",
        },
    )
    study.add_trial(stopped)
    done = finished("retrain", "--trial", "4", "--seeds", "1")
    assert done.code == 0, done.err
    assert "it is PRUNED after 2 epochs (weak). Here it trains all of them." in done.out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_stop_leaves_no_half_of_a_retraining(finished: Command, number: signal.Signals) -> None:
    process = finished.start("retrain", "--seeds", "300", "--out", "weights")
    weights = finished.folder / "weights"
    wait_until(lambda: any(weights.glob(".training-*/*")))
    process.send_signal(number)
    out, _ = process.communicate()
    assert process.returncode == 130, out
    assert out.count("Interrupted.") == 1
    assert "Traceback" not in out
    assert not list(weights.iterdir())
