"""`train`: one network, one recipe, one `EpochResult` an epoch. Knows no Optuna."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.optim import Optimizer, lr_scheduler

from models.convnet import ConvNet
from search.augment import augment
from search.data import Examples, Normalization
from search.exceptions import DeviceError, TrainingError
from search.hyperparameters import Constant, Cosine, Hyperparameters, OneCycle, StepDecay

_EVALUATION_BATCH = 500
_N_LAST_EPOCHS = 3


@dataclass(frozen=True, slots=True)
class EpochResult:
    """What one epoch gave.

    Args:
        epoch: counted from 1.
        training_loss, training_accuracy: means over the epoch's training images, each taken just
            before the step that it made.
        learning_rate: that of the epoch's last step.
        loss, accuracy: on the evaluation images, after the epoch.
        seconds: the epoch's own time, evaluation included.
    """

    epoch: int
    training_loss: float
    training_accuracy: float
    learning_rate: float
    loss: float
    accuracy: float
    seconds: float

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.training_loss) and math.isfinite(self.loss)


def last_epochs_mean(results: Sequence[EpochResult]) -> float:
    """The mean accuracy of the last three epochs (or fewer): what a network is judged by.

    Being good in one epoch is luck; the mean asks for being good in all of them.
    """
    return statistics.fmean(result.accuracy for result in results[-_N_LAST_EPOCHS:])


def find_device(name: str) -> torch.device:
    """The device of that name; `auto` takes the GPU where there is one.

    Raises:
        DeviceError: if it is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"A device must be auto, cpu or cuda, but got {name!r}.") from error
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"A device must be auto, cpu or cuda, but got {name!r}.")
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
        epochs: int,
        seed: int,
        device: torch.device,
        should_stop: Callable[[], bool],
    ) -> None:
        if hyperparameters.batch_size > len(training):
            raise TrainingError(
                f"A batch must not be larger than the training set, but batch_size is "
                f"{hyperparameters.batch_size} and there are {len(training)} training images."
            )
        torch.manual_seed(seed)  # initialisation and dropout draw from the global generator
        self.network = ConvNet(hyperparameters.spec).to(device)
        self.epochs = epochs
        self._hyperparameters = hyperparameters
        self._training = training.to(device)
        self._evaluation = evaluation.to(device)
        self._normalize = _Normalize(normalization, device)
        self._device = device
        self._generator = Generator(device).manual_seed(seed)
        self._should_stop = should_stop
        self._optimizer = _optimizer(hyperparameters, self.network)
        self._batches = _batches(len(training), hyperparameters.batch_size)
        self._scheduler = _scheduler(
            hyperparameters, self._optimizer, epochs, steps_per_epoch=len(self._batches)
        )

    def __iter__(self) -> Iterator[EpochResult]:
        for epoch in range(1, self.epochs + 1):
            started = time.perf_counter()
            trained = self._train_epoch()
            if trained is None:
                return
            training_loss, training_accuracy, learning_rate = trained
            loss, accuracy = evaluate(self.network, self._evaluation, self._normalize)
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

    def _train_epoch(self) -> tuple[float, float, float] | None:
        """Training loss, training accuracy and last learning rate; None where it was stopped."""
        n = len(self._training)
        order = torch.randperm(n, generator=self._generator, device=self._device)
        loss_sum = torch.zeros((), device=self._device)
        n_correct = torch.zeros((), dtype=torch.int64, device=self._device)
        learning_rate = 0.0
        self.network.train()
        for start, end in self._batches:
            if self._should_stop():
                return None
            index = order[start:end]
            images = self._training.images[index].float().div_(255)  # (N, C, H, W)
            images = augment(images, self._hyperparameters.augmentation, self._generator)
            labels = self._training.labels[index]  # (N,)
            logits = self.network(self._normalize(images))  # (N, n_classes)
            loss = F.cross_entropy(logits, labels)
            self._step(loss)
            learning_rate = self._optimizer.param_groups[0]["lr"]
            if not isinstance(self._scheduler, lr_scheduler.StepLR):
                self._scheduler.step()
            loss_sum += loss.detach() * len(index)
            n_correct += (logits.detach().argmax(dim=1) == labels).sum()
        if isinstance(self._scheduler, lr_scheduler.StepLR):
            self._scheduler.step()
        n_seen = self._batches[-1][1]
        return loss_sum.item() / n_seen, n_correct.item() / n_seen, learning_rate

    def _step(self, loss: Tensor) -> None:
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self._hyperparameters.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self._hyperparameters.gradient_clip)
        self._optimizer.step()


def _never() -> bool:
    return False


def train(
    hyperparameters: Hyperparameters,
    training: Examples,
    evaluation: Examples,
    normalization: Normalization,
    *,
    epochs: int,
    seed: int = 0,
    device: str = "auto",
    should_stop: Callable[[], bool] = _never,
) -> Training:
    """A training run, ready to be iterated over; its `network` is the one that is trained.

    The same seed on the same machine, with one thread, gives the same results to the digit.

    Args:
        should_stop: asked before each batch.

    Raises:
        TrainingError: if a batch is larger than the training set.
        DeviceError: if the device is not there.
    """
    return Training(
        hyperparameters,
        training,
        evaluation,
        normalization,
        epochs=epochs,
        seed=seed,
        device=find_device(device),
        should_stop=should_stop,
    )


class _Normalize:
    """(images - mean) / std for each channel of (N, C, H, W)."""

    def __init__(self, normalization: Normalization, device: torch.device) -> None:
        self._mean = torch.tensor(normalization.mean, device=device).view(1, -1, 1, 1)
        self._std = torch.tensor(normalization.std, device=device).view(1, -1, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        return (images - self._mean) / self._std


@torch.inference_mode()
def evaluate(
    network: nn.Module, examples: Examples, normalize: Callable[[Tensor], Tensor]
) -> tuple[float, float]:
    """Mean cross-entropy and accuracy of `network` on `examples`."""
    network.eval()
    loss_sum, n_correct = 0.0, 0
    for start in range(0, len(examples), _EVALUATION_BATCH):
        batch = examples[start : start + _EVALUATION_BATCH]
        logits = network(normalize(batch.images.float().div_(255)))  # (N, n_classes)
        loss_sum += F.cross_entropy(logits, batch.labels, reduction="sum").item()
        n_correct += int((logits.argmax(dim=1) == batch.labels).sum())
    return loss_sum / len(examples), n_correct / len(examples)


def _batches(n: int, batch_size: int) -> list[tuple[int, int]]:
    """First and last (excluded) position of each batch of an epoch.

    A single image left over is dropped: BatchNorm has no variance over one pixel of one image.
    """
    starts = [(start, min(start + batch_size, n)) for start in range(0, n, batch_size)]
    if len(starts) > 1 and starts[-1][1] - starts[-1][0] == 1:
        starts.pop()
    return starts


def _optimizer(hyperparameters: Hyperparameters, network: nn.Module) -> Optimizer:
    rate, decay = hyperparameters.learning_rate, hyperparameters.weight_decay
    parameters = network.parameters()
    match hyperparameters.optimizer:
        case "sgd" | "nesterov" as name:
            return torch.optim.SGD(
                parameters,
                lr=rate,
                momentum=hyperparameters.momentum,
                weight_decay=decay,
                nesterov=name == "nesterov" and hyperparameters.momentum > 0,
            )
        case "adam" | "adamw" as name:
            cls = torch.optim.Adam if name == "adam" else torch.optim.AdamW
            betas = (hyperparameters.momentum, 0.999)
            return cls(parameters, lr=rate, betas=betas, weight_decay=decay)


def _scheduler(
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
