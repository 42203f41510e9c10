"""`search export`: files that do elsewhere what the network does here."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F

import search
from search.data.dataset import Examples
from search.data.load import load_dataset
from search.data.normalization import Normalization
from search.exceptions import ExportError
from search.export.onnx_file import check_parity, to_onnx
from search.export.python_program import Source, baseline_source, card_source, to_python
from search.space.baselines import BASELINES
from search.space.hyperparameters import (
    Augmentation,
    Constant,
    Cosine,
    Hyperparameters,
    OneCycle,
    Schedule,
    StepDecay,
)
from search.space.presets import preset_folder
from search.training.augment import draw_warps, warp
from search.training.card import read_card
from search.training.weights import Classifier
from search_models.convnet import ConvNet
from search_models.network import in_notation
from search_models.spec import ModelSpec
from tests.conftest import Command, run_here

DIGITS_MEAN, DIGITS_STD = 0.3, 0.35
SMALL = "c3 4, pool, c3 6, pool, c3 8, gap, out"
EVERYTHING = Hyperparameters(
    spec=ModelSpec.parse(
        "c3p1+bias+hs 6, d3p1, c1 8, drop 0.05, pool, d3+hs, pool, c3 12, drop 0.05, gap, out+bias"
    ),
    learning_rate=0.012345678,
    optimizer="adamw",
    weight_decay=1e-5,
    schedule=Cosine(),
    batch_size=64,
    augmentation=Augmentation(
        rotation_degrees=10, translation=0.1, scale=0.2, shear_degrees=10, elastic=0.05, flip=0.5
    ),
    gradient_clip=1.0,
    label_smoothing=0.1,
    ema_epochs=0.5,
    final_augmentation=0.3,
)


def digits_source(recipe: Hyperparameters) -> Source:
    return Source("Made by a test.", recipe, "digits", (DIGITS_MEAN,), (DIGITS_STD,), epochs=2)


def program(source: Source, folder: Path) -> ModuleType:
    """The program that is written for a source, as a module."""
    path = folder / "program.py"
    path.write_text(to_python(source, file_name=path.name))
    return program_at(path)


def program_at(path: Path) -> ModuleType:
    """A program as a module."""
    spec = importlib.util.spec_from_file_location("program", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shipped_copy(folder: Path, **changes: Any) -> Path:
    """A copy of a shipped network whose card says something else."""
    copy = Path(shutil.copytree(preset_folder("best-1-epoch"), folder / "weights"))
    card = json.loads((copy / "card.json").read_text())
    (copy / "card.json").write_text(json.dumps({**card, **changes}))
    return copy


def random_classifier(notation: str) -> Classifier:
    """A network with weights and statistics as training might leave them."""
    torch.manual_seed(0)
    network = ConvNet(ModelSpec.parse(notation))
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5) if "var" in name else tensor.normal_(0, 0.3)
    shape = network.spec.input_shape
    return Classifier(network, Normalization((0.2,), (0.4,)), shape).eval()


def test_an_onnx_file_gives_the_logits_of_the_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = read_card(preset_folder("best-1-epoch"))
    folder = shipped_copy(tmp_path, dataset={"name": "digits", "fingerprint": card.fingerprint})
    out = tmp_path / "new" / "net.onnx"
    assert run_here("export", str(folder), "--out", str(out), "--seed", "2") == 0
    printed = capsys.readouterr().out
    assert "with PyTorch on 1,000 images of digits: logits differ by at most" in printed

    session = onnxruntime.InferenceSession(out)
    network = search.load(folder, seed=2)
    images = load_dataset("digits", tmp_path).test.images
    for n in (1, 7):
        (logits,) = session.run(["logits"], {"pixels": images[:n].float().numpy()})
        with torch.inference_mode():
            assert logits == pytest.approx(network(images[:n]).numpy(), abs=1e-4)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == list("0123456789")
    assert "from 0 (the background) to 255" in metadata["input"]
    assert (metadata["seed"], metadata["parameters"]) == ("2", "24988")


@pytest.mark.parametrize(
    "notation",
    [
        "c3p1 6, d3p1+hs, c1+bias+hs 8, drop 0.1, pool, c3 10, d3, gap, drop 0.1, out+bias",
        "c3+bias 4, pool, c3+hs 6, drop 0.5, pool, c1 8, out, gap",
        "c3 4, pool, c3 10, gap",
    ],
)
def test_every_kind_of_layer_can_be_exported(notation: str, tmp_path: Path) -> None:
    network = random_classifier(notation)
    images = torch.randint(0, 256, (20, 1, 28, 28), dtype=torch.uint8)
    with torch.inference_mode():
        ours = network(images)
    assert check_parity(to_onnx(network, metadata={}), network, images) < 1e-4 * ours.abs().max()

    recipe = Hyperparameters(spec=ModelSpec.parse(notation), learning_rate=0.1)
    net = program(replace(digits_source(recipe), mean=(0.2,), std=(0.4,)), tmp_path).Net().eval()
    weights = network.network.state_dict().values()
    net.load_state_dict(dict(zip(net.state_dict(), weights, strict=True)))
    with torch.inference_mode():
        assert torch.allclose(net(images / 255), ours, rtol=1e-6, atol=1e-6)


def test_an_onnx_file_that_differs_is_refused() -> None:
    model = to_onnx(search.load("best-1-epoch", seed=1), metadata={})
    images = torch.randint(0, 256, (5, 1, 28, 28), dtype=torch.uint8)
    with pytest.raises(ExportError, match="must differ by at most"):
        check_parity(model, search.load("best-1-epoch", seed=2), images)


def test_old_runtimes_read_the_file() -> None:
    model = onnx.load_from_string(to_onnx(random_classifier("c3+hs 10, gap"), metadata={}))
    assert (model.ir_version, model.opset_import[0].version) == (8, 17)


def test_without_the_extra_the_error_says_what_to_install(command: Command) -> None:
    code = (
        "import sys; sys.modules['onnx'] = None; from search.cli import main; "
        "main(['export', 'best-1-epoch', '--out', 'net.onnx'])"
    )
    done = command.fork("-c", code)
    assert done.code == 2
    assert "onnx is not installed; install it with: uv sync --inexact --extra onnx, or" in done.err
    assert not (command.folder / "net.onnx").exists()


@pytest.mark.parametrize("name", [os.fsdecode(b"\xff.py"), 'a\n"""\\.py'])
def test_a_program_may_have_any_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_here("export", "v36", "--out", name) == 0
    assert "a run is a look at the test set, uncounted" in capsys.readouterr().out
    said = ast.get_docstring(ast.parse((tmp_path / name).read_text()))
    assert said is not None
    assert "looks at the test set, after each epoch, and nothing counts that" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("best-1-epoch", "--out", "net"), "A format must be onnx or python"),
        (("best-1-epoch", "--out", "net.py", "--format", "keras"), "but got 'keras'"),
        (("best-1-epoch", "--out", "net.onnx", "--seed", "9"), "seed must be one of 1, 2, 3"),
        (("best-1-epoch", "--out", "net.py", "--seed", "1"), "but a program has none"),
        (("best-1-epoch", "--out", ".", "--format", "onnx"), "must name a file"),
        (("v36", "--out", "net.onnx"), "v36 is a system to be trained: --out v36.py writes a"),
        (("best1epoch", "--out", "net.onnx"), "no best1epoch; did you mean best-1-epoch?"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_here("export", *arguments) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_card_that_says_too_little_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = json.loads((preset_folder("best-1-epoch") / "card.json").read_text())
    old = [{"seed": run["seed"]} for run in card["runs"]]
    unknown = {**card["dataset"], "name": "letters"}
    out = tmp_path / "net.py"
    for name, changes, message in (
        ("old", {"epochs": None, "runs": old}, "for how many epochs the network was trained"),
        ("unknown", {"dataset": unknown}, "A data set must be one of"),
    ):
        folder = shipped_copy(tmp_path / name, **changes)
        assert run_here("export", str(folder), "--out", str(out)) == 2
        assert message in capsys.readouterr().err
        assert not out.exists()


def test_a_program_has_the_forward_pass_of_the_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "program.py"
    assert run_here("export", "best-1-epoch", "--out", str(path)) == 0
    assert f"python {path} --data DIR" in capsys.readouterr().out
    source = card_source(read_card(preset_folder("best-1-epoch")))
    assert path.read_text() == to_python(source, file_name="program.py")

    ours = search.load("best-1-epoch")
    net = program(source, tmp_path).Net().eval()
    weights = ours.network.state_dict().values()
    net.load_state_dict(dict(zip(net.state_dict(), weights, strict=True)))
    images = load_dataset("digits", tmp_path).test.images
    with torch.inference_mode():
        assert torch.allclose(net(images / 255), ours(images), rtol=1e-6, atol=1e-6)


def test_programs_are_formatted_and_without_lint(tmp_path: Path) -> None:
    sources = {name: baseline_source(baseline) for name, baseline in BASELINES.items()}
    card = read_card(preset_folder("best-1-epoch"))
    sources["card"] = card_source(card)
    sources["name"] = card_source(replace(card, study=20 * 'x""" \\', runs=card.runs[:1], epochs=9))
    sources["everything"] = digits_source(EVERYTHING)
    sources["folder"] = replace(sources["everything"], dataset="folder:/photos")
    for name, source in sources.items():
        (tmp_path / f"{name}.py").write_text(to_python(source, file_name=f"{name}.py"))
    rules = "B,C4,E,F,I,N,PTH,RET,RUF,SIM,UP,W"
    ignored = "N812,RUF001,RUF002,RUF003"
    for words in (
        ("check", "--select", rules, "--ignore", ignored, "--line-length", "88"),
        ("format", "--check"),
    ):
        ruff = (sys.executable, "-m", "ruff", words[0], "--isolated", *words[1:], str(tmp_path))
        done = subprocess.run(ruff, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout
    for path in tmp_path.glob("*.py"):
        compile(path.read_text(), path, "exec")


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd", "schedule": OneCycle(warmup_share=0.25, cycle_momentum=True)},
        {
            "schedule": OneCycle(warmup_share=0.4, div_factor=10, total_epochs=3),
            "weight_decay": 0.001,
            "ema_epochs": 0.4,
        },
        {"optimizer": "adam", "schedule": StepDecay(step_share=0.5), "gradient_clip": 0.5},
        {"optimizer": "adamw", "schedule": Cosine(0.001), "label_smoothing": 0.2},
        {"optimizer": "adamw", "schedule": Constant(), "momentum": 0.8, "weight_decay": 0.1},
    ],
    ids=["one-cycle", "average", "steps", "cosine", "constant"],
)
def test_a_program_trains_to_the_same_weights(changes: dict[str, Any], tmp_path: Path) -> None:
    recipe = Hyperparameters(
        **{"spec": ModelSpec.parse(SMALL), "learning_rate": 0.02, "batch_size": 64, **changes}
    )
    module = program(digits_source(recipe), tmp_path)
    images, labels, test_images, test_labels = module.load_data()
    ours = search.train(
        recipe,
        Examples(as_bytes(images), labels),
        Examples(as_bytes(test_images), test_labels),
        Normalization((DIGITS_MEAN,), (DIGITS_STD,)),
        epochs=2,
        seed=3,
        device="cpu",
        use_native=False,
    )
    results = list(ours)
    net = module.train(epochs=2, seed=3)

    accuracy = module.accuracy(net, test_images, test_labels)
    assert accuracy == pytest.approx(results[-1].accuracy, abs=0.003)  # one image of 359
    for mine, theirs in zip(
        ours.network.state_dict().values(), net.state_dict().values(), strict=True
    ):
        if mine.is_floating_point():  # nothing uses the count of batches
            assert torch.allclose(mine, theirs, rtol=1e-3, atol=1e-3)


