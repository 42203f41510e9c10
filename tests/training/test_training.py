"""Training runs on slices of the embedded digits, and augmentation of known patterns."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from search.data.dataset import Dataset, Examples
from search.data.load import load_dataset
from search.data.normalization import Normalization
from search.exceptions import DeviceError, TrainingError
from search.space.hyperparameters import (
    Augmentation,
    Constant,
    Cosine,
    Hyperparameters,
    OneCycle,
    Schedule,
    StepDecay,
)
from search.training.augment import (
    affine_matrices,
    draw_warps,
    elastic_displacements,
    shrinking_strength,
    warp,
)
from search.training.epochs import EpochResult
from search.training.train import Training, find_device, train
from search_models.convnet import ConvNet
from search_models.network import in_notation
from search_models.spec import ModelSpec

_TINY = Hyperparameters(
    ModelSpec.parse("c3 2, pool, gap, out"), 0.05, schedule=Constant(), batch_size=16
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load_dataset("digits", tmp_path_factory.mktemp("data"))


def _begun(
    digits: Dataset, recipe: Hyperparameters, *, n: int = 48, epochs: int = 2, **options: Any
) -> Training:
    """A run on the first `n` images, of which nothing is trained yet."""
    examples = digits.development
    return train(
        recipe,
        examples[:n],
        examples[-50:],
        digits.info.normalization,
        epochs=epochs,
        device="cpu",
        **options,
    )


def _run(
    digits: Dataset, recipe: Hyperparameters, *, n: int = 48, epochs: int = 2, seed: int = 0
) -> list[EpochResult]:
    return list(_begun(digits, recipe, n=n, epochs=epochs, seed=seed))


class _Countdown:
    """Lets so many batches pass, then stops the run."""

    def __init__(self, n_batches: int) -> None:
        self._n_batches = n_batches
        self.n_asked = 0

    def __call__(self) -> bool:
        self.n_asked += 1
        return self.n_asked > self._n_batches


def _without_time(results: list[EpochResult]) -> list[EpochResult]:
    return [replace(result, seconds=0.0) for result in results]


_LIVELY = Hyperparameters(
    ModelSpec.parse("c3 4, drop 0.2, pool, c3 6, gap, out"),
    0.05,
    batch_size=16,
    augmentation=Augmentation(10.0, 0.1, 0.1, 5.0),
)


def test_the_same_seed_gives_the_same_results_to_the_digit(digits: Dataset) -> None:
    first, second = (_without_time(_run(digits, _LIVELY, seed=3)) for _ in range(2))

    assert first == second


def test_another_seed_gives_other_results(digits: Dataset) -> None:
    assert _without_time(_run(digits, _LIVELY, seed=3)) != _without_time(
        _run(digits, _LIVELY, seed=4)
    )


def test_results_do_not_depend_on_random_numbers_drawn_before(digits: Dataset) -> None:
    first = _without_time(_run(digits, _LIVELY))
    torch.rand(100)

    assert _without_time(_run(digits, _LIVELY)) == first


@pytest.mark.parametrize("optimizer", ["sgd", "nesterov", "adam", "adamw"])
def test_a_tiny_network_learns_the_digits(digits: Dataset, optimizer: Any) -> None:
    recipe = Hyperparameters(
        ModelSpec.parse("c3 8, pool, c3 12, pool, c3 16, gap, out"),
        0.01 if optimizer.startswith("adam") else 0.1,
        optimizer=optimizer,
        batch_size=32,
    )
    results = _run(digits, recipe, n=600, epochs=3)

    assert [result.epoch for result in results] == [1, 2, 3]
    assert results[-1].accuracy > 0.6
    assert results[-1].training_loss < results[0].training_loss
    assert results[-1].training_accuracy > 0.6


def _reference_rates(schedule: Schedule, epochs: int, steps: int) -> list[float]:
    """The learning rate of each epoch's last step, by PyTorch's own schedulers."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.05, momentum=0.9)
    scheduler: torch.optim.lr_scheduler.LRScheduler
    match schedule:
        case OneCycle():
            scheduler = torch.optim.lr_scheduler.OneCycleLR(
                optimizer,
                max_lr=0.05,
                epochs=epochs,
                steps_per_epoch=steps,
                pct_start=schedule.warmup_share,
                div_factor=schedule.div_factor,
                final_div_factor=schedule.final_div_factor,
            )
        case StepDecay():
            step = round(schedule.step_share * epochs) * steps
            scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step, schedule.gamma)
        case Cosine():
            scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(
                optimizer, epochs * steps, schedule.final_learning_rate
            )
        case Constant():
            scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    rates = []
    for step in range(1, epochs * steps + 1):
        if step % steps == 0:
            rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    "schedule",
    [
        OneCycle(0.3),
        OneCycle(0.25, div_factor=10.0, final_div_factor=100.0),
        OneCycle(0.25, cycle_momentum=True),
        StepDecay(0.4, gamma=0.1),
        StepDecay(1.0, gamma=0.1),
        StepDecay(0.2, gamma=0.5),
        Cosine(),
        Cosine(0.01),
        Constant(),
    ],
)
@pytest.mark.parametrize("optimizer", ["nesterov", "adamw"])
def test_learning_rates_at_epoch_ends_are_those_of_pytorch(
    digits: Dataset, schedule: Schedule, optimizer: Any
) -> None:
    recipe = replace(_TINY, schedule=schedule, optimizer=optimizer)

    rates = [result.learning_rate for result in _run(digits, recipe, n=48, epochs=5)]

    assert rates == pytest.approx(_reference_rates(schedule, epochs=5, steps=3))


