"""`train`: one network, one recipe, one `EpochResult` an epoch. Knows no Optuna."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer, lr_scheduler

from search.data.dataset import Examples
from search.data.normalization import Normalization
from search.exceptions import DeviceError, TrainingError
from search.space.hyperparameters import Constant, Cosine, Hyperparameters, OneCycle, StepDecay
from search.training.augment import Warps, draw_warps, shrinking_strength
from search.training.averaging import WeightAverage
from search.training.devices import check_device_name
from search.training.engines import NativeEngine, make_engine
from search.training.epochs import EpochResult
from search.training.metrics import Metric
from search.training.optimizers import make_optimizer


def find_device(name: str) -> torch.device:
    """The device of that name; `auto` takes the GPU where there is one.

    Raises:
        DeviceError: if it is not there.
    """
    check_device_name(name)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"The device {name} needs a GPU that PyTorch {torch.__version__} can use, but it finds "
            f"{torch.cuda.device_count()}; leave --device out to train on what there is."
        )
    return device


class Training:
    """A training run: iterate over it to train, one `EpochResult` an epoch.

    It ends early when the loss is no longer finite (that epoch is the last result), or when
    `should_stop` says so (the epoch that was under way gives none).
    """

    def __init__(
        self,
        hyperparameters: Hyperparameters,
        training: Examples,
        evaluation: Examples,
        normalization: Normalization,
        *,
        places: Tensor | None,
        epochs: int,
        seed: int,
        device: torch.device,
        should_stop: Callable[[], bool],
        use_native: bool,
        metric: Metric,
    ) -> None:
        n_training = len(training) if places is None else len(places)
        if hyperparameters.batch_size > n_training:
            raise TrainingError(
                f"A batch must not be larger than the training set, but batch_size is "
                f"{hyperparameters.batch_size} and there are {n_training} training images."
            )
        torch.manual_seed(seed)  # initialisation and dropout draw from the global generator
        self.epochs = epochs
        self._metric = metric
        self._hyperparameters = hyperparameters
        self._n_training = n_training
        self._places = None if places is None else places.to(device)
        self._evaluation = evaluation.to(device)
        self._device = device
        self._generator = Generator(device).manual_seed(seed)
        self._should_stop = should_stop
        self._engine = make_engine(
            hyperparameters.spec.build(),
            training,
            normalization,
            batch_size=hyperparameters.batch_size,
            label_smoothing=hyperparameters.label_smoothing,
            seed=seed,
            device=device,
            use_native=use_native,
            n_images=epochs * n_training,
        )
        self._optimizer = make_optimizer(hyperparameters, self._engine.parameters)
        self._batches = _batches(n_training, hyperparameters.batch_size)
        self._scheduler = make_scheduler(
            hyperparameters, self._optimizer, epochs, steps_per_epoch=len(self._batches)
        )
        horizon = hyperparameters.ema_epochs * len(self._batches)
        self._average = WeightAverage(self._engine.state, horizon) if horizon > 0 else None

    @property
    def network(self) -> nn.Module:
        """The network that is trained; after an epoch it has the weights that were evaluated."""
        return self._engine.network

    @property
    def is_native(self) -> bool:
        """Whether the compiled step trains it."""
        return isinstance(self._engine, NativeEngine)

    def __iter__(self) -> Iterator[EpochResult]:
        for epoch in range(1, self.epochs + 1):
            started = time.perf_counter()
            if self._average is not None:
                self._average.restore()
            trained = self._train_epoch(epoch)
            if trained is None:
                return
            if self._average is not None:
                self._average.apply()
            training_loss, training_accuracy, learning_rate = trained
            loss, accuracy = self._engine.evaluate(self._evaluation, self._metric)
            result = EpochResult(
                epoch=epoch,
                training_loss=training_loss,
                training_accuracy=training_accuracy,
                learning_rate=learning_rate,
                loss=loss,
                accuracy=accuracy,
                seconds=time.perf_counter() - started,
            )
            yield result
            if not result.is_finite:
                return

    def _train_epoch(self, epoch: int) -> tuple[float, float, float] | None:
        """Training loss, training accuracy and last learning rate; None where it was stopped."""
        order = torch.randperm(self._n_training, generator=self._generator, device=self._device)
        if self._places is not None:
            order = self._places[order]
        warps = self._draw_warps(epoch)
        learning_rate = 0.0
        for start, end in self._batches:
            if self._should_stop():
                return None
            self._engine.backward(order[start:end], None if warps is None else warps[start:end])
            if self._hyperparameters.gradient_clip is not None:
                nn.utils.clip_grad_norm_(
                    self._engine.parameters, self._hyperparameters.gradient_clip
                )
            self._optimizer.step()
            if self._average is not None:
                self._average.update()
            learning_rate = self._optimizer.param_groups[0]["lr"]
            if not isinstance(self._scheduler, lr_scheduler.StepLR):
                self._scheduler.step()
        if isinstance(self._scheduler, lr_scheduler.StepLR):
            self._scheduler.step()
        loss_sum, n_correct = self._engine.take_totals()
        n_seen = self._batches[-1][1]
        return loss_sum / n_seen, n_correct / n_seen, learning_rate

    def _draw_warps(self, epoch: int) -> Warps | None:
        """The epoch's augmentation of all training images, drawn at once; None if there is none."""
        augmentation, n = self._hyperparameters.augmentation, self._n_training
        final = self._hyperparameters.final_augmentation
        _, height, width = self._hyperparameters.spec.input_shape
        strength = None
        if final != 1:
            strength = shrinking_strength(n, epoch=epoch, epochs=self.epochs, final=final)
            strength = strength.to(self._device)
        return draw_warps(
            augmentation, n, self._generator, strength=strength, aspect=width / height
        )


