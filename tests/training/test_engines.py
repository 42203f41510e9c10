"""All ways to do a training step give the same training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from search.data.dataset import Dataset
from search.data.load import load_dataset
from search.space.baselines import BASELINES
from search.space.hyperparameters import Augmentation, Hyperparameters, OptimizerName
from search.training.augment import draw_warps
from search.training.compiled import LEAST_IMAGES, compiled
from search.training.engines import Engine, GraphEngine, TorchEngine, make_engine
from search.training.train import Training, train
from search_models import native
from search_models.convnet import ConvNet
from search_models.network import in_notation

needs_native = pytest.mark.skipif(
    native.kernel() is None, reason="this package was built without a C++ compiler"
)
# Both steps add up in another order, and training magnifies the last digit.
RECIPE = replace(
    BASELINES["step-lr"].hyperparameters,
    learning_rate=0.01,
    augmentation=Augmentation(
        rotation_degrees=10.0, translation=0.1, scale=0.1, shear_degrees=5.0, elastic=0.02, flip=0.5
    ),
    gradient_clip=1.0,
    label_smoothing=0.1,
    ema_epochs=0.5,
    final_augmentation=0.25,
)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load_dataset("digits", tmp_path_factory.mktemp("data"))


def run(digits: Dataset, recipe: Hyperparameters, *, use_native: bool, epochs: int) -> Training:
    n = digits.info.n_training
    return train(
        recipe,
        digits.development[:n],
        digits.development[n:],
        digits.info.normalization,
        epochs=epochs,
        seed=3,
        device="cpu",
        use_native=use_native,
    )


@needs_native
@pytest.mark.parametrize("optimizer", ["sgd", "nesterov", "adam", "adamw"])
def test_both_steps_give_the_same_losses_within_rounding(
    digits: Dataset, optimizer: OptimizerName
) -> None:
    recipe = replace(RECIPE, optimizer=optimizer)
    fast, reference = (run(digits, recipe, use_native=way, epochs=2) for way in (True, False))
    assert (fast.is_native, reference.is_native) == (True, False)
    for ours, theirs in zip(fast, reference, strict=True):
        assert ours.training_loss == pytest.approx(theirs.training_loss, rel=2e-2)
        assert ours.training_accuracy == pytest.approx(theirs.training_accuracy, abs=0.02)
        assert ours.learning_rate == theirs.learning_rate


@needs_native
def test_the_first_steps_are_the_same_to_six_digits(digits: Dataset) -> None:
    recipe = replace(RECIPE, batch_size=1000)
    fast, reference = (run(digits, recipe, use_native=way, epochs=1) for way in (True, False))
    (ours,), (theirs,) = list(fast), list(reference)
    assert ours.training_loss == pytest.approx(theirs.training_loss, rel=1e-5)
    for mine, other in zip(
        fast.network.state_dict().values(), reference.network.state_dict().values(), strict=True
    ):
        assert torch.allclose(mine.double(), other.double(), rtol=1e-3, atol=1e-4)


@needs_native
@pytest.mark.parametrize("name", ["under-20k", "one-epoch"])
def test_weights_trained_natively_are_those_of_an_ordinary_network(
    digits: Dataset, name: str
) -> None:
    trained = run(digits, BASELINES[name].hyperparameters, use_native=True, epochs=1)
    (result,) = list(trained)
    network = BASELINES[name].hyperparameters.spec.build()
    network.load_state_dict(trained.network.state_dict())
    validation = digits.development[digits.info.n_training :]
    engine = TorchEngine(network, validation, digits.info.normalization, torch.device("cpu"))
    loss, accuracy = engine.evaluate(validation, "accuracy")
    assert loss == pytest.approx(result.loss, rel=1e-4)
    assert accuracy == pytest.approx(result.accuracy, abs=1 / 300)


def play_again(work: Callable[[], None]) -> Callable[[], None]:
    """Stands in for a CUDA graph: warms up as a recording does, then does the work itself."""
    for _ in range(4):
        work()
    return work


@pytest.mark.parametrize("name", ["under-20k", "step-lr"])  # dropout and augmentation; neither
def test_replaying_a_recorded_step_trains_as_the_step_itself_does(
    digits: Dataset, name: str
) -> None:
    n, batch_size = digits.info.n_training, 128
    training, device = digits.development[:n], torch.device("cpu")
    assert n % batch_size, "the last batch is to be a part-filled one"
    states = []
    for is_recorded in (False, True):
        torch.manual_seed(5)
        network = ConvNet(in_notation(BASELINES[name].hyperparameters.spec))
        engine = (
            GraphEngine(
                network,
                training,
                digits.info.normalization,
                device,
                batch_size=batch_size,
                label_smoothing=0.1,
                record=play_again,
            )
            if is_recorded
            else TorchEngine(
                network, training, digits.info.normalization, device, label_smoothing=0.1
            )
        )
        optimizer = torch.optim.SGD(engine.parameters, lr=0.05, momentum=0.9)
        warps = draw_warps(RECIPE.augmentation, n, torch.Generator().manual_seed(1))
        assert warps is not None
        for index in 2 * torch.split(torch.arange(n), batch_size):
            engine.backward(index, warps[index] if name == "under-20k" else None)
            optimizer.step()
        states.append((engine.take_totals(), network.state_dict()))
    (totals, plain), (recorded_totals, recorded) = states
    assert recorded_totals == totals
    for key, value in plain.items():
        assert torch.equal(recorded[key], value), key


def users_network(width: int) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        *(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.Hardswish()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)),
    )


def long_training(network: nn.Module, digits: Dataset) -> Engine:
    return make_engine(
        network,
        digits.development[:80],
        digits.info.normalization,
        batch_size=32,
        label_smoothing=0.1,
        seed=0,
        device=torch.device("cpu"),
        use_native=True,
        n_images=LEAST_IMAGES,
    )


@needs_native  # and so there is a compiler
def test_a_users_network_is_compiled_for_a_long_training_and_learns_as_it_did(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    network = users_network(6)
    before = [tensor.clone() for tensor in network.state_dict().values()]
    chances = torch.get_rng_state()
    assert compiled(network, (32, 1, 8, 8)) is not None
    fast = long_training(network, digits)
    assert torch.equal(torch.get_rng_state(), chances)
    for tensor, value in zip(network.state_dict().values(), before, strict=True):
        assert torch.equal(tensor, value)
    (folder,) = tmp_path.glob("*/compiled")
    assert folder.stat().st_mode & 0o077 == 0
    plain = TorchEngine(
        users_network(6),
        digits.development[:80],
        digits.info.normalization,
        torch.device("cpu"),
        label_smoothing=0.1,
    )
    for index in torch.split(torch.arange(80), 32):  # the last of them smaller
        for engine in (fast, plain):
            engine.backward(index, None)
        for mine, theirs in zip(fast.parameters, plain.parameters, strict=True):
            torch.testing.assert_close(mine.grad, theirs.grad)
    assert fast.take_totals() == pytest.approx(plain.take_totals())
    torch.testing.assert_close(list(fast.state), list(plain.state))


def test_without_a_compiler_a_users_network_is_trained_as_it_stands(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    assert compiled(users_network(7), (32, 1, 8, 8)) is None
    engine = long_training(users_network(7), digits)
    engine.backward(torch.arange(32), None)
    assert engine.take_totals()[0] > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_trains_as_the_cpu_does(digits: Dataset) -> None:
    n = digits.info.n_training
    results = []
    for device in ("cuda", "cpu"):
        run = train(
            RECIPE,
            digits.development[:n],
            digits.development[n:],
            digits.info.normalization,
            epochs=6,
            seed=3,
            device=device,
            use_native=False,
        )
        results.append(list(run)[-1])
    on_gpu, on_cpu = results
    assert on_gpu.training_loss == pytest.approx(on_cpu.training_loss, rel=0.2)
    assert on_gpu.accuracy == pytest.approx(on_cpu.accuracy, abs=0.03)