def test_a_warm_up_of_exactly_one_step_trains(digits: Dataset) -> None:
    recipe = replace(_TINY, schedule=OneCycle(0.2))

    results = _run(digits, recipe, n=5 * 16, epochs=1)

    assert len(results) == 1


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_run_of_one_or_two_steps_trains(digits: Dataset, epochs: int) -> None:
    recipe = replace(_TINY, schedule=OneCycle(0.2))

    assert len(_run(digits, recipe, n=16, epochs=epochs)) == epochs


def test_a_loss_that_is_not_finite_ends_the_run(digits: Dataset) -> None:
    recipe = replace(_TINY, learning_rate=1e30, optimizer="sgd")

    results = _run(digits, recipe, epochs=10)

    assert len(results) < 10
    assert not results[-1].is_finite
    assert all(result.is_finite for result in results[:-1])


def test_should_stop_is_asked_before_each_batch_and_ends_the_run(digits: Dataset) -> None:
    count = _Countdown(5)  # the second epoch's third batch is not trained
    run = _begun(digits, _TINY, n=48, epochs=4, should_stop=count)

    assert [result.epoch for result in run] == [1]
    assert count.n_asked == 6


def test_a_batch_larger_than_the_training_set_is_refused(digits: Dataset) -> None:
    with pytest.raises(TrainingError, match="batch_size is 16 and there are 15 training images"):
        _run(digits, _TINY, n=15)


def test_a_batch_as_large_as_the_training_set_trains(digits: Dataset) -> None:
    assert len(_run(digits, _TINY, n=16)) == 2


def test_a_lone_last_image_is_dropped(digits: Dataset) -> None:
    to_one_pixel = ModelSpec.parse("c3 4, pool, c3 4, pool, c3 4, c3 4, out, gap")
    count = _Countdown(100)
    run = _begun(digits, replace(_TINY, spec=to_one_pixel), n=33, epochs=1, should_stop=count)
    (result,) = run

    assert count.n_asked == 2
    assert (result.training_accuracy * 32).is_integer()


def test_a_last_batch_of_two_images_is_kept(digits: Dataset) -> None:
    count = _Countdown(100)
    run = _begun(digits, _TINY, n=34, epochs=1, should_stop=count)
    list(run)

    assert count.n_asked == 3


