"""Files of a user's that build networks: what they may do, and what is said of those that fail."""

from __future__ import annotations

import functools
import importlib.util
import os
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch

from search.exceptions import InputError
from search.results.own_changes import own_changes
from search.space.file_space import FileSpace
from search.space.hyperparameters import Hyperparameters
from search.space.network_files import (
    check_network,
    load_network,
    network_path,
    read_network,
)
from search.space.probe import Probe, probe
from search.space.space import Space
from search.space.transfer import transfer_values
from search.tuner.options import SearchRequest
from search_models.own import OwnSpec, named_file
from tests.support.own_networks import RESIDUAL, UNSCALED


def space_of(
    folder: Path, text: str, *, cap: int | None = 3000, name: str = "adaptive"
) -> FileSpace:
    (folder / "net.py").write_text(text)
    source = read_network(folder / "net.py")
    load_network(source)
    return FileSpace.load_for(name, source, parameter_cap=cap)


def drawn(space: FileSpace, **values: Any) -> Hyperparameters:
    return space.suggest(optuna.trial.FixedTrial({**space.first(), **values}))


def network(body: str, head: str = "") -> str:
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return f"import torch\nfrom torch import nn\n{head}\n\ndef network(trial, shape, n):\n{lines}"


def logits(forward: str) -> str:
    """The body of a function whose network gives these for images `x`."""
    return (
        "class Net(nn.Module):\n"
        "    def __init__(s):\n"
        "        super().__init__()\n"
        "        s.a = nn.Linear(784, n)\n"
        f"    def forward(s, x):\n        return {forward}\n"
        "return Net()"
    )


LINEAR = "nn.Sequential(nn.Flatten(), nn.Linear(784, n))"
CALL = "class Net(nn.Module):\n    def __init__(self, n):\n        super().__init__()\n"
FAILING = [
    (network("return 3"), "must return a torch.nn.Module, but it returns int"),
    (network("return Net(n)", "import no_such_thing"), "(line 3: import no_such_thing)"),
    (network("return Net(n)", "import sys\nsys.exit(3)"), "SystemExit: 3 (line 4: sys.exit(3))"),
    (network("return nn.Linear(28, trial.number)"), "but no 'number'"),
    (network("return nn.Flatten()"), "must have trainable parameters"),
    (network("return nn.Sequential(nn.Flatten(), nn.Linear(784, 3))"), "it gives (2, 3)"),
    (network("return nn.Sequential(nn.Conv2d(1, 4, 30), nn.Flatten())"), "images of 1×28×28, but"),
    (
        network(
            "return Net(n)",
            f"{CALL}        self.a = nn.Linear(9, n)\n"
            "    def forward(self, x):\n        return self.a(x[:, :, 7])",
        ),
        "line 8 in forward: return self.a(x[:, :, 7])",
    ),
    (
        network(f"net = {LINEAR}\nnn.init.constant_(net[1].bias, float('nan'))\nreturn net"),
        "the weights of a new network must be finite",
    ),
    (
        network(
            f"import random\ntrial.suggest_int(f'n{{random.random()}}', 1, 2)\nreturn {LINEAR}"
        ),
        "must suggest",
    ),
    (
        network(f"trial.suggest_int('momentum', 1, 2)\nreturn {LINEAR}"),
        "must not suggest 'momentum'",
    ),
    (network(f"trial.suggest_int('a', 3, 1)\nreturn {LINEAR}"), "line 6 in network: trial.sugg"),
    (
        f"{network(f'return {LINEAR}')}\ndef training(trial):\n    return {{'speed': 3}}\n",
        "it returns speed = 3",
    ),
    (
        f"{network(f'return {LINEAR}')}\ntraining = lambda trial: {{'budget_share': 0.5}}\n",
        "it returns budget_share = 0.5",
    ),
    (
        f"{network(f'return {LINEAR}')}\ndef training(trial):\n    return {{'momentum': 3}}\n",
        "momentum: must be from 0 to below 1, but got 3",
    ),
    (network("return nn.Sequential(nn.Flatten(), nn.Linear(784, 99))"), "has 77,715"),
    (network("return network(trial, shape, n)"), "(line 6 in network: return network(trial"),
    (network("return NET", f"n = 10\nNET = {LINEAR}"), "must build a new network each time"),
    (network(logits("s.a(x.flatten(1)) / 0")), "the logits of a new network must be finite"),
    (network(logits("s.a(x.flatten(1)).argmax(1, True).repeat(1, 10)")), "of torch.int64"),
    (network(logits("s.a(x.flatten(1)).detach()")), "learns from 1×28×28, but RuntimeError"),
    (network(logits("1 / (not s.training) * s.a(x.flatten(1))")), "ZeroDivisionError"),
    (network(f"trial.suggest_categorical('a', [(1, 2)])\nreturn {LINEAR}"), "but got (1, 2);"),
    (network(f"trial.suggest_categorical('a', [[1, 2]])\nreturn {LINEAR}"), "but got [1, 2];"),
    (network(f"trial.suggest_categorical('a', ['\\udc00'])\nreturn {LINEAR}"), "but got '\\udc00'"),
    (network(f"trial.suggest_float('a', 0, float('inf'))\nreturn {LINEAR}"), "but got 0 to inf"),
    (network(f"trial.suggest_int('a', 1, 3.5)\nreturn {LINEAR}"), "but got 1 to 3.5"),
    (network(f"trial.suggest_int('a', 1, 3, step=0)\nreturn {LINEAR}"), "`step > 0` must hold"),
    (network(f"trial.suggest_int('a' * 600, 1, 3)\nreturn {LINEAR}"), "at most 512 characters"),
    (
        network(f"trial.suggest_int('a', 1, 3)\ntrial.suggest_int('a', 1, 4)\nreturn {LINEAR}"),
        "was int from 1 to 3, and now is int from 1 to 4",
    ),
]


