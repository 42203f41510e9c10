"""Trains the configurations of a search, and counts its seconds."""

from __future__ import annotations

import statistics
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from search.space.hyperparameters import Hyperparameters
from search.space.space import Space
from search.training.epochs import N_LAST_EPOCHS

N_RACED = 3  # of the best whole trainings


@dataclass
class Trained:
    """A configuration as far as it was trained.

    Args:
        epochs: the accuracy of each epoch that is still to come, and its seconds.
        accuracies: of those so far, as shares.
    """

    recipe: Hyperparameters
    epochs: Iterator[tuple[float, float]]
    accuracies: list[float] = field(default_factory=list)

    @property
    def value(self) -> float:
        return statistics.fmean(self.accuracies[-N_LAST_EPOCHS:])


class Trainer(ABC):
    """What a way of searching asks for trainings.

    Args:
        seed: of the search.
        seconds: of training, after which nothing is trained any more.
    """

    def __init__(self, space: Space, epochs: int, *, seed: int, seconds: float) -> None:
        self.space = space
        self.epochs = epochs
        self.seed = seed
        self.seconds = seconds
        self.spent = 0.0
        self.trained: dict[str, Trained] = {}

    @property
    def is_over(self) -> bool:
        return self.spent >= self.seconds

    def train(self, key: str, values: Mapping[str, Any], epoch: int) -> list[float]:
        """Trains a configuration up to an epoch, on from where it was.

        Returns:
            the accuracies of all its epochs so far; none where the seconds are over before.
        """
        if key not in self.trained:
            recipe = self.space.hyperparameters(self.space.with_single(values))
            self.trained[key] = Trained(recipe, self._begin(recipe, len(self.trained)))
        trained = self.trained[key]
        while len(trained.accuracies) < min(epoch, self.epochs):
            accuracy, seconds = next(trained.epochs)
            self.spent += seconds
            if self.is_over:
                return []
            trained.accuracies.append(accuracy)
        return list(trained.accuracies)

    def best(self) -> list[Trained]:
        """The whole trainings that a race at the end is among, the best first.

        Of a search that has come to the end of none, those that are furthest.
        """
        most = max((len(one.accuracies) for one in self.trained.values()), default=0)
        furthest = [one for one in self.trained.values() if most and len(one.accuracies) == most]
        return sorted(furthest, key=lambda one: one.value, reverse=True)[:N_RACED]

    @abstractmethod
    def _begin(self, recipe: Hyperparameters, number: int) -> Iterator[tuple[float, float]]:
        """The accuracy of each epoch of a training, and its seconds.

        Args:
            number: how many trainings the search has begun before.
        """
