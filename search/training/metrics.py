"""How good a network is as one number, and what that means for classes of uneven size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, cast, get_args

from search.exceptions import InputError

if TYPE_CHECKING:  # a study names its metric, and reading a study does not need torch
    from torch import Tensor

Metric = Literal["accuracy", "balanced-accuracy"]
_UNEVEN = 2.0  # so many times the smallest class is the largest; MNIST's are within 1.25


def check_metric(name: str) -> Metric:
    """The metric of that name.

    Raises:
        InputError: if there is none.
    """
    if name not in get_args(Metric):
        raise InputError(f"A metric must be {' or '.join(get_args(Metric))}, but got {name!r}.")
    return cast(Metric, name)


def metric_words(metric: str) -> str:
    """A metric as people write it."""
    return metric.replace("-", " ")


def score(metric: Metric, right: Tensor, labels: Tensor) -> float:
    """A share from 0 to 1: of all images, or of each class's images and then the classes' mean.

    The latter is the mean recall of the classes, as scikit-learn's `balanced_accuracy_score` has
    it: Brodersen et al., "The Balanced Accuracy and Its Posterior Distribution" (2010). A class
    without images does not count.

    Args:
        right: whether each image is classified right, (N,), bool.
        labels: the true classes, (N,), int64.
    """
    if metric == "accuracy":
        return int(right.sum()) / len(right)
    n_images = labels.bincount()
    n_right = labels[right].bincount(minlength=len(n_images))
    is_there = n_images > 0
    return float((n_right[is_there].double() / n_images[is_there]).mean())


def is_uneven(class_counts: Sequence[int]) -> bool:
    """Whether classes of these sizes differ so much that a small one hardly counts."""
    return max(class_counts) >= _UNEVEN * min(class_counts)


def sample_size(metric: Metric, class_counts: Sequence[int]) -> int:
    """The number of images whose plain accuracy scatters as much as the metric does.

    With a share p right in each of K classes, the variance of the classes' mean is
    p (1 - p) / K² times the sum of 1 / n over the classes; that of a share of N images is
    p (1 - p) / N.
    """
    if metric == "accuracy":
        return sum(class_counts)
    present = [n for n in class_counts if n]
    return round(len(present) ** 2 / sum(1 / n for n in present))