def as_bytes(images: torch.Tensor) -> torch.Tensor:
    return (255 * images).round().to(torch.uint8)


def test_a_program_reads_the_same_digits(tmp_path: Path) -> None:
    data = load_dataset("digits", tmp_path)
    images, labels, test_images, test_labels = program(
        digits_source(EVERYTHING), tmp_path
    ).load_data()
    assert torch.equal(as_bytes(test_images), data.test.images)
    assert torch.equal(test_labels, data.test.labels)
    theirs = zip(as_bytes(images).numpy(), labels.tolist(), strict=True)
    ours = zip(data.development.images.numpy(), data.development.labels.tolist(), strict=True)
    assert sorted((image.tobytes(), label) for image, label in theirs) == sorted(
        (image.tobytes(), label) for image, label in ours
    )


@pytest.mark.parametrize("sides", [(28, 28), (20, 60)])
def test_a_program_augments_as_the_search_does(sides: tuple[int, int], tmp_path: Path) -> None:
    recipe = replace(
        EVERYTHING,
        spec=replace(in_notation(EVERYTHING.spec), input_shape=(1, *sides)),
        augmentation=replace(EVERYTHING.augmentation, rotation_degrees=40),
    )
    image = load_dataset("digits", tmp_path).test.images[:1].float() / 255
    image = F.interpolate(image, sides, mode="bilinear")
    many = image.repeat(3_000, 1, 1, 1)
    torch.manual_seed(0)
    theirs = program(digits_source(recipe), tmp_path).augment(many, strength=1.0)
    warps = draw_warps(
        recipe.augmentation,
        len(many),
        torch.Generator().manual_seed(0),
        aspect=sides[1] / sides[0],
    )
    assert warps is not None
    ours = warp(many, warps.matrices, warps.displacements)
    for moment in (torch.mean, torch.std):
        # Means of 3,000 differ by 0.01 where pixels scatter by 0.4.
        assert torch.allclose(moment(theirs, dim=0), moment(ours, dim=0), atol=0.04)


