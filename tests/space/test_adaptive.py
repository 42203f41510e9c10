"""The default space: it adapts to images, cap and epochs, and its networks always fill the cap."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution

from search.exceptions import SpaceError
from search.space.adaptive import Situation, adaptive_table
from search.space.design import topology_and_widths
from search.space.space import Space
from search.space.toml import to_toml
from search.space.transfer import transfer_values
from search_models.layers import Conv, DepthwiseConv, Pool
from search_models.network import in_notation

_SITUATIONS = [
    ((1, 28, 28), 10, Situation(parameter_cap=500)),
    ((1, 28, 28), 10, Situation(parameter_cap=8_000)),
    ((1, 28, 28), 10, Situation(parameter_cap=25_000, epochs=1)),
    ((3, 32, 32), 8, Situation(n_training=1_920, parameter_cap=8_000)),
    ((1, 8, 8), 10, Situation(n_training=1_079, parameter_cap=3_000)),
    ((1, 12, 12), 2, Situation(n_training=60, epochs=100, parameter_cap=1_200)),
    ((3, 20, 60), 5, Situation(n_training=1_000, parameter_cap=1_200)),
    ((3, 128, 128), 60, Situation(n_training=100_000, epochs=3, parameter_cap=200_000)),
]


def _space(shape: tuple[int, int, int], n_classes: int, situation: Situation) -> Space:
    return Space.load(
        "adaptive",
        input_shape=shape,
        n_classes=n_classes,
        parameter_cap=situation.parameter_cap,
        n_training=situation.n_training,
        epochs=situation.epochs,
    )


def _draws(space: Space, n: int) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [dict(study.ask(space.distributions).params) for _ in range(n)]


@pytest.mark.parametrize(("shape", "n_classes", "situation"), _SITUATIONS)
def test_every_network_fills_the_cap_and_sees_the_whole_image(
    shape: tuple[int, int, int], n_classes: int, situation: Situation
) -> None:
    space = _space(shape, n_classes, situation)
    cap = situation.parameter_cap
    assert cap is not None
    for values in [space.first(), *_draws(space, 30)]:
        recipe = space.hyperparameters(values)
        count = recipe.spec.parameter_count
        assert 0.95 * cap < count < cap
        assert recipe.batch_size <= situation.n_training / 2
        # What a unit of the last map sees, along the shorter side.
        sees, step = 1, 1
        for layer in in_notation(recipe.spec).layers:
            if isinstance(layer, Conv | DepthwiseConv):
                sees += (layer.kernel - 1) * step
            elif isinstance(layer, Pool):
                sees, step = sees + step, 2 * step
        assert sees >= 0.4 * min(shape[1:])


@pytest.mark.parametrize(("shape", "n_classes", "situation"), _SITUATIONS)
def test_the_first_trial_is_said_in_full(
    shape: tuple[int, int, int], n_classes: int, situation: Situation
) -> None:
    space = _space(shape, n_classes, situation)
    assert space.first().keys() == space.distributions.keys()
    assert space.invalid_reason(space.first()) is None


def test_small_data_get_small_batches() -> None:
    assert adaptive_table(Situation())["batch_size"]["first"] == 32
    assert adaptive_table(Situation(n_training=2_000))["batch_size"]["first"] == 8


def test_the_fewer_images_are_seen_the_less_augmentation_comes_first() -> None:
    seen = (Situation(n_training=600), Situation(epochs=1), Situation(), Situation(epochs=100))
    firsts = [adaptive_table(situation)["rotation_degrees"]["first"] for situation in seen]
    assert firsts[0] == 0.0 < firsts[1] < firsts[2] < firsts[3] == 8.0


@pytest.mark.parametrize("n_channels", [1, 3])
def test_no_search_begins_with_mirrored_images(n_channels: int) -> None:
    table = adaptive_table(Situation(input_shape=(n_channels, 32, 32)))
    assert table["flip"] == {"choices": [0.0, 0.5], "first": 0.0}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('block = "plain"\npools = 2\n', 'add the line base = "adaptive"'),
        ('base = "wide"\ngrowth = 3.0\n', "growth must stand on a base of designs"),
        ('topology = "c3 8, gap, out"\nblock = "plain"\n', "must not stand beside a topology"),
        (
            'base = "adaptive"\ntopology = "c3 8, gap, out"\nblocks_1 = 2\n',
            "blocks_1 must not stand beside a topology",
        ),
    ],
)
def test_what_is_said_of_a_design_is_not_passed_over(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(SpaceError, match=words):
        _written(tmp_path, text)


@pytest.mark.parametrize(
    ("block", "padding", "topology", "widths"),
    [
        ("plain", 1, "c3p1, c3p1, drop, pool, c3p1, drop, out+bias, gap", (64, 128, 256)),
        ("plain", 0, "c3, c3, drop, pool, c3p1, drop, out+bias, gap", (64, 128, 256)),
        (
            *("separable", 1),
            *("c3p1, d3p1, c1, drop, pool, d3p1, c1, d3p1, drop, out+bias, gap", (64, 128, 256)),
        ),
    ],
)
def test_a_design_is_a_topology_and_proportions(
    block: str, padding: int, topology: str, widths: tuple[int, ...]
) -> None:
    values = {"block": block, "pools": 1, "blocks_1": 1, "blocks_2": 1, "growth": 4.0}
    values |= {"padding": padding, "dropout": 0.1}
    assert topology_and_widths(values, (1, 12, 12)) == (topology, widths)
    without = topology.replace("drop, ", "")
    assert topology_and_widths({**values, "dropout": 0.0}, (1, 12, 12)) == (without, widths)


def test_an_image_without_room_for_a_pool_has_none() -> None:
    values = {"block": "plain", "pools": 2, "growth": 1.0, "padding": 1, "dropout": 0.1}
    values |= {f"blocks_{i}": 1 for i in (1, 2, 3)}
    topology, _ = topology_and_widths(values, (1, 3, 40))
    assert topology.count("pool") == 1


def _written(folder: Path, text: str) -> Space:
    path = folder / "space.toml"
    path.write_text(text)
    return Space.load(str(path), parameter_cap=8_000)


def test_a_file_narrows_it(tmp_path: Path) -> None:
    space = _written(tmp_path, 'base = "adaptive"\nblock = "plain"\npools = 2\nflip = 0.0\n')
    assert not {"block", "pools", "flip", "blocks_4"} & space.distributions.keys()
    assert "d3" not in str(space.hyperparameters(space.first()).spec)


def test_a_topology_takes_the_place_of_the_design(tmp_path: Path) -> None:
    text = 'base = "adaptive"\ntopology = "c3, pool, c3, out, gap"\nwidth_1 = 4\nwidth_2 = 8\n'
    space = _written(tmp_path, text)
    assert not {"block", "pools", "growth"} & space.distributions.keys()
    recipe = space.hyperparameters(_draws(space, 1)[0])
    assert str(recipe.spec).count("pool") == 1
    assert recipe.optimizer == "adamw"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('block = "residual"', "block: must be one of separable, plain, but got 'residual'"),
        ("budget_share = 0", "budget_share: must be above 0 where no topology is named"),
        ("batch_size = { choices = [8, 16] }", "batch_size: a choice has choices, a list, and fi"),
        ("batch_size = { choices = [8], first = 16 }", "batch_size: first must be one of the cho"),
        ("batch_size = { choices = [8], first = 8.0 }", "batch_size: must be a whole number, but"),
        ("pools = 9", "pools: must be from 0 to 5, but got 9"),
    ],
)
def test_what_cannot_be_is_refused(line: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match=reason):
        _written(tmp_path, f'base = "adaptive"\n{line}\n')


def test_a_choice_may_say_with_which_value_a_search_begins(tmp_path: Path) -> None:
    space = _written(tmp_path, "batch_size = { choices = [16, 64], first = 64 }\n")
    assert space.distributions["batch_size"] == CategoricalDistribution([16, 64])
    assert space.first()["batch_size"] == 64


def test_a_design_goes_over_to_another_cap_and_not_to_topologies() -> None:
    source, target = (_space((1, 28, 28), 10, Situation(parameter_cap=n)) for n in (8_000, 1_000))
    values = _draws(source, 1)[0]
    found = transfer_values(values, source, target)
    assert found is not None
    assert target.invalid_reason(found) is None
    assert found["block"] == values["block"]
    assert target.spec(found).parameter_count < 1_000
    assert transfer_values(values, source, Space.load("standard", parameter_cap=8_000)) is None


def test_what_is_printed_is_what_is_searched() -> None:
    situation = Situation(parameter_cap=1_000, epochs=3)
    table = tomllib.loads(to_toml("adaptive", situation))
    assert {**table, "base": "adaptive"} == {**adaptive_table(situation), "base": "adaptive"}
