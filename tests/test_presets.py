"""The shipped networks: rebuilt from their cards, counted, tested on MNIST where it is there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from models.size import parameter_count
from search.data import load_dataset
from search.folders import PRESETS, preset_folder
from search.presets import all_systems, find_system
from search.weights import kept_seed, load, read_card
from tests.conftest import run_here

# What each had to stay under: parameters (one less is the most) and epochs.
LIMITS = {"best-1-epoch": (25_000, 1)}


def test_the_shipped_networks_are_those_of_the_challenges() -> None:
    assert set(PRESETS) == set(LIMITS)


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
        logits = torch.cat(
            [network(data.test.images[i : i + 1_000]) for i in range(0, 10_000, 1_000)]
        )
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
    assert run_here("baseline", "best-1-epoch", *options) == 0
    count = parameter_count(find_system("best-1-epoch").hyperparameters.spec)
    assert json.loads(capsys.readouterr().out)["parameter_count"] == count


def test_the_list_of_baselines_has_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here("baseline") == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in PRESETS)
