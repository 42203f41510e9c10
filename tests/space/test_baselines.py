"""The seeds' systems: counts, receptive fields, recipes and claims, as SEEDS.md has them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from search.data.dataset import Examples
from search.data.normalization import Normalization
from search.exceptions import InputError
from search.space.baselines import BASELINES, Baseline, Claim
from search.space.hyperparameters import (
    Augmentation,
    Constant,
    Cosine,
    Hyperparameters,
    OneCycle,
    Schedule,
    StepDecay,
)
from search.space.systems import find_system
from search.training.epochs import EpochResult
from search.training.train import train
from search_models.network import in_notation
from search_models.size import receptive_field
from search_models.spec import ModelSpec

_NORMALIZATION = Normalization((0.1307,), (0.3081,))
_NAMES = tuple(BASELINES)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


def _noise(n: int) -> Examples:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 1, 28, 28), dtype=torch.uint8, generator=generator)
    return Examples(images, torch.arange(n) % 10)


def _train(recipe: Hyperparameters, epochs: int, n: int) -> list[EpochResult]:
    examples = _noise(n)
    run = train(recipe, examples, examples[:10], _NORMALIZATION, epochs=epochs, device="cpu")
    return list(run)


def _tiny(recipe: Hyperparameters) -> Hyperparameters:
    """The same optimiser and schedule for a network that costs nothing."""
    return replace(recipe, spec=ModelSpec.parse("c3 2, pool, gap, out"))


def test_all_published_systems_are_there() -> None:
    assert set(_NAMES) == {
        "three-step-1",
        "three-step-2",
        "three-step-3",
        "under-20k",
        "v36",
        "v36-bias",
        "one-epoch",
        "step-lr",
    }


@pytest.mark.parametrize(
    ("name", "n_parameters", "field"),
    [
        ("three-step-1", 7_224, 24),
        ("three-step-2", 7_838, 24),
        ("three-step-3", 7_918, 24),
        ("under-20k", 18_962, 32),
        ("v36", 6_198, 28),
        ("v36-bias", 6_260, 28),
        ("one-epoch", 24_048, 22),
    ],
)
def test_parameters_and_receptive_field_are_those_published(
    name: str, n_parameters: int, field: int
) -> None:
    spec = in_notation(BASELINES[name].hyperparameters.spec)

    assert (spec.parameter_count, receptive_field(spec)) == (n_parameters, field)


def test_the_network_chosen_for_step_lr_is_under_its_cap() -> None:
    assert BASELINES["step-lr"].hyperparameters.spec.parameter_count < 8_000


@pytest.mark.parametrize(
    ("name", "optimizer", "learning_rate", "schedule", "batch_size", "epochs", "n_held_out"),
    [
        ("three-step-1", "adam", 0.02, Constant(), 128, 15, 0),
        ("three-step-2", "adam", 0.005, Constant(), 64, 15, 0),
        ("three-step-3", "adam", 0.005, StepDecay(8 / 15, gamma=0.1), 64, 15, 0),
        ("under-20k", "sgd", 0.1, OneCycle(0.2, 25.0, 1e4, True, 15), 512, 12, 0),
        ("v36", "sgd", 0.05, OneCycle(0.05, 10.0, 100.0, True), 128, 15, 0),
        ("v36-bias", "sgd", 0.05, OneCycle(0.05, 10.0, 100.0, True), 128, 15, 0),
        ("one-epoch", "adam", 0.015, Cosine(0.001), 64, 1, 6_000),
    ],
)
def test_recipe_is_as_published(
    name: str,
    optimizer: str,
    learning_rate: float,
    schedule: Schedule,
    batch_size: int,
    epochs: int,
    n_held_out: int,
) -> None:
    system = BASELINES[name]
    recipe = system.hyperparameters

    assert (recipe.optimizer, recipe.learning_rate) == (optimizer, learning_rate)
    assert recipe.schedule == schedule
    assert (recipe.batch_size, system.epochs, system.n_held_out) == (batch_size, epochs, n_held_out)


@pytest.mark.parametrize(
    ("name", "momentum", "weight_decay", "gradient_clip"),
    [
        ("three-step-3", 0.9, 0.0, None),
        ("under-20k", 0.9, 1e-4, None),
        ("v36", 0.98, 5e-5, None),
        ("v36-bias", 0.98, 5e-5, None),
        ("one-epoch", 0.9, 1e-4, 1.0),
    ],
)
def test_momentum_decay_and_clipping_are_as_published(
    name: str, momentum: float, weight_decay: float, gradient_clip: float | None
) -> None:
    recipe = BASELINES[name].hyperparameters

    assert (recipe.momentum, recipe.weight_decay) == (momentum, weight_decay)
    assert recipe.gradient_clip == gradient_clip


def test_only_the_onecycle_systems_augment() -> None:
    augmented = {
        name for name in _NAMES if not BASELINES[name].hyperparameters.augmentation.is_identity
    }

    assert augmented == {"under-20k", "v36", "v36-bias"}
    assert BASELINES["under-20k"].hyperparameters.augmentation == Augmentation(7.0, 0.1)


def test_steps_of_the_steplr_systems_are_in_whole_epochs() -> None:
    steps = {}
    for name in ("three-step-3", "step-lr"):
        schedule = BASELINES[name].hyperparameters.schedule
        assert isinstance(schedule, StepDecay)
        steps[name] = (schedule.step_epochs(15), schedule.gamma)

    assert steps == {"three-step-3": (8, 0.1), "step-lr": (6, 0.1)}


@pytest.mark.parametrize(
    ("name", "claim"),
    [
        ("three-step-1", Claim(last_epoch=99.35)),
        ("three-step-2", Claim(last_epoch=99.34)),
        ("three-step-3", Claim(last_epoch=99.50, best_epoch=99.52, last_three_mean=99.48)),
        ("under-20k", Claim(last_epoch=99.42, best_epoch=99.42, last_three_mean=99.32)),
        ("v36", Claim(last_epoch=99.44, last_three_mean=99.42)),
        ("v36-bias", Claim(last_epoch=99.44, last_three_mean=99.42)),
        ("one-epoch", Claim(last_epoch=97.68, best_epoch=97.68, last_three_mean=97.68)),
        ("step-lr", Claim(last_epoch=99.43, last_three_mean=99.45)),
    ],
)
def test_claims_are_as_published(name: str, claim: Claim) -> None:
    assert BASELINES[name].claim == claim


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"three-step-1.*best-8k, best-.*, but got 'v37'"):
        find_system("v37")


def _pytorch_one_cycle(
    *, peak: float, total: int, pct_start: float, div: float, final_div: float
) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=peak,
        total_steps=total,
        pct_start=pct_start,
        div_factor=div,
        final_div_factor=final_div,
    )
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_learning_rates_of_v36_are_those_of_onecyclelr() -> None:
    recipe = _tiny(replace(BASELINES["v36"].hyperparameters, batch_size=16))

    rates = [result.learning_rate for result in _train(recipe, epochs=40, n=16)]

    assert rates == pytest.approx(
        _pytorch_one_cycle(peak=0.05, total=40, pct_start=0.05, div=10, final_div=100)
    )
    assert rates[0] == pytest.approx(0.05 / 10)
    assert max(rates) == rates[round(0.05 * 40) - 1] == pytest.approx(0.05)
    assert rates[-1] == pytest.approx(0.05 / 10 / 100)


def test_learning_rates_of_under_20k_are_those_of_its_fifteen_epochs() -> None:
    recipe = _tiny(replace(BASELINES["under-20k"].hyperparameters, batch_size=16))

    rates = [result.learning_rate for result in _train(recipe, epochs=12, n=16)]

    expected = _pytorch_one_cycle(peak=0.1, total=15, pct_start=0.2, div=25, final_div=1e4)
    assert rates == pytest.approx(expected[:12])
    assert rates[0] == pytest.approx(0.1 / 25)
    assert max(rates) == rates[2] == pytest.approx(0.1)


def test_a_run_longer_than_its_cycle_trains_to_its_end() -> None:
    recipe = _tiny(replace(BASELINES["under-20k"].hyperparameters, batch_size=16))

    assert len(_train(recipe, epochs=17, n=16)) == 17


def _losses(system: Baseline, momentum: float) -> list[float]:
    recipe = replace(_tiny(system.hyperparameters), momentum=momentum, batch_size=16)
    return [result.training_loss for result in _train(recipe, epochs=2, n=48)]


@pytest.mark.parametrize("name", ["under-20k", "v36"])
def test_the_recipes_own_momentum_never_acts_where_the_cycle_moves_it(name: str) -> None:
    system = BASELINES[name]

    assert system.has_cycled_momentum
    assert _losses(system, 0.0) == _losses(system, 0.98)


@pytest.mark.parametrize("name", ["under-20k", "v36"])
def test_the_other_reading_lets_the_recipes_own_momentum_act(name: str) -> None:
    system = BASELINES[name].with_own_momentum()

    assert not system.has_cycled_momentum
    assert _losses(system, 0.0) != _losses(system, 0.98)


def test_the_other_reading_changes_nothing_else() -> None:
    system = BASELINES["v36"]
    schedule = system.hyperparameters.schedule
    assert isinstance(schedule, OneCycle)

    other = system.with_own_momentum().hyperparameters

    cycled = replace(other, schedule=replace(schedule, cycle_momentum=True))
    assert cycled == system.hyperparameters


@pytest.mark.parametrize("name", ["three-step-1", "three-step-3", "one-epoch", "step-lr"])
def test_only_a_cycle_has_two_readings_of_momentum(name: str) -> None:
    assert not BASELINES[name].has_cycled_momentum
    with pytest.raises(InputError, match=f"{name} has another"):
        BASELINES[name].with_own_momentum()


@pytest.mark.parametrize("name", _NAMES)
def test_a_recipe_survives_json(name: str) -> None:
    recipe = BASELINES[name].hyperparameters

    assert Hyperparameters.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


@pytest.mark.parametrize(
    ("optimizer", "schedule", "clip"),
    [
        ("sgd", OneCycle(0.4, 7.0, 3.0, True, 9), None),
        ("nesterov", StepDecay(0.25, 0.5), 0.5),
        ("adam", Cosine(0.1), None),
        ("adamw", Constant(), 0.5),
    ],
)
def test_every_kind_of_recipe_survives_json(
    optimizer: Any, schedule: Schedule, clip: float | None
) -> None:
    recipe = Hyperparameters(
        ModelSpec.parse("c3p1+bias 3, drop 1e-05, gap, out", input_shape=(3, 5, 6), n_classes=4),
        0.1 + 0.2,
        optimizer=optimizer,
        schedule=schedule,
        augmentation=Augmentation(1.0, 0.2, 0.3, 4.0, 0.02),
        gradient_clip=clip,
        label_smoothing=0.1,
        ema_epochs=1.5,
        final_augmentation=0.25,
    )

    assert Hyperparameters.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_a_recipe_that_an_earlier_version_stored_trains_as_it_did_then() -> None:
    recipe = BASELINES["v36"].hyperparameters
    added = {"label_smoothing": 0.0, "ema_epochs": 0.0, "final_augmentation": 1.0}
    stored = {name: value for name, value in recipe.to_dict().items() if name not in added}

    assert recipe.to_dict() == {**stored, **added}
    assert stored["augmentation"].keys() == {
        "rotation_degrees",
        "translation",
        "scale",
        "shear_degrees",
    }
    assert Hyperparameters.from_dict(stored) == recipe


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"learning_rate": 0.0}, "0 < learning_rate < inf"),
        ({"learning_rate": -0.1}, "0 < learning_rate < inf"),
        ({"learning_rate": math.inf}, "0 < learning_rate < inf"),
        ({"learning_rate": math.nan}, "0 < learning_rate < inf"),
        ({"momentum": 1.0}, "0 <= momentum < 1"),
        ({"momentum": -0.1}, "0 <= momentum < 1"),
        ({"momentum": math.nan}, "0 <= momentum < 1"),
        ({"weight_decay": -1e-9}, "weight_decay"),
        ({"weight_decay": math.nan}, "weight_decay"),
        ({"batch_size": 0}, "batch_size >= 1"),
        ({"gradient_clip": 0.0}, "0 < gradient_clip < inf"),
        ({"gradient_clip": math.nan}, "0 < gradient_clip < inf"),
        ({"gradient_clip": math.inf}, "0 < gradient_clip < inf"),
        ({"label_smoothing": 1.0}, "0 <= label_smoothing < 1"),
        ({"label_smoothing": -0.1}, "0 <= label_smoothing < 1"),
        ({"label_smoothing": math.nan}, "0 <= label_smoothing < 1"),
        ({"ema_epochs": -1.0}, "0 <= ema_epochs < inf"),
        ({"ema_epochs": math.inf}, "0 <= ema_epochs < inf"),
        ({"ema_epochs": math.nan}, "0 <= ema_epochs < inf"),
        ({"final_augmentation": 1.1}, "0 <= final_augmentation <= 1"),
        ({"final_augmentation": math.nan}, "0 <= final_augmentation <= 1"),
        ({"optimizer": "rmsprop"}, "optimizer in .*nesterov"),
    ],
)
def test_values_without_meaning_are_refused(changes: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        replace(BASELINES["v36"].hyperparameters, **changes)


@pytest.mark.parametrize(
    "broken",
    [
        {"spec": {"network": "c3 8, gap", "input_shape": [1, 28, 28], "n_classes": 10}},
        {"schedule": {"kind": "triangle"}},
        {"schedule": {"kind": "step", "step_share": 0.5, "steps": 3}},
        {"augmentation": {"flip": True}},
        {"learning_rate": -1.0},
        {"surprise": 1},
    ],
)
def test_a_stored_recipe_with_something_wrong_is_refused(broken: dict[str, Any]) -> None:
    values = {**BASELINES["v36"].hyperparameters.to_dict(), **broken}

    with pytest.raises((ValueError, KeyError, TypeError)):
        Hyperparameters.from_dict(values)
