"""How long a study is searched where nobody says."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from optuna.trial import FrozenTrial

from search.study.history import StudyLength
from search.study.summary import tally
from search.tuner.options import SearchRequest

MOST_TRIALS = 100  # of a study that ends by itself when nothing better comes
_LEAST, _MOST = 20, 100  # of one that does not
_OF_MNIST = 20  # of 50,000 images and 15 epochs, about ten minutes on two cores
_IMAGES_OF_MNIST = 50_000 * 15
# Between as many trials for every data set and as many seconds: of few images, each trial is
# over at once, and tells less.
_EXPONENT = 0.3
_PATIENCE_SHARE = 0.4  # of the usual trials, without a better one: 8 to 40


def usual_trials(n_training: int, epochs: int) -> int:
    """How many trials pay, the more the fewer images one sees; a multiple of five.

    Args:
        n_training: images that train.
        epochs: that each network is trained.
    """
    n_trials = _OF_MNIST * math.pow(_IMAGES_OF_MNIST / (n_training * epochs), _EXPONENT)
    return 5 * round(min(max(n_trials, _LEAST), _MOST) / 5)


def length_of(
    request: SearchRequest,
    n_training: int,
    *,
    before: StudyLength | None,
    trials: Callable[[], Iterable[FrozenTrial]] = tuple,
) -> StudyLength:
    """How long the search of a study is to be.

    That is what is asked for; else what was asked for before, while the study is short of it;
    else until nothing better comes. A search for a target or of two objectives ends with the usual
    number of trials.

    Args:
        n_training: images that train.
        before: how long its last search was to be, where there was one.
        trials: gives those that the study has; asked only where they decide, since to read
            thousands takes seconds.
    """
    if request.n_trials is not None or request.patience is not None:
        return StudyLength(request.n_trials or MOST_TRIALS, request.patience)
    usual = usual_trials(n_training, request.epochs)
    asked = 0 if before is None or before.patience is not None else before.n_trials
    if request.target is not None or request.objective != "accuracy":
        return StudyLength(max(usual, asked))
    if asked and tally(trials()).n_trained < asked:
        return StudyLength(asked)
    return StudyLength(MOST_TRIALS, round(_PATIENCE_SHARE * usual))
