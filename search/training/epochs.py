"""What an epoch of training gives, and a trial's value."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

N_LAST_EPOCHS = 3  # those that a training run is judged by


@dataclass(frozen=True, slots=True)
class EpochResult:
    """What one epoch gave.

    Args:
        epoch: counted from 1.
        training_loss, training_accuracy: means over the epoch's training images, each taken just
            before the step that it made. The loss is what is minimised, label smoothing included.
        learning_rate: that of the epoch's last step.
        loss, accuracy: on the evaluation images, after the epoch, with the averaged weights where
            the recipe has an average; the loss is the cross-entropy, and the accuracy that of the
            run's metric: balanced where that is.
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

    def to_dict(self) -> dict[str, Any]:
        """As values that JSON knows: a number that is not finite becomes null."""
        return {
            key: value if not isinstance(value, float) or math.isfinite(value) else None
            for key, value in asdict(self).items()
        }


def last_epochs_mean(results: Sequence[EpochResult]) -> float:
    """The mean accuracy of the last three epochs (or fewer): what a network is judged by.

    Being good in one epoch is luck; the mean asks for being good in all of them.
    """
    return statistics.fmean(result.accuracy for result in results[-N_LAST_EPOCHS:])
