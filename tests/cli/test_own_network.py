"""Searches of networks that a user's own file builds, and what follows them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from optuna.trial import FrozenTrial, TrialState
from PIL import Image

import search
from search.exceptions import InputError
from search.study.open import rebuild
from tests.conftest import Command
from tests.support.own_networks import RESIDUAL, TWO_WIDTHS, UNSCALED

STUDY = "digits-3000x1-net"
_RUN = ("run", "--network", "net.py", "--dataset", "digits", "--budget", "3000", "--epochs", "1")


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder where a file's networks were searched and the best retrained; what was printed."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "net.py").write_text(RESIDUAL)
    command = Command(folder)
    done = command(*_RUN, "--trials", "4", "--workers", "2", "--pruner", "none")
    assert done.code == 0, done.err
    retrained = command("retrain", "--seeds", "1", "--network", "net.py", "--out", "weights")
    assert retrained.code == 0, retrained.err
    return folder, done.out + retrained.out


@pytest.fixture
def own(searched: tuple[Path, str], command: Command) -> Command:
    """A copy of that folder."""
    shutil.copytree(searched[0], command.folder, dirs_exist_ok=True)
    return command


def test_networks_of_a_file_are_searched_under_the_cap(own: Command) -> None:
    study = own.study(STUDY)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 4
    for trial in study.trials:
        recipe = rebuild(study, trial)
        values = dict(recipe.spec.traits())
        assert trial.params.keys() >= {"stem", "with_block", "rate", "batch_size"}
        assert ("kernel" in trial.params) == trial.params["with_block"]
        assert "learning_rate" not in trial.params
        assert recipe.learning_rate == trial.params["rate"]
        assert (values["with_block"], recipe.momentum) == (trial.params["with_block"], 0.9)
        # The width is scaled: one more would be over the cap.
        assert trial.user_attrs["parameter_count"] < 3000
        wider, kernel = values["stem"] + 1, values.get("kernel", 0)
        block = kernel**2 * wider**2 + 2 * wider if values["with_block"] else 0
        assert 9 * wider + wider + block + 10 * wider + 10 >= 3000


def test_the_plan_says_what_the_file_does(searched: tuple[Path, str]) -> None:
    printed = " ".join(searched[1].split())
    assert "networks of net.py" in printed
    assert "suggests rate, stem, with_block; some networks kernel, too" in printed
    assert "widths are scaled to the cap" in printed
    assert "says learning_rate, momentum itself" in printed
    assert f"search retrain --study {STUDY} --network net.py" in printed
    assert 'search.load("weights", network="net.py")' in printed


def test_the_same_command_goes_on(own: Command) -> None:
    goes_on = own(*_RUN, "--trials", "5", "--workers", "1", "--no-confirm")
    assert goes_on.code == 0, goes_on.err
    assert len(own.study(STUDY).trials) == 5


def test_the_same_seed_gives_the_same_results(own: Command) -> None:
    found = []
    for name in ("one", "two"):
        words = ("--study", name, "--trials", "2", "--workers", "1", "--no-confirm", "--seed", "3")
        done = own(*_RUN, *words)
        assert done.code == 0, done.err
        trials = own.study(name).trials
        losses = [trial.user_attrs["epochs"][-1]["loss"] for trial in trials]
        found.append(([trial.params for trial in trials], losses))
    assert found[0] == found[1]


def test_a_changed_file_is_refused_with_the_difference(own: Command) -> None:
    before = own.database.read_bytes()
    (own.folder / "net.py").write_text(RESIDUAL.replace("stride=4", "stride=2"))
    refused = own(*_RUN, "--trials", "9")
    assert refused.code == 2
    message = " ".join(refused.err.split())
    assert "--network net.py (" in message
    assert "stride=4), nn.ReLU()]'" in message
    assert "stride=2), nn.ReLU()]'" in message
    assert "another study with --study" in message
    for words in (["retrain"], ["confirm"], ["ablate"]):
        assert own(*words, "--network", "net.py").code == 2
    assert own("report", "--train", "--network", "net.py").code == 2
    assert own("predict", "weights", "p.png", "--network", "net.py").code == 2
    assert own.database.read_bytes() == before
    without = own("run", *_RUN[3:], "--study", STUDY)
    assert without.code == 2
    assert "--network net.py" in " ".join(without.err.split())


@pytest.mark.parametrize(
    "words",
    [
        ["retrain"],
        ["confirm"],
        ["ablate"],
        ["report", "--train"],
        ["pictures", "weights"],
        ["predict", "weights", "picture.png"],
        ["export", "weights", "--out", "network.onnx"],
    ],
    ids=" ".join,
)
def test_what_builds_the_network_needs_the_file(own: Command, words: list[str]) -> None:
    before = own.database.read_bytes()
    refused = own(*words)
    assert refused.code == 2
    whole = f"search {' '.join(words)} --network net.py"
    assert whole in " ".join(refused.err.split())
    assert own.database.read_bytes() == before


def test_what_reads_the_study_needs_no_file(own: Command) -> None:
    (own.folder / "net.py").unlink()
    best = own.study(STUDY).best_trial.number
    shown = own.apart("show", str(best))
    assert "net.py with " in shown.out
    assert "--network FILE.py" in shown.out
    assert own.apart("best").code == 0
    assert json.loads(own.apart("show", str(best), "--json").out)["layers"] == []
    report = own.apart("report", "--out", "report")
    assert report.code == 0, report.err
    assert (own.folder / "report" / "network.py").read_text() == RESIDUAL
    race = f"search confirm --study {STUDY} --network net.py"
    assert re.search(rf"Not confirmed yet: (uv run )?{race}\n", report.out), report.out
    page = (own.folder / "report" / "report.html").read_text()
    lines = [line for line in _lines_to_copy(page) if "--study" in line]
    assert race in lines
    assert f"search ablate --study {STUDY} --network net.py" in lines
    assert f"search report --train --study {STUDY} --network net.py" in lines
    # With the copy beside the report.
    assert f"search retrain --study {STUDY} --seeds 1 --network network.py" in lines
    needs_no_file = ("search show ", f"search report --study {STUDY}")
    assert all("--network" in line for line in lines if not line.startswith(needs_no_file))


def test_layers_are_shown_by_the_file(own: Command) -> None:
    trial = own.study(STUDY).best_trial
    rows = own("show", str(trial.number), "--network", "net.py", "--json").json["layers"]
    assert sum(row["parameters"] for row in rows) == trial.user_attrs["parameter_count"]
    assert rows[0]["layer"] == "0: Conv2d"
    assert (rows[0]["kernel"], rows[0]["stride"]) == (3, 4)


def test_retrained_weights_are_used_by_the_file(own: Command) -> None:
    card = json.loads((own.folder / "weights" / "card.json").read_text())
    assert card["hyperparameters"]["spec"]["file"] == "net.py"
    assert card["hyperparameters"]["spec"]["function"] == "network"
    file = own.folder / "net.py"
    network = search.load(own.folder / "weights", network=file)
    assert network(torch.zeros(2, *network.input_shape)).shape == (2, 10)
    with pytest.raises(InputError, match=r"network='net\.py'"):
        search.load(own.folder / "weights")
    picture = np.zeros((28, 28), np.uint8)
    picture[4:24, 12:16] = 255
    Image.fromarray(picture).save(own.folder / "p.png")
    drawn = own("pictures", "weights", "--network", "net.py")
    assert drawn.code == 0, drawn.err
    predicted = own("predict", "weights", "p.png", "--network", "net.py", "--json")
    assert predicted.code == 0, predicted.err
    assert sum(predicted.json["probabilities"].values()) == pytest.approx(1.0)


def test_an_exported_file_does_what_the_network_does(own: Command) -> None:
    done = own("export", "weights", "--out", "network.onnx", "--network", "net.py")
    assert done.code == 0, done.err
    assert "logits differ by at most" in done.out
    program = own("export", "weights", "--out", "network.py")
    assert program.code == 2
    assert "take the network as ONNX" in " ".join(program.err.split())


def test_each_suggestion_is_ablated(own: Command) -> None:
    done = own("ablate", "--seeds", "1", "--network", "net.py", "--json")
    assert done.code == 0, done.err
    changes = [row["change"] for row in done.json]
    assert "no weight decay" in changes
    assert "half the width" in changes
    assert any(change.startswith("with_block ") for change in changes)


def test_only_networks_under_the_cap_become_trials(command: Command) -> None:
    (command.folder / "net.py").write_text(UNSCALED)
    small = [word if word != "3000" else "1000" for word in _RUN]
    done = command(*small, "--trials", "3", "--workers", "1", "--no-confirm")
    assert done.code == 0, done.err
    trials = command.study("digits-1000x1-net").trials
    counts = [trial.user_attrs["parameter_count"] for trial in trials]
    assert all(
        count == 20 * t.params["width"] + 10 for t, count in zip(trials, counts, strict=True)
    )
    assert max(counts) < 1000
    assert any(trial.user_attrs["redraws"] > 0 for trial in trials)


def test_a_network_made_by_hand_is_trained_as_a_baseline(command: Command) -> None:
    whole = UNSCALED.replace('trial.suggest_int("width", 4, 200)', "16")
    (command.folder / "whole.py").write_text(whole)
    words = ("baseline", "whole.py", "--dataset", "digits", "--epochs", "1", "--json")
    done = command(*words)
    assert done.code == 0, done.err
    assert '"parameter_count": 330' in done.out
    assert "No study counts looks at the test set by a network that was made by hand" in done.err
    (command.folder / "whole.py").write_text(UNSCALED)
    refused = command(*words)
    assert refused.code == 2
    assert "suggests width" in " ".join(refused.err.split())


def test_a_network_that_fails_is_a_failed_trial_with_its_reason(command: Command) -> None:
    failing = UNSCALED.replace(
        "    return",
        '    if trial.suggest_categorical("kind", [1, 2]) == 2:\n'
        '        raise ValueError("no such kind")\n    return',
    )
    (command.folder / "net.py").write_text(failing)
    done = command(*_RUN, "--trials", "2", "--workers", "1", "--no-confirm", "--sampler", "random")
    assert done.code == 0, done.err
    trials = command.study(STUDY).trials
    failed = [trial for trial in trials if trial.state == TrialState.FAIL]
    for trial in failed:
        assert trial.params["kind"] == 2
        assert "ValueError: no such kind (line 7 in network: raise" in trial.user_attrs["reason"]
    assert failed


def test_a_server_runs_no_file_of_a_client(command: Command) -> None:
    (command.folder / "net.py").write_text(UNSCALED)
    refused = command("submit", *_RUN[1:])
    assert refused.code == 2
    assert "runs no program of a client's" in " ".join(refused.err.split())


def test_the_best_are_raced_and_a_later_study_starts_from_them(own: Command) -> None:
    raced = own("confirm", "--top", "2", "--seeds", "2", "--network", "net.py")
    assert raced.code == 0, raced.err
    assert "Confirmed: trial" in raced.out
    report = own("report", "--train", "--network", "net.py", "--out", "report")
    assert report.code == 0, report.err
    assert (own.folder / "report" / "confusion.png").exists()
    words = [word if word != "3000" else "1000" for word in _RUN]
    later = own(*words, "--from-study", STUDY, "--trials", "1", "--workers", "1", "--no-confirm")
    assert later.code == 0, later.err
    (trial,) = (t for t in own.study("digits-1000x1-net").trials if t.state.is_finished())
    (earlier,) = (t for t in own.study(STUDY).trials if t.number == int(_origin(trial)))
    names = ("stem", "with_block", "rate", "weight_decay")
    assert [trial.params[name] for name in names] == [earlier.params[name] for name in names]
    assert trial.user_attrs["parameter_count"] < 1000


def test_the_best_of_each_size_is_found_among_them(command: Command) -> None:
    (command.folder / "net.py").write_text(RESIDUAL)
    words = ("--objective", "accuracy,size", "--trials", "4", "--workers", "2")
    done = command(*_RUN, *words)
    assert done.code == 0, done.err
    assert "No network that was found is better than these and no larger" in done.out
    front = command("best", "--front", "--json").json
    assert front
    trials = command.study("digits-3000x1-by-size-net").trials
    assert {row["trial"] for row in front} <= {trial.number for trial in trials}
    sizes = [row["parameter_count"] for row in front]
    assert sizes == sorted(sizes)
    assert all(trial.user_attrs["parameter_count"] < 3000 for trial in trials)


def test_the_smallest_of_them_that_reaches_a_target_is_found(command: Command) -> None:
    (command.folder / "net.py").write_text(TWO_WIDTHS)
    words = ("--target", "60", "--confidence", "0.6", "--trials", "3", "--workers", "2")
    done = command(*_RUN, *words, "--epochs", "3", "--pruner", "none")
    assert done.code == 0, done.err
    assert "Smallest that reaches it: 2,290 parameters" in done.out
    retrain = r"search retrain --trial \d+ --study digits-3000x3-net --network net\.py "
    assert re.search(retrain, done.out), done.out
    # Below 85 % of that only the narrow one is left, which cannot tell ten digits apart.
    assert {trial.params["width"] for trial in command.study("digits-1946x3-net").trials} == {1}
    report = command("report", "--study", "digits-3000x3-net", "--out", "report")
    assert report.code == 0, report.err
    lines = _lines_to_copy((command.folder / "report" / "report.html").read_text())
    assert "search retrain --study digits-3000x3-net --network net.py" in lines
    again = "search confirm --study digits-3000x3-net --top 3 --seeds 5 --network network.py"
    assert again in lines  # by the copy beside it


def _lines_to_copy(page: str) -> list[str]:
    """The commands on a report's page."""
    blocks = re.findall(r"<pre><code>(.*?)</code></pre>", page, re.S)
    lines = "\n".join(re.sub(r"<[^>]+>", "", block) for block in blocks).splitlines()
    return [" ".join(line.split()) for line in lines]


def _origin(trial: FrozenTrial) -> str:
    return str(trial.user_attrs["from_study"]).rpartition("/")[2]