@pytest.mark.parametrize(("text", "words"), FAILING, ids=[words for _, words in FAILING])
def test_a_file_that_fails_is_told_by_its_own_lines(text: str, words: str, tmp_path: Path) -> None:
    cap = 50_000 if "has 77" in words else 1_000_000
    with pytest.raises(InputError) as refused:
        probe(space_of(tmp_path, text, cap=cap))
    assert words in str(refused.value)
    assert "net.py" in str(refused.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"def network(:\n", "(invalid syntax in line 1: def network(:)"),
        (b"def net(trial):\n    return 3\n", "must have a function network"),
        (b"\xff\xfe\x00", "must name a text in UTF-8"),
        (b"#" * 200_000, "must have at most 100,000 bytes"),
    ],
)
def test_what_is_no_such_file_is_told_before_it_is_run(
    content: bytes, words: str, tmp_path: Path
) -> None:
    (tmp_path / "net.py").write_bytes(content)
    with pytest.raises(InputError, match="net") as refused:
        read_network(tmp_path / "net.py")
    assert words in str(refused.value)
    with pytest.raises(InputError, match=r"there is no .*none\.py"):
        read_network(tmp_path / "none.py")


def test_what_is_no_file_with_contents_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "net.py")
    for path in (tmp_path / "net.py", tmp_path, Path("/dev/zero")):
        with pytest.raises(InputError, match="must name a file that can be read"):
            read_network(path)


