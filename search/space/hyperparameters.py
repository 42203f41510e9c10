"""`Hyperparameters`: one recipe, all that training needs besides data, epochs and a seed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from search_models.network import Network, network_from_dict

OptimizerName = Literal["sgd", "nesterov", "adam", "adamw"]

N_CONTROL_POINTS = 5  # of an elastic distortion, along each axis


def _require(rule: str, holds: bool, value: object) -> None:
    if not holds:
        raise ValueError(f"{rule} must hold, but got {value!r}.")


def _require_kinds(values: object) -> None:
    """Sees to it that what came from JSON, which somebody may have changed, has the fields' kinds.

    Args:
        values: a dataclass whose fields name bool, int, float, or one of these or None.

    Raises:
        ValueError: if a value is of another kind.
    """
    for field_ in fields(values):  # type: ignore[arg-type]
        value, kind = getattr(values, field_.name), str(field_.type)
        if value is None and kind.endswith("| None"):
            continue
        allowed = _KINDS.get(kind.removesuffix(" | None"))
        if allowed is None:  # a value of a class of its own, which has seen to it
            continue
        _require(f"{field_.name} is {kind}", type(value) in allowed, value)
        if type(value) is int:  # JSON knows any number of digits
            _require(f"{field_.name} fits in 64 bits", abs(value) < 2**63, value)


# By type, since a bool is an int to Python.
_KINDS: dict[str, tuple[type, ...]] = {"bool": (bool,), "int": (int,), "float": (int, float)}


@dataclass(frozen=True, slots=True)
class OneCycle:
    """The learning rate rises from `peak / div_factor` to the peak, then falls to almost nothing.

    Smith and Topin, "Super-Convergence" (2018), as `torch.optim.lr_scheduler.OneCycleLR` has it
    with cosine annealing: stepped after each batch, ending at `peak / (div_factor *
    final_div_factor)`.

    Args:
        warmup_share: the share of all steps in which the rate rises.
        cycle_momentum: whether momentum moves between 0.95 and 0.85, against the learning rate,
            and the recipe's own momentum never acts (PyTorch's default).
        total_epochs: the epochs that the cycle spans, where a run stops before its end.
    """

    warmup_share: float = 0.3
    div_factor: float = 25.0
    final_div_factor: float = 1e4
    cycle_momentum: bool = False
    total_epochs: int | None = None

    def __post_init__(self) -> None:
        _require_kinds(self)
        _require("0 <= warmup_share <= 1", 0 <= self.warmup_share <= 1, self.warmup_share)
        _require("0 < div_factor < inf", 0 < self.div_factor < math.inf, self)
        _require("0 < final_div_factor < inf", 0 < self.final_div_factor < math.inf, self)
        total = self.total_epochs
        _require("total_epochs >= 1", total is None or total >= 1, total)


@dataclass(frozen=True, slots=True)
class StepDecay:
    """The learning rate is multiplied by `gamma` each time a share of the epochs has passed.

    Args:
        step_share: the share; the drops fall between epochs, at the nearest whole number.
    """

    step_share: float
    gamma: float = 0.1

    def __post_init__(self) -> None:
        _require_kinds(self)
        _require("0 < step_share < inf", 0 < self.step_share < math.inf, self)
        _require("0 <= gamma < inf", 0 <= self.gamma < math.inf, self)

    def step_epochs(self, epochs: int) -> int:
        """The number of epochs between two drops, in a run of `epochs`."""
        return max(1, round(self.step_share * epochs))


@dataclass(frozen=True, slots=True)
class Cosine:
    """The learning rate falls along half a cosine to `final_learning_rate`, batch by batch."""

    final_learning_rate: float = 0.0

    def __post_init__(self) -> None:
        _require_kinds(self)
        rate = self.final_learning_rate
        _require("0 <= final_learning_rate < inf", 0 <= rate < math.inf, rate)


@dataclass(frozen=True, slots=True)
class Constant:
    """The learning rate stays as it is."""


Schedule = OneCycle | StepDecay | Cosine | Constant
_SCHEDULES: dict[str, type[Schedule]] = {
    "one-cycle": OneCycle,
    "step": StepDecay,
    "cosine": Cosine,
    "constant": Constant,
}


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Random changes of the training images: affine ones, each drawn evenly from ± its range, and
    elastic distortions.

    Args:
        rotation_degrees: rotation around the centre.
        translation: shift along each axis, as a share of the image's side.
        scale: relative change of size; 0.1 draws factors from 0.9 to 1.1.
        shear_degrees: horizontal shear.
        elastic: standard deviation of the displacement of the control points, along each axis, as
            a share of the image's side; what lies between the points moves smoothly along.
        flip: the probability that an image is mirrored, left to right.
    """

    rotation_degrees: float = 0.0
    translation: float = 0.0
    scale: float = 0.0
    shear_degrees: float = 0.0
    elastic: float = 0.0
    flip: float = 0.0

    def __post_init__(self) -> None:
        _require_kinds(self)
        _require("0 <= rotation_degrees <= 180", 0 <= self.rotation_degrees <= 180, self)
        _require("0 <= translation <= 1", 0 <= self.translation <= 1, self)
        _require("0 <= scale < 1", 0 <= self.scale < 1, self)
        _require("0 <= shear_degrees < 90", 0 <= self.shear_degrees < 90, self)
        _require("0 <= elastic <= 0.25", 0 <= self.elastic <= 0.25, self)
        _require("0 <= flip <= 1", 0 <= self.flip <= 1, self)

    @property
    def is_identity(self) -> bool:
        return self == Augmentation()


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """One recipe: a network and how to train it.

    Args:
        momentum: of SGD; Adam and AdamW use it as their beta1.
        gradient_clip: the largest norm that a batch's gradient may have, or None.
        label_smoothing: the share of each label that is spread evenly over all classes.
        ema_epochs: the horizon of the weights' moving average, which is evaluated and kept; at
            first it is a ninth of the epochs so far. 0 keeps the weights themselves.
        final_augmentation: the share of the augmentation's ranges that is left at the end of
            training; they shrink to it along a straight line, image by image.

    Raises:
        ValueError: if a value is outside the range in which training is defined.
    """

    spec: Network
    learning_rate: float
    optimizer: OptimizerName = "nesterov"
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: Schedule = field(default_factory=OneCycle)
    batch_size: int = 128
    augmentation: Augmentation = field(default_factory=Augmentation)
    gradient_clip: float | None = None
    label_smoothing: float = 0.0
    ema_epochs: float = 0.0
    final_augmentation: float = 1.0

    def __post_init__(self) -> None:
        _require_kinds(self)
        names = get_args(OptimizerName)
        _require(f"optimizer in {names}", self.optimizer in names, self.optimizer)
        rate = self.learning_rate
        _require("0 < learning_rate < inf", 0 < rate < math.inf, rate)
        _require("0 <= momentum < 1", 0 <= self.momentum < 1, self.momentum)
        _require("0 <= weight_decay < inf", 0 <= self.weight_decay < math.inf, self.weight_decay)
        _require("batch_size >= 1", self.batch_size >= 1, self.batch_size)
        clip = self.gradient_clip
        _require("0 < gradient_clip < inf", clip is None or 0 < clip < math.inf, clip)
        _require("0 <= label_smoothing < 1", 0 <= self.label_smoothing < 1, self.label_smoothing)
        _require("0 <= ema_epochs < inf", 0 <= self.ema_epochs < math.inf, self.ema_epochs)
        final = self.final_augmentation
        _require("0 <= final_augmentation <= 1", 0 <= final <= 1, final)

    def to_dict(self) -> dict[str, Any]:
        """As values that JSON knows; `from_dict` gives the same recipe back."""
        values = asdict(self)
        values["spec"] = self.spec.to_dict()
        kind = next(name for name, cls in _SCHEDULES.items() if type(self.schedule) is cls)
        values["schedule"] = {"kind": kind, **asdict(self.schedule)}
        for name in ("elastic", "flip"):
            if values["augmentation"][name] == 0:
                # A recipe without it stays what it was before there was any: runs are found by it.
                del values["augmentation"][name]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Hyperparameters:
        """The recipe that `to_dict` wrote, in this version or one that knew fewer fields.

        Raises:
            ValueError: if a value is wrong.
            KeyError, TypeError: if something is missing or unknown.
        """
        schedule = dict(values["schedule"])
        return cls(
            **{
                **values,
                "spec": network_from_dict(values["spec"]),
                "schedule": _SCHEDULES[schedule.pop("kind")](**schedule),
                "augmentation": Augmentation(**values["augmentation"]),
            }
        )


def schedule_of(value: Mapping[str, Any]) -> Schedule:
    """The schedule that a space's values name."""
    match value["schedule"]:
        case "one-cycle":
            return OneCycle(warmup_share=float(value["warmup_share"]))
        case "step":
            return StepDecay(float(value["step_share"]), gamma=float(value["step_gamma"]))
        case "cosine":
            return Cosine()
        case _:
            return Constant()