def _never() -> bool:
    return False


def train(
    hyperparameters: Hyperparameters,
    training: Examples,
    evaluation: Examples,
    normalization: Normalization,
    *,
    places: Tensor | None = None,
    epochs: int,
    seed: int = 0,
    device: str = "auto",
    should_stop: Callable[[], bool] = _never,
    use_native: bool = True,
    metric: Metric = "accuracy",
) -> Training:
    """A training run, ready to be iterated over; its `network` is the one that is trained.

    The same seed on the same machine, with one thread, gives the same results to the digit.

    Args:
        places: those of the training images that are trained on, (N,), int64; by default, all are.
        should_stop: asked before each batch.
        use_native: whether the compiled step may serve, where it covers the network on a CPU.
            Without dropout the results are PyTorch's within rounding; dropout draws other masks.
        metric: by which it is evaluated after each epoch; what is minimised stays as it is.

    Raises:
        TrainingError: if a batch is larger than the training set.
        DeviceError: if the device is not there.
    """
    return Training(
        hyperparameters,
        training,
        evaluation,
        normalization,
        places=places,
        epochs=epochs,
        seed=seed,
        device=find_device(device),
        should_stop=should_stop,
        use_native=use_native,
        metric=metric,
    )


def _batches(n: int, batch_size: int) -> list[tuple[int, int]]:
    """First and last (excluded) position of each batch of an epoch.

    A single image left over is dropped: BatchNorm has no variance over one pixel of one image.
    """
    starts = [(start, min(start + batch_size, n)) for start in range(0, n, batch_size)]
    if len(starts) > 1 and starts[-1][1] - starts[-1][0] == 1:
        starts.pop()
    return starts


def make_scheduler(
    hyperparameters: Hyperparameters,
    optimizer: Optimizer,
    epochs: int,
    *,
    steps_per_epoch: int,
) -> lr_scheduler.LRScheduler:
    """Stepped after each batch; a StepLR after each epoch."""
    match hyperparameters.schedule:
        case OneCycle() as cycle:
            total_steps = max(cycle.total_epochs or 0, epochs) * steps_per_epoch
            share = cycle.warmup_share
            if share * total_steps == 1:  # PyTorch divides by the length of the warm-up, less 1
                share *= 1 - 1e-6
            return lr_scheduler.OneCycleLR(
                optimizer,
                max_lr=hyperparameters.learning_rate,
                total_steps=total_steps,
                pct_start=share,
                div_factor=cycle.div_factor,
                final_div_factor=cycle.final_div_factor,
                cycle_momentum=cycle.cycle_momentum,
            )
        case StepDecay() as decay:
            return lr_scheduler.StepLR(optimizer, decay.step_epochs(epochs), decay.gamma)
        case Cosine() as cosine:
            return lr_scheduler.CosineAnnealingLR(
                optimizer, epochs * steps_per_epoch, cosine.final_learning_rate
            )
        case Constant():
            return lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
