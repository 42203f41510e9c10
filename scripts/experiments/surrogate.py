"""What a recipe that was never trained would have reached, from the recorded table.

A recipe's curve is the logarithm of its validation error, epoch by epoch. It is split into the
final value, the mean of the last three epochs, and the shape, what is left of the curve; the shape
into its first three principal components. Each of the four numbers has a model of its own on the
recipe's features. Three kinds of model are tried, and for each number the one is taken whose
predictions, each recorded point left out in turn, rank the points best:

- `isotropic`: a Gaussian process with a Matérn 5/2 kernel and one length for all features
- `ard`: the same with a length for each feature
- `forest`: extremely randomised trees; a point is predicted by those trees that did not see it

An answer is the prediction and noise: of the final value as much as two seeds of one recipe differ
(`SEED_NOISE`), of the shape what the models left unexplained of the recorded curve of one of the
five recipes nearby. That includes what the models do not know, so epochs tell a little less here
about the final value than in truth. The models' own error is larger than the noise, and shrinks
with the table: with few points the landscape is flatter and smoother than the real one.

A network costs `epochs × (a + b × step_flops)` seconds, whatever the batch size.
"""

from __future__ import annotations

import math
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.decomposition import PCA
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from sklearn.model_selection import KFold
from threadpoolctl import threadpool_limits

from scripts.benchmarks.training_step import step_flops
from scripts.experiments.record_curves import EPOCHS
from search.space.hyperparameters import (
    Augmentation,
    Constant,
    Cosine,
    Hyperparameters,
    OneCycle,
    Schedule,
    StepDecay,
)
from search_models.size import parameter_count
from search_models.spec import Conv, Dropout, ModelSpec

Floats = NDArray[np.float64]
KINDS = ("isotropic", "ard", "forest")

CHANCE = 0.1  # the accuracy of a network whose loss is not finite
N_LAST = 3  # epochs whose mean is a trial's value
# Of the final value between two seeds of one recipe, among the best: 0.04 to 0.06 percentage
# points. In logarithms of the error it is taken to be the same for all recipes.
SEED_NOISE = 0.0005
_N_COMPONENTS = 3
_N_FOLDS = 5
_N_NEIGHBOURS = 5
_N_WIDTHS = 5
_LEAST_ERROR, _MOST_ERROR = 0.003, 0.93


@dataclass(frozen=True)
class Point:
    """One recorded training: `accuracies` are shares, one an epoch; `seconds` of all epochs.

    `processor` is that of the machine that recorded it.
    """

    recipe: Hyperparameters
    accuracies: tuple[float, ...]
    seconds: float
    n_epochs: int  # that were trained; fewer than there are accuracies where the loss diverged
    processor: str


def points_of(rows: Sequence[Mapping[str, str]]) -> list[Point]:
    """The rows of the recorded table. Epochs behind a loss that was not finite are at chance."""
    points = []
    for row in rows:
        texts = [row[f"accuracy_{epoch}"] for epoch in range(1, EPOCHS + 1)]
        accuracies = [float(text) for text in texts if text]
        filled = (*accuracies, *[CHANCE] * (EPOCHS - len(accuracies)))
        points.append(
            Point(recipe_of(row), filled, float(row["seconds"]), len(accuracies), row["processor"])
        )
    return points


def recipe_of(row: Mapping[str, Any]) -> Hyperparameters:
    """The recipe of a row of the recorded table."""
    augmentation = Augmentation(
        **{
            name: float(row[name])
            for name in ("rotation_degrees", "translation", "scale", "shear_degrees")
        }
    )
    return Hyperparameters(
        spec=ModelSpec.parse(row["spec"]),
        learning_rate=float(row["learning_rate"]),
        optimizer=row["optimizer"],
        momentum=float(row["momentum"]),
        weight_decay=float(row["weight_decay"]),
        schedule=_schedule_of(row),
        batch_size=int(row["batch_size"]),
        augmentation=augmentation,
    )


def _schedule_of(row: Mapping[str, Any]) -> Schedule:
    match row["schedule"]:
        case "OneCycle":
            return OneCycle(warmup_share=float(row["warmup_share"]))
        case "StepDecay":
            return StepDecay(float(row["step_share"]), gamma=float(row["step_gamma"]))
        case "Cosine":
            return Cosine()
    return Constant()


