"""The shipped networks: rebuilt from their cards, counted, tested on MNIST where it is there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from optuna import create_study
from optuna.samplers import RandomSampler

from search.data.load import load_dataset
from search.exceptions import CardError
from search.space.presets import PRESETS, preset_folder
from search.space.space import Space
from search.space.systems import all_systems, find_system
from search.study.findings import Findings
from search.training.card import kept_seed, read_card
from search.training.weights import load
from tests.conftest import Command, run_here

# The cap on parameters under which each was searched, and its epochs.
LIMITS = {
    f"{kind}-{name}": limits
    for name, limits in {
        "8k": (8_000, 15),
        "small": (5_000, 15),
        "20k": (20_000, 19),
        "1-epoch": (25_000, 1),
    }.items()
    for kind in ("best", "expert")
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_shipped_network_is_rebuilt_from_its_card_alone(name: str) -> None:
    contents = json.loads((preset_folder(name) / "card.json").read_text())
    network = load(name)
    n_weights = sum(p.numel() for p in network.parameters() if p.requires_grad)

    cap, epochs = LIMITS[name]
    assert n_weights == contents["parameter_count"] < cap
    assert read_card(preset_folder(name)).epochs == contents["epochs"] <= epochs
    assert len(contents["runs"]) >= 5


@pytest.mark.parametrize("name", PRESETS)
def test_a_shipped_network_has_the_accuracy_on_its_card(name: str, mnist_dir: Path) -> None:
    data = load_dataset("mnist", mnist_dir)
    card = read_card(preset_folder(name))
    card.check_data(data.info)
    seed = kept_seed(preset_folder(name), card)
    (accuracies,) = (run.accuracies for run in card.runs if run.seed == seed)
    assert accuracies is not None

    network = load(name)
    with torch.inference_mode():
        # Few at a time, whose maps stay in the cache: four times as fast as a thousand.
        logits = torch.cat([network(images) for images in torch.split(data.test.images, 100)])
    accuracy = (logits.argmax(1) == data.test.labels).double().mean().item()

    # Another processor rounds in another way: two of the 10,000 images may fall to the other side.
    assert accuracy == pytest.approx(accuracies[-1], abs=2.5e-4)


def test_shipped_networks_are_trained_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    for name in PRESETS:
        card = read_card(preset_folder(name))
        system = find_system(name)
        assert system in all_systems()
        assert (system.hyperparameters, system.epochs) == (card.hyperparameters, card.epochs)
        assert system.claim.last_three_mean == pytest.approx(100 * card.mean_accuracy)

    options = ("--dataset", "digits", "--epochs", "1", "--workers", "1", "--json")
    count = find_system("best-1-epoch").hyperparameters.spec.parameter_count
    for more in ((), ("--own-momentum",)):
        assert run_here("baseline", "best-1-epoch", *more, *options) == 0
        printed = capsys.readouterr()
        assert json.loads(printed.out)["parameter_count"] == count
        # The study that found it would count the look; here is none. Said before it is taken.
        before, _ = printed.err.split("train loss")
        assert "this look at the test set is not counted" in before


RECIPE = """\
topology = "{network}"
learning_rate = 0.00863
optimizer = "adamw"
momentum = 0.9
weight_decay = 0.003
schedule = "one-cycle"
warmup_share = 0.2
batch_size = 16
rotation_degrees = 0.887
translation = 0.00555
scale = 0.00998
shear_degrees = 0.333
elastic = 0.00177
dropout = 0.0
ema_epochs = 0.03
"""


def test_a_study_here_that_found_a_shipped_network_counts_the_looks_of_a_baseline(
    command: Command,
) -> None:
    spec = read_card(preset_folder("best-1-epoch")).hyperparameters.spec
    (command.folder / "recipe.toml").write_text(RECIPE.format(network=spec))
    of_digits = ("--dataset", "digits", "--epochs", "1", "--workers", "1")
    run = ("run", "--budget", "25000", "--trials", "1", "--space", "recipe.toml", "--no-confirm")
    assert command(*run, *of_digits).code == 0
    trained = command("baseline", "best-1-epoch", "--seeds", "1", *of_digits)
    assert trained.code == 0, trained.err
    before, _ = trained.out.split("train loss", 1)
    assert "By digits-25000x1, the test set was seen once" in before
    (look,) = Findings.read(command.study("digits-25000x1")).looks
    assert (look["by"], look["trial"], look["n"]) == ("baseline", 0, 1)


def test_a_run_whose_weights_are_not_shipped_is_told_with_those_that_are() -> None:
    with pytest.raises(CardError, match="are missing; take those of seed 1, or run"):
        load("expert-8k", seed=2)


def test_a_folder_of_the_same_name_is_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    theirs = load("best-1-epoch").state_dict()
    shutil.copytree(preset_folder("best-1-epoch"), "best-1-epoch")
    (tmp_path / "best-1-epoch" / "seed-1.safetensors").unlink()

    ours = load("best-1-epoch").state_dict()  # that of seed 2, the first that is left

    assert any(not torch.equal(ours[name], theirs[name]) for name in theirs)


def test_an_installed_package_has_the_shipped_networks_and_templates(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    command = (sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path))
    subprocess.run(command, cwd=root, check=True, capture_output=True, timeout=60)
    for name in PRESETS:
        shipped = {path.name for path in (tmp_path / "search_models" / "presets" / name).iterdir()}
        assert shipped == {path.name for path in preset_folder(name).iterdir()}
        assert {"card.json", "seed-1.safetensors"} <= shipped
    assert (tmp_path / "search" / "export" / "network.py.jinja").is_file()


def test_the_spaces_beside_the_results_can_be_searched() -> None:
    paths = sorted((Path(__file__).parents[2] / "docs" / "spaces").glob("*.toml"))
    assert paths
    for path in paths:
        space = Space.load(str(path), parameter_cap=8_000)
        recipe = space.suggest(create_study(sampler=RandomSampler(seed=0)).ask())
        assert 4_000 < recipe.spec.parameter_count < 8_000


def test_the_list_of_baselines_has_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here("baseline") == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in PRESETS)