def _distance_of_one_step(digits: Dataset, gradient_clip: float | None) -> float:
    recipe = replace(
        _TINY, optimizer="sgd", momentum=0.0, learning_rate=1.0, gradient_clip=gradient_clip
    )
    run = _begun(digits, recipe, n=16, epochs=1)
    before = [parameter.detach().clone() for parameter in run.network.parameters()]
    list(run)
    squares = [
        (parameter.detach() - old).square().sum()
        for parameter, old in zip(run.network.parameters(), before, strict=True)
    ]
    return math.sqrt(float(sum(squares)))


def test_gradient_clipping_bounds_the_step(digits: Dataset) -> None:
    free = _distance_of_one_step(digits, None)

    assert free > 0.02
    assert _distance_of_one_step(digits, 0.01) == pytest.approx(0.01, rel=1e-3)
    assert _distance_of_one_step(digits, 100.0) == pytest.approx(free)


def test_evaluation_equals_a_direct_computation(digits: Dataset) -> None:
    held_out = digits.development[-333:]
    run = train(
        _TINY,
        digits.development[:48],
        held_out,
        Normalization((0.3,), (0.4,)),
        epochs=1,
        device="cpu",
    )
    (result,) = run

    network = run.network.eval()
    with torch.no_grad():
        logits = network((held_out.images.float() / 255 - 0.3) / 0.4)
    assert result.loss == pytest.approx(F.cross_entropy(logits, held_out.labels).item(), rel=1e-5)
    assert result.accuracy == int((logits.argmax(dim=1) == held_out.labels).sum()) / 333


@pytest.mark.parametrize("use_native", [True, False])
def test_labels_are_smoothed_in_training_alone(digits: Dataset, use_native: bool) -> None:
    batch, held_out = digits.development[:16], digits.development[-50:]
    run = train(
        replace(_TINY, label_smoothing=0.3),
        batch,
        held_out,
        Normalization((0.3,), (0.4,)),
        epochs=1,
        device="cpu",
        use_native=use_native,
    )

    before = copy.deepcopy(run.network).train()
    (result,) = run

    def loss(network: nn.Module, examples: Examples, smoothing: float) -> float:
        logits = network((examples.images.float() / 255 - 0.3) / 0.4)
        smoothed = F.cross_entropy(logits, examples.labels, label_smoothing=smoothing)
        return smoothed.item()

    assert result.training_loss == pytest.approx(loss(before, batch, 0.3), rel=1e-5)
    assert result.loss == pytest.approx(loss(run.network.eval(), held_out, 0.0), rel=1e-5)


@pytest.mark.parametrize("use_native", [True, False])
def test_averaged_weights_are_evaluated_while_training_goes_on_with_its_own(
    digits: Dataset, use_native: bool
) -> None:
    held_out = digits.development[-50:]
    raw: list[dict[str, Tensor]] = []

    def run(ema_epochs: float, should_stop: Callable[[], bool]) -> Training:
        return train(
            replace(_LIVELY, ema_epochs=ema_epochs),
            digits.development[:48],
            held_out,
            Normalization((0.3,), (0.4,)),
            epochs=3,
            device="cpu",
            should_stop=should_stop,
            use_native=use_native,
        )

    def note_weights() -> bool:
        raw.append(copy.deepcopy(plain.network.state_dict()))
        return False

    plain = run(0.0, note_weights)
    plain_results = list(plain)
    note_weights()  # after the last of 3 × 3 steps

    averaged = run(0.3, lambda: False)
    average = raw[0]
    for epoch, result in enumerate(averaged):
        for step in range(3 * epoch, 3 * epoch + 3):
            decay = min(math.exp(-1 / (0.3 * 3)), (1 + step) / (10 + step))
            for name, value in raw[step + 1].items():
                is_count = name.endswith("num_batches_tracked")
                average[name] = value if is_count else decay * average[name] + (1 - decay) * value
        torch.testing.assert_close(dict(averaged.network.state_dict()), dict(average))
        network = copy.deepcopy(averaged.network).eval()
        logits = network((held_out.images.float() / 255 - 0.3) / 0.4)
        loss = F.cross_entropy(logits, held_out.labels).item()
        assert result.loss == pytest.approx(loss, rel=1e-5)
        assert result.training_loss == plain_results[epoch].training_loss


