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
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from scripts.benchmarks.step_flops import step_flops
from scripts.experiments.recipe_features import features
from scripts.experiments.recorded_points import Point
from scripts.experiments.regressors import KINDS, Floats, Model, make_model, rank_correlation
from search.space.hyperparameters import Hyperparameters
from search_models.network import in_notation
from search_models.spec import ModelSpec

N_LAST = 3  # epochs whose mean is a trial's value
# Of the final value between two seeds of one recipe, among the best: 0.04 to 0.06 percentage
# points. In logarithms of the error it is taken to be the same for all recipes.
SEED_NOISE = 0.0005
_N_COMPONENTS = 3
_N_NEIGHBOURS = 5
_LEAST_ERROR, _MOST_ERROR = 0.003, 0.93


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
        flops = np.array(
            [step_flops(in_notation(point.recipe.spec)) for point in points], dtype=float
        )
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
        featured: a recipe as numbers.
        seed_noise: standard deviation of the final value between two seeds of one recipe.

    Attributes:
        chosen: which kind models the final value, and which each component of the shape.
        scores: of each kind, the rank correlation of the final values that it predicts with the
            point left out with those recorded: among all points, and among the upper half.
    """

    def __init__(
        self,
        points: Sequence[Point],
        kinds: Sequence[str] = KINDS,
        *,
        featured: Callable[[Hyperparameters], Mapping[str, float]] = features,
        seed_noise: float = SEED_NOISE,
    ) -> None:
        self.points = points
        self._featured = featured
        self.cost = Cost.fit(points)
        raw = np.array([list(featured(point.recipe).values()) for point in points])
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
        self.final_noise = seed_noise / float(np.median(best_quarter))

    def answer(self, recipe: Hyperparameters, seed: int) -> Answer:
        """The same recipe and seed get the same answer."""
        values = np.array(list(self._featured(recipe).values()))
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
            epoch_seconds=self.cost.epoch_seconds(in_notation(recipe.spec)),
        )


def _log_errors(accuracies: Floats) -> Floats:
    return np.asarray(np.log(np.clip(1 - accuracies, _LEAST_ERROR, _MOST_ERROR)))


def _accuracies(log_errors: Floats) -> Floats:
    return np.asarray(1 - np.clip(np.exp(log_errors), _LEAST_ERROR, _MOST_ERROR))


_Scores = dict[str, tuple[float, float]]


def _choose(kinds: Sequence[str], places: Floats, target: Floats) -> tuple[Model, _Scores]:
    with threadpool_limits(1):  # the matrices are small: threads would wait for each other
        models = {kind: make_model(kind, places, target) for kind in kinds}
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
