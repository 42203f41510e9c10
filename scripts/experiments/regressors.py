"""Models of one number of a recipe's curve: Gaussian processes and randomised trees.

Each knows what it would have predicted for every point that it was fitted to, had it not seen it.
"""

from __future__ import annotations

import math
import warnings
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from sklearn.model_selection import KFold

Floats = NDArray[np.float64]
KINDS = ("isotropic", "ard", "forest")
_N_FOLDS = 5


class Model(Protocol):
    """Fitted to one target, (n,), at places, (n, n_features), where features have variance 1."""

    left_out: Floats
    """What each point is predicted to be by a model that has not seen it."""

    def predict(self, place: Floats) -> float: ...


class _Process:
    """A Gaussian process; its prediction is a handful of NumPy calls, scikit-learn's a hundred.

    A point left out is predicted from all the others, with lengths that were fitted without its
    fold: fitted to all points they would have seen what they are to predict.
    """

    def __init__(self, places: Floats, target: Floats, *, is_ard: bool) -> None:
        self._mean, self._std = target.mean(), target.std() or 1.0
        scaled = (target - self._mean) / self._std
        fit = _fit_process(places, scaled, is_ard=is_ard)
        self._length = fit.kernel_.k1.k2.length_scale
        self._places = places / self._length
        self._weights = fit.kernel_.k1.k1.constant_value * fit.alpha_
        residuals = np.empty_like(scaled)
        folds = KFold(_N_FOLDS, shuffle=True, random_state=0)
        for kept, left in folds.split(places):
            kernel = _fit_process(places[kept], scaled[kept], is_ard=is_ard).kernel_
            residuals[left] = _left_out_residuals(kernel(places), scaled)[left]
        self.left_out = target - residuals * self._std

    def predict(self, place: Floats) -> float:
        distance = np.sqrt(5 * ((self._places - place / self._length) ** 2).sum(axis=1))
        kernel = (1 + distance + distance**2 / 3) * np.exp(-distance)
        return float(self._mean + self._std * (kernel @ self._weights))


def _fit_process(places: Floats, target: Floats, *, is_ard: bool) -> GaussianProcessRegressor:
    # In so many dimensions two recipes are about √(2 × features) apart.
    typical = math.sqrt(places.shape[1])
    lengths = np.full(places.shape[1], typical) if is_ard else typical
    kernel = ConstantKernel(1.0, (0.05, 50)) * Matern(lengths, (0.5, 200), nu=2.5) + WhiteKernel(
        0.1, (1e-3, 2)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a length at its bound is an answer
        return GaussianProcessRegressor(kernel).fit(places, target)


def _left_out_residuals(covariance: Floats, target: Floats) -> Floats:
    """Each target less its prediction from all the others (Rasmussen and Williams, 5.4.2)."""
    inverse = np.linalg.inv(covariance)
    return np.asarray(inverse @ target / np.diag(inverse))


class _Forest:
    """Extremely randomised trees, walked down all at once: one point in a few NumPy calls."""

    def __init__(self, places: Floats, target: Floats) -> None:
        forest = ExtraTreesRegressor(
            200, min_samples_leaf=2, bootstrap=True, oob_score=True, random_state=0
        ).fit(places, target)
        self.left_out = forest.oob_prediction_
        trees = [estimator.tree_ for estimator in forest.estimators_]
        sizes = [tree.node_count for tree in trees]
        self._roots = np.cumsum([0, *sizes[:-1]])
        self._feature = np.concatenate([tree.feature for tree in trees])
        self._threshold = np.concatenate([tree.threshold for tree in trees])
        self._value = np.concatenate([tree.value[:, 0, 0] for tree in trees])
        self._is_leaf = self._feature < 0
        offset = np.repeat(self._roots, sizes)
        self._left = offset + np.concatenate([tree.children_left for tree in trees])
        self._right = offset + np.concatenate([tree.children_right for tree in trees])
        # A leaf is its own child, so that the walk may go on until the deepest tree ends.
        leaves = np.flatnonzero(self._is_leaf)
        self._left[leaves] = self._right[leaves] = leaves

    def predict(self, place: Floats) -> float:
        place = place.astype(np.float32)  # as the trees were grown
        nodes = self._roots
        while not self._is_leaf[nodes].all():
            goes_left = place[self._feature[nodes]] <= self._threshold[nodes]
            nodes = np.where(goes_left, self._left[nodes], self._right[nodes])
        return float(self._value[nodes].mean())


def make_model(kind: str, places: Floats, target: Floats) -> Model:
    if kind == "forest":
        return _Forest(places, target)
    return _Process(places, target, is_ard=kind == "ard")


def rank_correlation(a: Floats, b: Floats) -> float:
    """Spearman's; 0 where one side is all ties, and so tells nothing."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(spearmanr(a, b).statistic)