def test_evaluation_covers_more_images_than_one_of_its_batches() -> None:
    images = torch.zeros(1201, 1, 28, 28, dtype=torch.uint8)
    labels = torch.zeros(1201, dtype=torch.int64)
    labels[:301] = 1
    run = train(
        _TINY,
        Examples(images[:16], labels[-16:]),
        Examples(images, labels),
        Normalization((0.0,), (1.0,)),
        epochs=1,
        device="cpu",
    )
    (result,) = run

    with torch.no_grad():
        predicted = int(run.network.eval()(images[:1].float()).argmax())
    expected = {0: 900 / 1201, 1: 301 / 1201}.get(predicted, 0.0)
    assert result.accuracy == pytest.approx(expected)


def test_the_network_starts_from_the_seed(digits: Dataset) -> None:
    run = _begun(digits, _TINY, n=48, epochs=1, seed=5)
    torch.manual_seed(5)
    expected = ConvNet(in_notation(_TINY.spec))

    for ours, theirs in zip(run.network.parameters(), expected.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_images_of_the_data_set_stay_as_they_are(digits: Dataset) -> None:
    before = digits.development.images.clone()

    _run(digits, _LIVELY, n=64, epochs=1)

    assert torch.equal(digits.development.images, before)


@pytest.mark.parametrize("name", ["tpu", "", "gpu", "cpu:x", "CPU"])
def test_a_device_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(DeviceError):
        find_device(name)


def test_cpu_is_found_and_auto_finds_something() -> None:
    assert find_device("cpu") == torch.device("cpu")
    assert find_device("auto").type in {"cpu", "cuda"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_cuda_without_a_gpu_is_refused_with_a_way_out(name: str) -> None:
    with pytest.raises(DeviceError, match="leave --device out"):
        find_device(name)


def _generator(seed: int = 1) -> Generator:
    return Generator().manual_seed(seed)


def _moved(images: Tensor, matrices: Tensor) -> Tensor:
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)


def _centroid(image: Tensor) -> list[float]:
    """Mean column and row of an image's mass, in pixels from its centre."""
    height, width = image.shape
    mass = image.sum()
    columns = torch.arange(width) - (width - 1) / 2
    rows = torch.arange(height) - (height - 1) / 2
    return [
        float((image.sum(0) * columns).sum() / mass),
        float((image.sum(1) * rows).sum() / mass),
    ]


def _dot(row: int, column: int) -> Tensor:
    """One image (1, 1, 28, 28) with a 2×2 dot whose upper left pixel is given."""
    image = torch.zeros(1, 1, 28, 28)
    image[0, 0, row : row + 2, column : column + 2] = 1
    return image


def augmented(images: Tensor, augmentation: Augmentation, seed: int) -> Tensor:
    return warp(images, affine_matrices(augmentation, len(images), _generator(seed)))


def test_no_augmentation_leaves_every_image_as_it_is() -> None:
    images = torch.rand(3, 1, 28, 28, generator=_generator())
    assert torch.allclose(augmented(images, Augmentation(), 0), images, atol=1e-5)


def test_augmentation_leaves_its_input_and_its_shape_alone() -> None:
    images = torch.rand(3, 2, 28, 28)
    before = images.clone()

    changed = augmented(images, Augmentation(10.0, 0.1, 0.1, 5.0), 0)

    assert changed.shape == images.shape
    assert torch.equal(images, before)
    assert not torch.equal(changed, images)


def test_a_share_of_the_strength_is_that_share_of_every_change() -> None:
    ranges = Augmentation(20.0, 0.2, 0.0, 0.0)
    strength = torch.tensor([1.0, 0.5, 0.0])

    whole = affine_matrices(ranges, 3, _generator())
    part = affine_matrices(ranges, 3, _generator(), strength=strength)

    def angles(matrices: Tensor) -> Tensor:
        return torch.atan2(matrices[:, 1, 0], matrices[:, 0, 0])

    torch.testing.assert_close(angles(part), strength * angles(whole))
    torch.testing.assert_close(part[:, :, 2], strength[:, None] * whole[:, :, 2])


def test_shrinking_augmentation_ends_where_it_is_to() -> None:
    epochs = [shrinking_strength(48, epoch=epoch, epochs=2, final=0.2) for epoch in (1, 2)]

    strengths = torch.cat(epochs)

    assert strengths[0] == 1
    assert strengths[48] == pytest.approx(0.6)
    assert strengths[-1] == pytest.approx(1 - 0.8 * 95 / 96)
    torch.testing.assert_close(strengths.diff(), torch.full((95,), -0.8 / 96), atol=1e-6, rtol=0)


def test_a_training_run_shrinks_its_augmentation(digits: Dataset) -> None:
    def last_losses(final: float) -> list[float]:
        recipe = replace(
            _LIVELY, augmentation=Augmentation(rotation_degrees=90), final_augmentation=final
        )
        run = train(
            recipe,
            digits.development[:48],
            digits.development[-50:],
            Normalization((0.3,), (0.4,)),
            epochs=2,
            device="cpu",
        )
        return [result.loss for result in run]

    assert last_losses(1.0) == last_losses(1.0) != last_losses(0.0)


def test_a_rotation_by_ninety_degrees_is_exact() -> None:
    one_degree = affine_matrices(Augmentation(rotation_degrees=1.0), 1, _generator())[0]
    drawn = math.degrees(math.atan2(one_degree[1, 0], one_degree[0, 0]))
    image = torch.rand(1, 1, 28, 28)

    quarter = affine_matrices(Augmentation(rotation_degrees=90 / abs(drawn)), 1, _generator())

    turned = torch.rot90(image, k=1 if drawn > 0 else -1, dims=(2, 3))
    torch.testing.assert_close(_moved(image, quarter), turned, atol=1e-4, rtol=0)


def test_rotations_keep_size_and_angles() -> None:
    matrices = affine_matrices(Augmentation(rotation_degrees=180.0), 50, _generator())
    linear = matrices[:, :, :2]

    torch.testing.assert_close(linear @ linear.mT, torch.eye(2).expand(50, 2, 2))
    assert (torch.linalg.det(linear) > 0).all()
    assert (matrices[:, :, 2] == 0).all()


def test_a_translation_moves_a_dot_by_its_share_of_the_side() -> None:
    matrices = affine_matrices(Augmentation(translation=0.25), 1, _generator())
    shift_x, shift_y = (matrices[0, :, 2] * 14).tolist()  # 2 is the whole side of 28 pixels

    column, row = _centroid(_moved(_dot(13, 13), matrices)[0, 0])

    assert [column, row] == pytest.approx([-shift_x, -shift_y], abs=1e-3)
    assert 0 < abs(shift_x) <= 7
    assert shift_x != shift_y


def test_scaling_moves_a_dot_away_from_the_centre_by_its_factor() -> None:
    for seed in range(6):
        matrices = affine_matrices(Augmentation(scale=0.5), 1, _generator(seed))
        factor = 1 / float(matrices[0, 0, 0])
        column, row = _centroid(_moved(_dot(7, 16), matrices)[0, 0])

        assert 0.5 <= factor <= 1.5
        assert column == pytest.approx(3 * factor, abs=0.25)
        assert row == pytest.approx(-6 * factor, abs=0.25)


def test_factors_of_scaling_are_even_around_one() -> None:
    factors = 1 / affine_matrices(Augmentation(scale=0.5), 4000, _generator())[:, 0, 0]

    assert 0.5 <= float(factors.min()) < 0.51
    assert 1.49 < float(factors.max()) <= 1.5
    assert float(factors.mean()) == pytest.approx(1, abs=0.02)


def test_shearing_moves_rows_sideways_by_their_distance_from_the_centre() -> None:
    matrices = affine_matrices(Augmentation(shear_degrees=30.0), 1, _generator())
    slope = float(matrices[0, 0, 1])
    above, below = (_centroid(_moved(_dot(row, 13), matrices)[0, 0]) for row in (7, 19))

    assert 0 < abs(slope) <= math.tan(math.radians(30))
    assert above == pytest.approx([6 * slope, -6], abs=0.05)
    assert below == pytest.approx([-6 * slope, 6], abs=0.05)


def test_images_that_are_no_squares_turn_and_shear_as_squares_do() -> None:
    ranges = Augmentation(rotation_degrees=40.0, shear_degrees=20.0)
    images = torch.rand(8, 1, 20, 60, generator=_generator())
    squares = F.pad(images, (0, 0, 20, 20))

    wide, square = (
        draw_warps(ranges, 8, _generator(), aspect=each.shape[3] / each.shape[2])
        for each in (images, squares)
    )

    assert wide is not None
    assert square is not None
    expected = warp(squares, square.matrices)[:, :, 20:40]
    torch.testing.assert_close(warp(images, wide.matrices), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(rotation_degrees=180.0),
        Augmentation(translation=0.5),
        Augmentation(scale=0.9),
        Augmentation(shear_degrees=60.0),
        Augmentation(15.0, 0.12, 0.15, 10.0),
    ],
)
def test_the_background_stays_zero(augmentation: Augmentation) -> None:
    blank, bright = torch.zeros(20, 1, 28, 28), torch.ones(20, 1, 28, 28)

    assert (augmented(blank, augmentation, 0) == 0).all()
    changed = augmented(bright, augmentation, 0)
    assert float(changed.min()) >= 0
    assert float(changed.max()) <= 1 + 1e-5
    assert (changed.amin(dim=(1, 2, 3)) < 0.5).any(), "what comes in from outside is background"