def features(recipe: Hyperparameters) -> dict[str, float]:
    """A recipe as numbers that every topology has; sizes, rates and widths are logarithms.

    Widths are those of five convolutions, from the first to the last, evenly spaced in depth. A
    number that belongs to another schedule than the recipe's is in the middle of its range.
    """
    return {**_network_features(recipe.spec), **_training_features(recipe)}


def _network_features(spec: ModelSpec) -> dict[str, float]:
    layers = list(zip(spec.layers, spec.output_shapes(), strict=True))
    convs = [layer for layer in spec.layers if isinstance(layer, Conv)]
    sides = [height for layer, (_, height, _) in layers if isinstance(layer, Conv)]
    places = np.linspace(0, len(convs) - 1, _N_WIDTHS).round().astype(int)
    drops = [layer.rate for layer in spec.layers if isinstance(layer, Dropout)]
    return {
        "parameters": math.log(parameter_count(spec)),
        "flops": math.log(step_flops(spec)),
        **{f"width_{i}": math.log(convs[place].channels) for i, place in enumerate(places)},
        "narrowest": math.log(min(conv.channels for conv in convs)),
        "depth": math.log(len(convs)),
        "padded": sum(conv.padding for conv in convs) / len(convs),
        "last_side": math.log(sides[-1]),
        "dropout": max(drops, default=0.0),
    }


def _training_features(recipe: Hyperparameters) -> dict[str, float]:
    schedule, augmentation = recipe.schedule, recipe.augmentation
    warmup = schedule.warmup_share if isinstance(schedule, OneCycle) else 0.2
    share, gamma = 0.5, 0.16
    if isinstance(schedule, StepDecay):
        share, gamma = schedule.step_share, schedule.gamma
    return {
        "learning_rate": math.log(recipe.learning_rate),
        "momentum": math.log(1 - recipe.momentum),
        "weight_decay": math.log(recipe.weight_decay + 1e-7),
        "batch_size": math.log(recipe.batch_size),
        "rotation": augmentation.rotation_degrees,
        "translation": augmentation.translation,
        "scale": augmentation.scale,
        "shear": augmentation.shear_degrees,
        "is_adaptive": float(recipe.optimizer in ("adam", "adamw")),
        **{
            kind.__name__: float(isinstance(schedule, kind))
            for kind in (OneCycle, StepDecay, Cosine, Constant)
        },
        "warmup_share": warmup,
        "step_share": share,
        "step_gamma": math.log(gamma),
    }


# --- Models of one number ---


class _Model(Protocol):
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


def _make_model(kind: str, places: Floats, target: Floats) -> _Model:
    if kind == "forest":
        return _Forest(places, target)
    return _Process(places, target, is_ard=kind == "ard")