def test_a_network_may_be_named_by_its_function(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(UNSCALED)
    specification = importlib.util.spec_from_file_location("mine", file)
    assert specification is not None
    assert specification.loader is not None
    mine = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(mine)
    assert network_path(mine.network) == file
    assert SearchRequest(1000, 1, network=mine.network).network == file
    partly = functools.partial(mine.network, None)
    for function in (logits, lambda *_: None, partly, torch.nn.ReLU):
        with pytest.raises(InputError, match="must be the function network of a Python file"):
            network_path(function)


def test_a_file_that_begins_a_search_as_it_is_read_is_refused(tmp_path: Path) -> None:
    text = UNSCALED + (
        "\n\nfrom search.space.network_files import load_network, read_network\n\n"
        "load_network(read_network(__file__))\n"
    )
    with pytest.raises(InputError, match="must not begin a search as it is read"):
        space_of(tmp_path, text)


def test_what_a_file_sets_of_the_whole_process_stays_with_its_own_lines(tmp_path: Path) -> None:
    def state() -> tuple[object, ...]:
        threads = torch.get_num_threads()
        return Path.cwd(), torch.get_default_dtype(), torch.is_grad_enabled(), threads

    sets = (
        f"os.chdir({str(tmp_path)!r})\ntorch.set_grad_enabled(False)\n"
        f"torch.set_num_threads({torch.get_num_threads() + 1})\n"
    )
    body = 'return nn.Sequential(nn.Flatten(), nn.Linear(784, search.width("w")), nn.LazyLinear(n))'
    head = "import os, search\ntorch.set_default_dtype(torch.float64)\n"
    before = state()
    space = space_of(tmp_path, network(sets + body, head=head + sets), cap=9000)
    assert probe(space).scales
    assert state() == before


def test_what_a_file_does_is_found_by_running_it(tmp_path: Path) -> None:
    seen = probe(space_of(tmp_path, RESIDUAL))
    names = ("rate", "stem", "with_block")
    assert seen == Probe(names, ("kernel",), scales=True, taken_over=("learning_rate", "momentum"))


def test_widths_are_scaled_until_the_network_fills_the_cap(tmp_path: Path) -> None:
    for cap in (300, 3_000, 100_000):
        space = space_of(tmp_path, RESIDUAL, cap=cap)
        counts = set()
        for stem in (8, 20, 64):
            recipe = drawn(space, stem=stem, with_block=True, kernel=3, rate=0.05)
            assert isinstance(recipe.spec, OwnSpec)
            width = dict(recipe.spec.values)["stem"]
            assert isinstance(width, int)
            module = recipe.spec.build()
            count = sum(p.numel() for p in module.parameters())
            assert recipe.spec.parameter_count == count < cap
            # One channel more: of the stem, of the block and its norm, and of the output.
            wider = width + 1
            assert 10 * wider + 9 * wider**2 + 2 * wider + 10 * wider + 10 >= cap
            counts.add(count)
        assert len(counts) == 1  # one width alone has no proportion


def test_a_file_may_say_itself_how_its_values_are_scaled(tmp_path: Path) -> None:
    text = UNSCALED + (
        "\n\ndef scaled(values, factor):\n"
        "    return {'width': max(1, int(values['width'] * factor))}\n"
    )
    space = space_of(tmp_path, text, cap=1000)
    assert probe(space).scales
    assert drawn(space, width=4).spec.parameter_count == 20 * 49 + 10


def test_shared_parameters_count_once_and_buffers_not_at_all(tmp_path: Path) -> None:
    text = network(
        "a = nn.Linear(784, 784)\n"
        "b = nn.BatchNorm1d(784)\n"
        "net = nn.Sequential(nn.Flatten(), a, nn.ReLU(), a, b, nn.LazyLinear(n))\n"
        "net[4].weight.requires_grad_(False)\n"
        "return net"
    )
    space = space_of(tmp_path, text, cap=None)
    spec = drawn(space).spec
    assert spec.parameter_count == 785 * 784 + 784 + 7850
    assert sum(row.parameters for row in spec.layer_table()) == spec.parameter_count
    assert spec.build()(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_layers_that_take_no_hooks_have_rows_as_well(tmp_path: Path) -> None:
    space = space_of(tmp_path, network(f"return torch.jit.script({LINEAR})"), cap=None)
    assert [row.parameters for row in drawn(space).spec.layer_table()] == [7850]


def test_a_width_that_the_network_does_not_use_stays_finite(tmp_path: Path) -> None:
    space = space_of(
        tmp_path, network(f"search.width('a')\nreturn {LINEAR}", "import search"), cap=9000
    )
    assert drawn(space, a=20).spec.parameter_count == 7850


def test_a_file_that_reads_the_value_of_a_tensor_is_counted_all_the_same(tmp_path: Path) -> None:
    text = network("n_wide = int(torch.tensor([5]).item())\nreturn nn.LazyConv2d(n, n_wide)")
    text = text.replace(
        "return nn.LazyConv2d(n, n_wide)",
        "return nn.Sequential(nn.LazyConv2d(n, n_wide), nn.AdaptiveAvgPool2d(1), nn.Flatten())",
    )
    assert drawn(space_of(tmp_path, text)).spec.parameter_count == 26 * 10


def test_a_recipe_comes_back_from_what_is_stored_without_the_file(tmp_path: Path) -> None:
    recipe = drawn(space_of(tmp_path, RESIDUAL), stem=9, with_block=False, rate=0.02)
    stored = recipe.to_dict()
    assert Hyperparameters.from_dict(stored) == recipe
    assert (recipe.learning_rate, recipe.momentum) == (0.02, 0.9)
    assert stored["spec"]["fingerprint"] == read_network(tmp_path / "net.py").fingerprint
    with pytest.raises(ValueError, match="was not named"):
        OwnSpec("gone.py", "0" * 64, (), 5).build()


@pytest.mark.filterwarnings("ignore:The distribution is specified")
def test_an_ablation_changes_a_number_to_the_ends_that_can_be_drawn(tmp_path: Path) -> None:
    body = "kernel = trial.suggest_int('kernel', 1, 6, step=2)\n"
    body += "return nn.Sequential(nn.Conv2d(1, n, kernel), nn.AdaptiveAvgPool2d(1), nn.Flatten())"
    spec = drawn(space_of(tmp_path, network(body)), kernel=3).spec
    assert isinstance(spec, OwnSpec)
    assert [change for change, _ in own_changes(spec)] == ["kernel 1", "kernel 5"]


def test_how_it_is_trained_may_stand_in_a_space_file(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('base = "adaptive"\nbatch_size = 32\n')
    space = space_of(tmp_path, UNSCALED, cap=None, name=str(file))
    assert drawn(space, width=5).batch_size == 32
    file.write_text('base = "adaptive"\ngrowth = 2.0\n')
    with pytest.raises(InputError, match="growth must not be said beside --network"):
        space_of(tmp_path, UNSCALED, name=str(file))


def test_only_the_file_of_a_network_will_do(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(UNSCALED)
    source = read_network(tmp_path / "net.py")
    assert check_network(tmp_path / "net.py", source, of="it", how="it") == source
    assert check_network(None, None, of="it", how="it") is None
    (tmp_path / "net.py").write_text(UNSCALED.replace("200", "300"))
    with pytest.raises(InputError, match='"width", 4, 300'):
        check_network(tmp_path / "net.py", source, of="it", how="it")
    with pytest.raises(InputError, match="must be left out"):
        check_network(tmp_path / "net.py", None, of="it", how="it")
    assert named_file(read_network(tmp_path / "net.py").fingerprint) is None  # none of it was run


@pytest.mark.parametrize(
    ("name", "shape", "values"),
    [
        (
            "residual",
            (1, 28, 28),
            {
                f"{what}_of_stage_{i}": v
                for i in (1, 2, 3)
                for what, v in (("width", 20), ("kernel", 3), ("blocks", 2))
            },
        ),
        ("mobilenet", (3, 32, 32), {"width_multiplier": 0.5, "dropout": 0.1}),
    ],
)
def test_the_networks_of_the_pages_are_built_under_the_cap(
    name: str, shape: tuple[int, int, int], values: dict[str, Any], tmp_path: Path
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "networks" / f"{name}.py").read_text()
    (tmp_path / "net.py").write_text(text)
    source = read_network(tmp_path / "net.py")
    load_network(source)
    cap = 100_000
    space = FileSpace.load_for("adaptive", source, input_shape=shape, parameter_cap=cap)
    spec = drawn(space, stages=3, **values).spec
    assert cap / 2 < spec.parameter_count < cap
    assert spec.build().eval()(torch.zeros(1, *shape)).shape == (1, 10)


def test_values_of_an_earlier_file_are_taken_over_where_they_still_mean_something(
    tmp_path: Path,
) -> None:
    earlier = space_of(tmp_path, RESIDUAL)
    own = {"stem": 20, "with_block": True, "kernel": 3, "rate": 0.05}
    values = {**earlier.first(), "momentum": 0.9, **own}
    later = space_of(tmp_path, RESIDUAL.replace('"kernel", 1, 3', '"kernel", 5, 7'), cap=1000)
    found = transfer_values(values, earlier, later)
    assert found is not None
    assert found.keys() == later.distributions.keys() | {"stem", "with_block", "rate"}
    assert (found["stem"], found["with_block"], found["rate"]) == (20, True, 0.05)
    assert transfer_values(values, earlier, earlier) == {**earlier.first(), **own}
    ours = Space.load("adaptive", parameter_cap=1000)
    of_training = transfer_values(ours.first(), ours, later)
    assert of_training is not None
    assert of_training.keys() == later.distributions.keys()
    assert transfer_values(values, earlier, ours) is None