def test_draws_fill_their_ranges_and_centre_on_nothing() -> None:
    matrices = affine_matrices(Augmentation(rotation_degrees=20.0), 4000, _generator())
    degrees = torch.rad2deg(torch.atan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    shifts = affine_matrices(Augmentation(translation=0.1), 4000, _generator())[:, :, 2]
    sheared = affine_matrices(Augmentation(shear_degrees=20.0), 4000, _generator())
    shears = torch.rad2deg(torch.atan(sheared[:, 0, 1]))

    for values, bound in ((degrees, 20.0), (shifts, 0.2), (shears, 20.0)):
        assert 0.99 * bound < float(values.abs().max()) <= bound * (1 + 1e-5)
        assert abs(float(values.mean())) < 0.03 * bound
        assert float(values.std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_rotation_and_scaling_draw_independently() -> None:
    matrices = affine_matrices(Augmentation(rotation_degrees=20.0, scale=0.2), 4000, _generator())
    degrees = torch.atan2(matrices[:, 1, 0], matrices[:, 0, 0])
    factors = 1 / torch.linalg.det(matrices[:, :, :2]).sqrt()

    assert abs(float(torch.corrcoef(torch.stack([degrees, factors]))[0, 1])) < 0.06


def test_the_same_generator_seed_gives_the_same_images() -> None:
    images, recipe = torch.rand(5, 1, 28, 28), Augmentation(15.0, 0.12, 0.15, 10.0)
    first, again, other = (augmented(images, recipe, seed) for seed in (4, 4, 5))

    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_stream_of_draws_does_not_depend_on_the_kinds_in_use() -> None:
    both = affine_matrices(Augmentation(rotation_degrees=10.0, translation=0.1), 4, _generator())
    shifted = affine_matrices(Augmentation(translation=0.1), 4, _generator())

    assert torch.equal(both[:, :, 2], shifted[:, :, 2])


def test_a_recipe_without_elastic_distortion_draws_what_it_drew_before_there_was_any() -> None:
    affine = Augmentation(15.0, 0.12, 0.15, 10.0)
    generator, earlier = _generator(), _generator()

    warps = draw_warps(affine, 6, generator)
    matrices = affine_matrices(affine, 6, earlier)

    assert warps is not None
    assert warps.displacements is None
    assert torch.equal(warps.matrices, matrices)
    assert torch.equal(generator.get_state(), earlier.get_state())
    assert draw_warps(Augmentation(), 6, generator) is None
    assert torch.equal(generator.get_state(), earlier.get_state())


def test_elastic_distortion_leaves_the_matrices_as_they_are() -> None:
    affine = Augmentation(15.0, 0.12, 0.15, 10.0)
    plain = draw_warps(affine, 6, _generator())
    first, again = (draw_warps(replace(affine, elastic=0.02), 6, _generator()) for _ in range(2))

    assert plain is not None
    assert first is not None
    assert again is not None
    assert first.displacements is not None
    assert again.displacements is not None
    assert torch.equal(first.matrices, plain.matrices)
    assert torch.equal(first.displacements, again.displacements)


def test_a_share_of_the_images_is_mirrored_and_all_else_stays_as_it_was() -> None:
    affine = Augmentation(15.0, 0.12, 0.15, 10.0)
    plain = affine_matrices(affine, 400, _generator())
    flipped = affine_matrices(replace(affine, flip=0.25), 400, _generator())
    is_flipped = (flipped != plain).flatten(1).any(1)
    assert is_flipped.float().mean().item() == pytest.approx(0.25, abs=0.06)
    mirror = torch.tensor([[-1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    assert torch.equal(flipped[is_flipped], (mirror[:2, :2] @ plain)[is_flipped])

    images = torch.rand(2, 3, 5, 4)
    matrices = affine_matrices(Augmentation(flip=1.0), 2, _generator())
    torch.testing.assert_close(warp(images, matrices), images.flip(3))


def test_displacements_have_the_standard_deviation_of_the_recipe() -> None:
    displacements = elastic_displacements(Augmentation(elastic=0.02), 400, _generator())
    half = elastic_displacements(
        Augmentation(elastic=0.02), 400, _generator(), strength=torch.full((400,), 0.5)
    )

    assert displacements.shape == (400, 2, 5, 5)
    # The whole side is 2.
    assert displacements.std().item() == pytest.approx(2 * 0.02, rel=0.05)
    assert displacements.mean().item() == pytest.approx(0, abs=0.002)
    torch.testing.assert_close(half, displacements / 2)


def test_displacements_move_a_dot_near_their_point_along_and_others_not() -> None:
    displacements = torch.zeros(1, 2, 5, 5)
    displacements[0, 0, 0, 0] = -2 / 28  # it looks one pixel to the left there
    identity = torch.eye(2, 3).view(1, 2, 3)

    corner, far = (
        _centroid(warp(_dot(place, place), identity, displacements)[0, 0]) for place in (0, 20)
    )

    assert corner[0] == pytest.approx(-13 + 0.9, abs=0.15)
    assert corner[1] == pytest.approx(-13, abs=0.1)
    assert far == pytest.approx([7, 7], abs=1e-3)


def test_displacements_that_are_the_same_everywhere_are_a_translation() -> None:
    images = torch.rand(1, 2, 9, 28, generator=_generator())
    identity = torch.eye(2, 3).view(1, 2, 3)
    displacements = torch.stack([torch.full((5, 5), 0.3), torch.full((5, 5), -0.2)]).unsqueeze(0)
    shifted = identity + torch.tensor([[[0, 0, 0.3], [0, 0, -0.2]]])

    torch.testing.assert_close(
        warp(images, identity, displacements), warp(images, shifted), atol=1e-5, rtol=0
    )