def test_a_program_runs_and_learns(tmp_path: Path) -> None:
    path = tmp_path / "everything.py"
    path.write_text(to_python(digits_source(EVERYTHING), file_name=path.name))
    words = (sys.executable, str(path), "--epochs", "3")
    done = subprocess.run(words, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stderr
    *_, last = done.stdout.splitlines()
    assert last.startswith("epoch  3  loss ")
    assert float(last.split()[-1].rstrip("%")) > 50


def test_a_program_reads_the_same_mnist(tmp_path: Path, mnist_dir: Path) -> None:
    data = load_dataset("mnist", mnist_dir)
    module = program(baseline_source(BASELINES["one-epoch"]), tmp_path)
    images, labels, test_images, test_labels = module.load_data(str(mnist_dir))
    assert torch.equal(as_bytes(test_images), data.test.images)
    assert torch.equal(test_labels, data.test.labels)
    assert images.shape == (54_000, 1, 28, 28)
    assert len(labels) == 54_000

    normalization = data.info.normalization
    assert (normalization.mean[0], normalization.std[0]) == (module.MEAN, module.STD)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to all values in a piece of JSON that are no lists or tables."""
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        yield path
    for key, inner in items:
        yield from leaves(inner, (*path, key))


@pytest.mark.parametrize("schedule", [OneCycle(), StepDecay(0.3), Cosine(), Constant()])
def test_a_card_with_code_in_it_is_refused_or_gives_a_program_without_it(
    weights: Path, schedule: Schedule, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "__import__('os').system('echo')"
    card = json.loads((weights / "card.json").read_text())
    recipe = Hyperparameters.from_dict(card["hyperparameters"])
    full = replace(
        recipe,
        schedule=schedule,
        gradient_clip=1.0,
        augmentation=Augmentation(1.0, 0.1, 0.1, 1.0, 0.1),
    )
    card["hyperparameters"] = full.to_dict()
    program = weights / "net.py"
    ways = list(leaves(card))
    assert len(ways) > 30
    if not isinstance(schedule, OneCycle):  # all but the schedule was tried with the first
        ways = [way for way in ways if "schedule" in way]
    n_refused = 0
    for way in ways:
        changed = json.loads(json.dumps(card))
        inner = changed
        for key in way[:-1]:
            inner = inner[key]
        inner[way[-1]] = code
        (weights / "card.json").write_text(json.dumps(changed))
        program.unlink(missing_ok=True)
        exit_code = run_here("export", str(weights), "--out", str(program))
        assert exit_code == (0 if program.exists() else 2), way
        n_refused += exit_code == 2
        if program.exists():
            calls = [n for n in ast.walk(ast.parse(program.read_text())) if isinstance(n, ast.Name)]
            assert "__import__" not in {name.id for name in calls}, way
    capsys.readouterr()
    assert n_refused >= min(21, len(ways))