def rank_correlation(a: Floats, b: Floats) -> float:
    """Spearman's; 0 where one side is all ties, and so tells nothing."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(spearmanr(a, b).statistic)


# --- The whole ---


@dataclass(frozen=True)
class Cost:
    """Seconds of one epoch: `fixed + per_flop × step_flops`.

    Fitted to the recorded seconds by the least mean absolute logarithm of the ratio, both parts
    at least 0: the recording machines' speed moved by a factor of two and more, and a median does
    not ask how far off the worst rows are. Each processor has a scale of its own; the one kept is
    that of the processor with the most points, on its middling day.
    """

    fixed: float
    per_flop: float

    @classmethod
    def fit(cls, points: Sequence[Point]) -> Cost:
        flops = np.array([step_flops(point.recipe.spec) for point in points], dtype=float)
        seconds = np.log([point.seconds / point.n_epochs for point in points])
        names, places = np.unique([point.processor for point in points], return_inverse=True)
        most = int(np.bincount(places).argmax())
        best = (math.inf, 0.0, 0.0)
        for share in np.linspace(0, 1, 101):  # of a middling network's cost that is fixed
            ratios = seconds - np.log(share + (1 - share) * flops / np.median(flops))
            scales = np.array([np.median(ratios[places == i]) for i in range(len(names))])
            loss = float(np.abs(ratios - scales[places]).mean())
            best = min(best, (loss, float(share), math.exp(scales[most])))
        _, share, level = best
        return cls(share * level, (1 - share) * level / float(np.median(flops)))

    def epoch_seconds(self, spec: ModelSpec) -> float:
        return self.fixed + self.per_flop * step_flops(spec)


@dataclass(frozen=True)
class Answer:
    """What training a recipe would have shown.

    Args:
        accuracies: of each epoch, with noise.
        true_value: the mean accuracy of the last three epochs without noise.
    """

    accuracies: tuple[float, ...]
    true_value: float
    epoch_seconds: float


class Surrogate:
    """Answers any recipe as the recorded ones were answered by training.

    Args:
        kinds: the kinds of model to choose from.

    Attributes:
        chosen: which kind models the final value, and which each component of the shape.
        scores: of each kind, the rank correlation of the final values that it predicts with the
            point left out with those recorded: among all points, and among the upper half.
    """

    def __init__(self, points: Sequence[Point], kinds: Sequence[str] = KINDS) -> None:
        self.points = points
        self.cost = Cost.fit(points)
        raw = np.array([list(features(point.recipe).values()) for point in points])
        self._centre, self._spread = raw.mean(axis=0), raw.std(axis=0)
        self._spread[self._spread == 0] = 1.0
        self._places = (raw - self._centre) / self._spread
        curves = _log_errors(np.array([point.accuracies for point in points]))
        final = curves[:, -N_LAST:].mean(axis=1)
        shapes = curves - final[:, None]
        self._pca = PCA(min(_N_COMPONENTS, len(points) - 1)).fit(shapes)
        self._final, self.scores = _choose(kinds, self._places, final)
        chosen = [_choose(kinds, self._places, part) for part in self._pca.transform(shapes).T]
        self._parts = [model for model, _ in chosen]
        self.chosen = [_best(scores) for scores in (self.scores, *(s for _, s in chosen))]
        left_out = np.stack([model.left_out for model in self._parts], axis=1)
        self._residuals = shapes - self._pca.inverse_transform(left_out)
        self.left_out_error = float(np.std(final - self._final.left_out))
        best_quarter = np.exp(np.sort(final)[: max(1, len(points) // 4)])
        self.final_noise = SEED_NOISE / float(np.median(best_quarter))

    def answer(self, recipe: Hyperparameters, seed: int) -> Answer:
        """The same recipe and seed get the same answer."""
        values = np.array(list(features(recipe).values()))
        place = (values - self._centre) / self._spread
        parts = np.array([model.predict(place) for model in self._parts])
        curve = self._final.predict(place) + self._pca.mean_ + parts @ self._pca.components_
        draw = np.random.default_rng([zlib.crc32(repr(recipe).encode()), seed])
        distance = ((self._places - place) ** 2).sum(axis=1)
        neighbour = draw.choice(np.argsort(distance)[:_N_NEIGHBOURS])
        noise = self._residuals[neighbour] + draw.normal(scale=self.final_noise)
        return Answer(
            accuracies=tuple(map(float, _accuracies(curve + noise))),
            true_value=float(_accuracies(curve)[-N_LAST:].mean()),
            epoch_seconds=self.cost.epoch_seconds(recipe.spec),
        )


def _log_errors(accuracies: Floats) -> Floats:
    return np.asarray(np.log(np.clip(1 - accuracies, _LEAST_ERROR, _MOST_ERROR)))


def _accuracies(log_errors: Floats) -> Floats:
    return np.asarray(1 - np.clip(np.exp(log_errors), _LEAST_ERROR, _MOST_ERROR))


_Scores = dict[str, tuple[float, float]]


def _choose(kinds: Sequence[str], places: Floats, target: Floats) -> tuple[_Model, _Scores]:
    with threadpool_limits(1):  # the matrices are small: threads would wait for each other
        models = {kind: _make_model(kind, places, target) for kind in kinds}
    upper = target <= np.median(target)  # of errors: the better half
    scores = {
        kind: (
            rank_correlation(model.left_out, target),
            rank_correlation(model.left_out[upper], target[upper]),
        )
        for kind, model in models.items()
    }
    return models[_best(scores)], scores


def _best(scores: _Scores) -> str:
    return max(scores, key=lambda kind: scores[kind][0])
