"""Search spaces: built in and from files, what is refused, replaying, and shrinking under a cap."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import FixedTrial

from search.exceptions import SpaceError
from search.space.hyperparameters import Constant, Cosine, OneCycle, StepDecay
from search.space.space import Space
from search.space.toml import STANDARD, to_toml
from search.space.transfer import transfer_values
from search_models.layers import Conv
from search_models.network import in_notation
from search_models.spec import Topology
from tests.support.spaces import under

_WITH_TOPOLOGIES = ("standard", "wide")
_NAMES = ("adaptive", *_WITH_TOPOLOGIES)
STANDARD_TABLE = tomllib.loads(STANDARD)


def _file(folder: Path, text: str) -> str:
    path = folder / "my-space.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def _load(folder: Path, text: str) -> Space:
    return Space.load(_file(folder, text))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_space_file_may_begin_with_a_byte_order_mark(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "space.toml"  # as Windows' editors write it, and PowerShell what is printed
    path.write_text("momentum = 0.5\n", encoding=encoding)
    assert Space.load(str(path)).table["momentum"] == 0.5


def _random_values(space: Space, seed: int) -> dict[str, Any]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return dict(study.ask(space.distributions).params)


@pytest.mark.parametrize("name", _NAMES)
def test_a_printed_space_reads_back_as_the_same_space(name: str, tmp_path: Path) -> None:
    again = _load(tmp_path, to_toml(name))

    assert again.table == Space.load(name).table
    assert again.distributions == Space.load(name).distributions


@pytest.mark.parametrize("name", _NAMES)
def test_a_space_that_a_report_keeps_reads_back_as_the_same_space(
    name: str, tmp_path: Path
) -> None:
    own = _load(tmp_path, to_toml(name).replace("momentum = ", "momentum = 0.5  # "))
    assert own.table["momentum"] == 0.5
    assert _load(tmp_path, own.text()).table == own.table


def test_so_does_one_of_a_topology_on_a_base_of_designs(tmp_path: Path) -> None:
    own = _load(tmp_path, 'base = "adaptive"\ntopology = "c3 8, gap, out"\n')
    assert _load(tmp_path, own.text()).table == own.table


def test_a_printed_space_names_its_base() -> None:
    assert [tomllib.loads(to_toml(name))["base"] for name in _NAMES] == list(_NAMES)


def test_only_built_in_spaces_are_printed() -> None:
    with pytest.raises(SpaceError, match="adaptive, standard, wide, not 'narrow'"):
        to_toml("narrow")


def test_standard_searches_the_six_axes_and_fixes_the_rest() -> None:
    searched = set(Space.load("standard").distributions)

    assert searched == {f"width_{i}" for i in range(1, 6)} | {
        "learning_rate",
        "momentum",
        "weight_decay",
        "dropout",
        "rotation_degrees",
        "translation",
        "scale",
        "shear_degrees",
    }


def test_wide_adds_topology_optimizer_schedule_and_batch_size() -> None:
    added = set(Space.load("wide").distributions) - set(Space.load("standard").distributions)

    assert added == {"topology", "width_6", "width_7", "optimizer", "schedule", "batch_size"} | {
        "warmup_share",
        "step_share",
        "step_gamma",
    }


def test_a_file_narrows_widens_and_fixes_and_keeps_the_rest(tmp_path: Path) -> None:
    space = _load(
        tmp_path,
        """
        width_1 = { low = 8, high = 9 }
        learning_rate = { low = 0.001, high = 1, log = true }
        momentum = 0.9
        batch_size = [64, 256]
        weight_decay = { low = 0, high = 0.01 }
        """,
    )
    standard = Space.load("standard").distributions

    assert space.distributions["width_1"] == IntDistribution(8, 9)
    assert space.distributions["learning_rate"] == FloatDistribution(0.001, 1.0, log=True)
    assert space.distributions["batch_size"] == CategoricalDistribution([64, 256])
    assert space.distributions["weight_decay"] == FloatDistribution(0.0, 0.01)
    assert "momentum" not in space.distributions
    assert space.hyperparameters(_random_values(space, 0)).momentum == 0.9
    assert space.distributions["width_2"] == standard["width_2"]


def test_a_file_builds_on_wide_where_it_says_so(tmp_path: Path) -> None:
    space = _load(tmp_path, 'base = "wide"\nmomentum = 0.9\n')

    assert set(space.distributions) == set(Space.load("wide").distributions) - {"momentum"}


def test_the_order_of_a_file_does_not_matter(tmp_path: Path) -> None:
    lines = ["momentum = [0.8, 0.9]", "batch_size = [64, 128]", "optimizer = ['adamw', 'sgd']"]
    space = _load(tmp_path, "\n".join(lines))
    other = _load(tmp_path, "\n".join(reversed(lines)))

    assert list(space.distributions.items()) == list(other.distributions.items())


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("one-cycle", OneCycle(warmup_share=0.2)),
        ("step", StepDecay(0.4, gamma=0.1)),
        ("cosine", Cosine()),
        ("constant", Constant()),
    ],
)
def test_a_file_chooses_the_schedule(schedule: str, expected: object, tmp_path: Path) -> None:
    space = _load(tmp_path, f'schedule = "{schedule}"')

    assert space.hyperparameters(_random_values(space, 0)).schedule == expected


@pytest.mark.parametrize(
    ("name", "off"), [("label_smoothing", 0), ("ema_epochs", 0), ("final_augmentation", 1)]
)
def test_what_no_built_in_space_names_is_off_until_a_file_names_it(
    name: str, off: float, tmp_path: Path
) -> None:
    fixed = _load(tmp_path, f"{name} = 0.25")
    searched = _load(tmp_path, f"{name} = {{ low = 0.0, high = 0.5 }}")
    values = _random_values(searched, 0)

    for space in map(Space.load, _WITH_TOPOLOGIES):
        assert name not in space.distributions
        assert getattr(space.hyperparameters(_random_values(space, 0)), name) == off
    assert name not in fixed.distributions
    assert getattr(fixed.hyperparameters(_random_values(fixed, 0)), name) == 0.25
    assert getattr(searched.hyperparameters(values), name) == values[name] > 0


def test_elastic_distortion_is_off_until_a_file_names_it(tmp_path: Path) -> None:
    searched = _load(tmp_path, "elastic = { low = 0.0, high = 0.03 }")
    values = _random_values(searched, 0)

    for space in map(Space.load, _WITH_TOPOLOGIES):
        assert "elastic" not in space.distributions
        assert space.hyperparameters(_random_values(space, 0)).augmentation.elastic == 0
    assert searched.distributions["elastic"] == FloatDistribution(0.0, 0.03)
    assert searched.hyperparameters(values).augmentation.elastic == values["elastic"] > 0


def _network(space: Space, **values: Any) -> str:
    return str(space.spec({**_random_values(space, 0), **values}))


def test_a_file_may_fix_or_search_the_activation(tmp_path: Path) -> None:
    topology = "topology = 'c3 4, c3+hs 5, gap, out'\n"
    plain = _load(tmp_path, topology)
    fixed = _load(tmp_path, f"{topology}activation = 'hardswish'")
    searched = _load(tmp_path, f"{topology}activation = ['relu', 'hardswish']")

    assert "activation" not in {**plain.distributions, **fixed.distributions}
    assert _network(plain) == "c3 4, c3+hs 5, gap, out"
    assert _network(fixed) == "c3+hs 4, c3+hs 5, gap, out"
    assert searched.distributions["activation"] == CategoricalDistribution(["relu", "hardswish"])
    assert _network(searched, activation="relu") == _network(plain)
    assert _network(searched, activation="hardswish") == _network(fixed)


def test_an_activation_that_no_convolution_leaves_open_is_not_searched(tmp_path: Path) -> None:
    named = "topology = 'c3+hs, gap, out'\nactivation = ['relu', 'hardswish']"

    assert "activation" not in _load(tmp_path, named).distributions


def test_an_activation_that_only_one_space_has_is_left_for_the_sampler() -> None:
    cap = 8_000
    earlier = Space("earlier", STANDARD_TABLE, parameter_cap=cap)
    table = {**STANDARD_TABLE, "activation": ["hardswish"]}
    space = Space("only hard swish", table, parameter_cap=cap)

    found = transfer_values(_random_values(earlier, 0), earlier, under(cap, space))

    assert found is not None
    assert "activation" not in found


def test_shrinking_acts_only_where_there_is_augmentation(tmp_path: Path) -> None:
    none = "rotation_degrees = 0\ntranslation = 0\nscale = 0\nshear_degrees = {}\n"
    shrinking = "final_augmentation = { low = 0.0, high = 0.9 }"
    never = _load(tmp_path, none.format("0") + shrinking)
    sometimes = _load(tmp_path, none.format("[0, 5]") + shrinking)

    assert "final_augmentation" not in never.distributions
    values = _random_values(sometimes, 0)
    recipes = [sometimes.hyperparameters({**values, "shear_degrees": shear}) for shear in (0, 5)]
    assert [recipe.final_augmentation for recipe in recipes] == [1.0, values["final_augmentation"]]


def test_a_file_without_anything_to_search_is_one_recipe(tmp_path: Path) -> None:
    fixed = {
        key: value["low"] if isinstance(value, dict) else value
        for key, value in Space.load("standard").table.items()
    }
    space = _load(tmp_path, "\n".join(f"{key} = {value!r}" for key, value in fixed.items()))

    assert space.distributions == {}
    assert space.hyperparameters({}).spec.parameter_count == space.smallest_count()


@pytest.mark.parametrize(
    ("text", "key", "why"),
    [
        ("learning_rat = 0.1", "learning_rat", "unknown hyperparameter"),
        ("[training]\nepochs = 3", "training", "unknown hyperparameter"),
        ("width_13 = 4", "width_13", "unknown hyperparameter"),
        ("momentum = { low = 0.9, high = 0.9 }", "momentum", "low < high must hold"),
        ("momentum = { low = 0.9, high = 0.8 }", "momentum", "low < high must hold"),
        ("momentum = { low = 0.9 }", "momentum", "a range has low, high"),
        ("momentum = { low = 0.1, high = 0.9, step = 0.1 }", "momentum", "a range has low, high"),
        ("momentum = {}", "momentum", "a range has low, high"),
        ("momentum = { low = 0.1, high = 0.9, log = 1 }", "momentum", "log must be true or false"),
        ("dropout = { low = 0, high = 0.1, log = true }", "dropout", "low > 0 must hold"),
        ("momentum = '0.9'", "momentum", "must be a number, but got '0.9'"),
        ("momentum = true", "momentum", "must be a number, but got True"),
        ("momentum = [0.9, false]", "momentum", "must be a number, but got False"),
        ("momentum = { low = false, high = 0.9 }", "momentum", "must be a number"),
        ("momentum = 1979-05-27", "momentum", "must be a number"),
        ("momentum = nan", "momentum", "must be from 0 to below 1, but got nan"),
        ("momentum = 1", "momentum", "must be from 0 to below 1, but got 1"),
        ("learning_rate = inf", "learning_rate", "must be from"),
        ("learning_rate = { low = 0.1, high = inf }", "learning_rate", "must be from"),
        ("learning_rate = { low = nan, high = 1.0 }", "learning_rate", "must be from"),
        ("learning_rate = [0.1, nan]", "learning_rate", "must be from"),
        ("learning_rate = 0", "learning_rate", "must be from"),
        ("momentum = 1", "momentum", "must be from"),
        ("scale = 1.0", "scale", "must be from 0 to 0.9"),
        ("elastic = 0.3", "elastic", "must be from 0 to 0.25"),
        ("label_smoothing = 1", "label_smoothing", "must be from 0 to below 1"),
        ("ema_epochs = -1", "ema_epochs", "must be from 0 to 1000"),
        ("width_1 = 8.0", "width_1", "must be a whole number, but got 8.0"),
        ("width_1 = { low = 4, high = 8.5 }", "width_1", "must be a whole number"),
        ("width_1 = 0", "width_1", "must be from 1 to 4096"),
        ("batch_size = [32, 0]", "batch_size", "must be from 1 to"),
        ("batch_size = []", "batch_size", "at least one value"),
        ("batch_size = [32, 64, 32]", "batch_size", "name each value once"),
        ("momentum = [0, 0.0]", "momentum", "name each value once"),
        ("topology = ['c3 4, gap, out', 'c3 4, gap, out']", "topology", "name each value once"),
        ("optimizer = 'lion'", "optimizer", "must be one of sgd, nesterov, adam, adamw"),
        ("optimizer = ['sgd', 'lion']", "optimizer", "but got 'lion'"),
        ("optimizer = 3", "optimizer", "must be text, but got 3"),
        ("optimizer = { low = 1, high = 2 }", "optimizer", "a text or a list of texts"),
        ("schedule = 'linear'", "schedule", "one-cycle, step, cosine, constant"),
        ("activation = 'swish'", "activation", "must be one of relu, hardswish"),
        ("topology = 'c3, poool, gap, out'", "topology", "'poool'"),
        ("topology = ''", "topology", "got ''"),
        ("topology = [['c3, gap, out']]", "topology", "must be text"),
        ("topology = 'c3, gap'", "topology", "must have 10 channels"),
        ("topology = 'c3, pool, pool, pool, c3, c3, gap, out'", "topology", "no pixel left"),
        ("topology = 'c3, c3, c3, c3, c3, c3, gap, out'", "topology", "width_6 is missing"),
        (f"topology = '{'c1, ' * 13}gap, out'", "topology", "at most 12 open widths"),
        ("base = 'narrow'", "base", "must be one of adaptive, standard, wide, but got 'narrow'"),
        ("base = 1", "base", "must be one of adaptive, standard, wide, but got 1"),
        ("base = ['wide']", "base", "must be one of adaptive, standard, wide"),
        ("[base]\nname = 'wide'", "base", "must be one of adaptive, standard, wide"),
    ],
)
def test_a_file_with_something_wrong_is_refused_naming_file_and_key(
    text: str, key: str, why: str, tmp_path: Path
) -> None:
    path = _file(tmp_path, text)

    with pytest.raises(SpaceError, match=re.escape(why)) as caught:
        Space.load(path)

    assert path in str(caught.value)
    assert key in str(caught.value).replace(path, "")


def test_a_file_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    path = _file(tmp_path, "momentum: 0.9")

    with pytest.raises(SpaceError, match=f"{re.escape(path)}: the file must be TOML.*line 1"):
        Space.load(path)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(SpaceError, match=r"binary\.toml: the file must be TOML"):
        Space.load(str(path))


def test_a_missing_file_is_refused_with_a_way_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(
        SpaceError, match=r"standard, wide or a TOML file.*none\.toml.*search space"
    ):
        Space.load(str(tmp_path / "none.toml"))


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="cannot be read"):
        Space.load(str(tmp_path))


def test_a_space_for_images_that_its_topology_does_not_fit_is_refused() -> None:
    with pytest.raises(SpaceError, match="standard: topology: An image of 8×8 has no pixel left"):
        Space.load("standard", input_shape=(1, 8, 8))


def test_a_table_without_a_hyperparameter_is_refused() -> None:
    table = {k: v for k, v in Space.load("standard").table.items() if k != "momentum"}

    with pytest.raises(SpaceError, match="momentum is missing"):
        Space("mine", table)


@pytest.mark.parametrize("name", _NAMES)
def test_a_stored_trial_replays_to_the_same_recipe(name: str, tmp_path: Path) -> None:
    space = Space.load(name)
    url = f"sqlite:///{tmp_path / 'study.db'}"
    storage = RDBStorage(url)
    study = optuna.create_study(storage=storage, study_name="s", direction="maximize")
    asked = []
    for value in range(8):
        trial = study.ask()
        asked.append(space.suggest(trial))
        study.tell(trial, float(value))
    storage.remove_session()
    storage.engine.dispose()

    stored = optuna.load_study(study_name="s", storage=url)

    assert [space.suggest(trial) for trial in stored.trials] == asked
    assert space.suggest(stored.best_trial) == asked[-1]


@pytest.mark.parametrize("name", _NAMES)
def test_every_trial_has_the_same_names_and_distributions(name: str) -> None:
    space = Space.load(name)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        trial = study.ask()
        space.suggest(trial)
        study.tell(trial, 0.0)

    for stored in study.trials:
        assert list(stored.distributions.items()) == list(space.distributions.items())


def test_a_width_without_a_convolution_is_ignored() -> None:
    space = Space.load("wide")
    five_widths = space.table["topology"][0]
    values = {**_random_values(space, 0), "topology": five_widths}

    assert space.spec({**values, "width_6": 4}) == space.spec({**values, "width_6": 32})


def test_a_recipe_has_the_values_that_were_suggested() -> None:
    space = Space.load("wide")
    values = _random_values(space, 3)

    recipe = space.suggest(FixedTrial(values))

    assert recipe.learning_rate == values["learning_rate"]
    assert recipe.momentum == values["momentum"]
    assert recipe.weight_decay == values["weight_decay"]
    assert recipe.optimizer == values["optimizer"]
    assert recipe.batch_size == values["batch_size"]
    augmentation = recipe.augmentation
    assert augmentation.rotation_degrees == values["rotation_degrees"]
    assert augmentation.translation == values["translation"]
    assert augmentation.scale == values["scale"]
    assert augmentation.shear_degrees == values["shear_degrees"]


@pytest.mark.parametrize("name", _WITH_TOPOLOGIES)
def test_no_network_of_the_space_is_smaller_than_the_smallest(name: str) -> None:
    space = Space.load(name)

    smallest = space.smallest_count()

    counts = [
        space.spec(space.smallest(_random_values(space, seed))).parameter_count
        for seed in range(40)
    ]
    assert min(counts) == smallest


@given(
    name=st.sampled_from(_WITH_TOPOLOGIES),
    seed=st.integers(0, 10_000),
    cap=st.integers(703, 12_000),
)
@settings(max_examples=80, deadline=None)
def test_shrinking_fits_and_stays_in_range(name: str, seed: int, cap: int) -> None:
    space = Space.load(name)

    shrunk = under(cap, space).shrink(_random_values(space, seed))

    assert space.spec(shrunk).parameter_count < cap
    assert space.invalid_reason(shrunk) is None


@given(seed=st.integers(0, 10_000), cap=st.integers(703, 12_000))
@settings(max_examples=40, deadline=None)
def test_shrinking_leaves_all_but_widths_as_they_are(seed: int, cap: int) -> None:
    space = Space.load("standard")
    values = _random_values(space, seed)

    shrunk = under(cap, space).shrink(values)

    assert {k: v for k, v in shrunk.items() if not k.startswith("width_")} == {
        k: v for k, v in values.items() if not k.startswith("width_")
    }


def test_shrinking_takes_the_largest_factor_that_fits() -> None:
    space = Space.load("standard")
    widest = {
        name: d.high for name, d in space.distributions.items() if isinstance(d, IntDistribution)
    }
    cap = 8_000

    def count(factor: float) -> int:
        return space.spec(
            {name: max(4, round(width * factor)) for name, width in widest.items()}
            | {"dropout": 0.0}
        ).parameter_count

    shrunk = space.spec(under(cap, space).shrink({**widest, "dropout": 0.0})).parameter_count

    assert shrunk == max(n for n in (count(f / 1000) for f in range(1001)) if n < cap)
    assert shrunk > 0.9 * cap


def test_what_fits_is_not_shrunk() -> None:
    space = Space.load("standard")
    values = _random_values(space, 0)

    assert under(10**9, space).shrink(values) == values


def test_shrinking_keeps_to_the_choices_of_a_width(tmp_path: Path) -> None:
    space = _load(tmp_path, "width_2 = [28, 5, 16]\nwidth_3 = [7]")
    values = {**_random_values(space, 0), "width_2": 28, "width_3": 7}

    shrunk = under(1_500, space).shrink(values)

    assert space.spec(shrunk).parameter_count < 1_500
    assert shrunk["width_2"] in {5, 16}
    assert shrunk["width_3"] == 7


def test_shrinking_changes_a_topology_that_does_not_fit_at_all(tmp_path: Path) -> None:
    space = _load(tmp_path, "topology = ['c3 30, c3 30, gap, out', 'c3, c3, gap, out']")
    values = {**_random_values(space, 0), "topology": "c3 30, c3 30, gap, out"}

    shrunk = under(2_000, space).shrink(values)

    assert shrunk["topology"] == "c3, c3, gap, out"
    assert space.spec(shrunk).parameter_count < 2_000


@pytest.mark.parametrize("seed", range(4))
def test_parameters_are_counted_without_building_the_network(seed: int) -> None:
    table = Space.load("standard").table
    fixed = {
        **table,
        "topology": ["c3+bias, c1 7, d3, c3, drop, pool, c3p1 10, gap", "c3, gap, out"],
    }
    for cap in (None, 3_000):
        for space in (
            *(Space.load(name, parameter_cap=cap) for name in ("standard", "wide")),
            Space("own", fixed, parameter_cap=cap),
            *(
                Space.load("adaptive", parameter_cap=3_000, input_shape=shape, n_classes=7)
                for shape in ((1, 28, 28), (3, 20, 64))
            ),
        ):
            values = _random_values(space, seed)
            assert space.count(values) == space.spec(values).parameter_count


def test_a_cap_that_nothing_fits_is_refused_naming_the_smallest_count() -> None:
    space = Space.load("standard")
    smallest = space.smallest_count()

    with pytest.raises(SpaceError, match=rf"budget is {smallest}.*standard has {smallest};"):
        under(smallest, space).check_fits()
    with pytest.raises(SpaceError, match=f"take a budget of {smallest + 1} or more"):
        under(smallest - 1, space).check_fits()


def test_what_is_to_be_kept_is_not_shrunk() -> None:
    space = Space.load("standard")
    values = {**_random_values(space, 0), "width_1": 20}

    shrunk = under(1_500, space).shrink(values, keep={"width_1"})

    assert shrunk["width_1"] == 20
    assert space.spec(shrunk).parameter_count < 1_500


def test_a_cap_one_above_the_smallest_count_is_enough() -> None:
    space = Space.load("standard")

    under(space.smallest_count() + 1, space).check_fits()
    with pytest.raises(SpaceError):
        under(space.smallest_count(), space).check_fits()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"width_1": 8, "momentum": 0.9}, None),
        ({}, None),
        ({"width_1": 21}, "width_1 = 21 is outside its range"),
        ({"width_1": 8.5}, "width_1 = 8.5 is outside its range"),
        ({"width_1": 8.0}, "width_1 = 8.0 is outside its range"),
        ({"width_1": "8"}, "width_1 = '8' is outside its range"),
        ({"width_1": True}, "width_1 = True is outside its range"),
        ({"momentum": 0.99}, "momentum = 0.99 is outside its range"),
        ({"momentum": "fast"}, "momentum = 'fast' is outside its range"),
        ({"momentum": None}, "momentum = None is outside its range"),
        ({"momentum": float("nan")}, "momentum = nan is outside its range"),
        ({"batch_size": 128}, "batch_size is not searched"),
        ({"width_9": 8}, "width_9 is not searched"),
        ({"epochs": 8}, "epochs is not searched"),
    ],
)
def test_hand_made_values_are_refused_with_the_reason(
    values: dict[str, Any], reason: str | None
) -> None:
    refused = Space.load("standard").invalid_reason(values)

    if reason is None:
        assert refused is None
    else:
        assert refused is not None
        assert reason in refused


@pytest.mark.parametrize("value", [{"optimizer": "sgd"}, {"batch_size": 100}, {"topology": 5}])
def test_hand_made_choices_that_are_not_in_the_list_are_refused(value: dict[str, Any]) -> None:
    assert "outside its range" in (Space.load("wide").invalid_reason(value) or "")


def _filled(cap: int, **changes: Any) -> Space:
    table = {**Space.load("standard").table, "budget_share": 1.0, **changes}
    return Space("filled", table, parameter_cap=cap)


@settings(deadline=None, max_examples=50)
@given(cap=st.integers(200, 40_000), seed=st.integers(0, 10_000))
def test_scaled_widths_fill_the_budget_and_stay_under_it(cap: int, seed: int) -> None:
    space = _filled(cap)
    values = _random_values(space, seed)
    spec = in_notation(space.spec(values))
    assert spec.parameter_count < cap
    # One more step of all widths would be over it.
    widths = [layer.channels for layer in spec.layers if isinstance(layer, Conv)]
    topology = Topology(space.table["topology"])
    assert topology.spec([width + 1 for width in widths], 0.0).parameter_count >= cap


def test_scaled_widths_keep_their_proportions() -> None:
    values = {**_random_values(_filled(8_000), 0)}
    values |= {"width_1": 4, "width_2": 8, "width_3": 16, "width_4": 16, "width_5": 32}
    spec = in_notation(_filled(20_000).spec(values))
    widths = [layer.channels for layer in spec.layers if isinstance(layer, Conv)]
    assert [width / widths[0] for width in widths] == pytest.approx([1, 2, 4, 4, 8], rel=0.1)
    half = _filled(20_000, budget_share=0.5).spec(values).parameter_count
    assert 9_000 < half < 10_000


def test_a_topology_without_open_widths_has_nothing_to_scale() -> None:
    space = _filled(8_000, topology="c3 8, pool, c3 20, c1 2, gap, out")
    assert space.smallest_count() == space.spec(_random_values(space, 1)).parameter_count
    assert str(space.spec(_random_values(space, 0))) == "c3 8, pool, c3 20, c1 2, gap, out"


@pytest.mark.parametrize("share", [[0, 0.5], {"low": 0.0, "high": 1.0}])
def test_widths_as_drawn_cannot_be_one_choice_of_several(share: Any) -> None:
    with pytest.raises(SpaceError, match="must stand alone"):
        _filled(8_000, budget_share=share)


def test_a_table_that_does_not_name_the_share_has_widths_as_drawn() -> None:
    table = {k: v for k, v in Space.load("standard").table.items() if k != "budget_share"}
    space = Space("earlier", table, parameter_cap=8_000)
    values = _random_values(space, 0)
    layers = in_notation(space.spec(values)).layers
    widths = [layer.channels for layer in layers if isinstance(layer, Conv)]
    assert widths == [values[f"width_{i}"] for i in range(1, 6)]


# --- With what a search begins ---


def test_a_search_may_begin_with_some_values_and_leave_others_open() -> None:
    rate = {"low": 0.01, "high": 0.1, "first": 0.05}
    space = Space("one", {**STANDARD_TABLE, "learning_rate": rate, "momentum": [0.8, 0.9]})
    first = under(8000, space).first()
    assert first["learning_rate"] == 0.05
    assert "momentum" not in first
    assert under(8000, Space.load("wide")).first() == {}


def test_a_first_network_over_the_cap_is_not_tried() -> None:
    drawn = Space("drawn", {**STANDARD_TABLE, "budget_share": 0.0}, parameter_cap=5000)
    count = drawn.spec(under(100_000, drawn).first()).parameter_count
    assert under(count, drawn).first() == {}
    assert under(count + 1, drawn).first() != {}


@pytest.mark.parametrize("first", [0.001, 0.5, "middle"])
def test_a_first_value_outside_its_range_is_refused(first: Any) -> None:
    rate = {"low": 0.01, "high": 0.1, "first": first}
    with pytest.raises(SpaceError, match="learning_rate"):
        Space("wrong", {**STANDARD_TABLE, "learning_rate": rate})
