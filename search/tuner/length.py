"""How many trials a study shall have where nobody says."""

from __future__ import annotations

import math

_LEAST, _MOST = 20, 100  # the race at the end needs the least
_OF_MNIST = 20  # of 50,000 images and 15 epochs, about ten minutes on two cores
_IMAGES_OF_MNIST = 50_000 * 15
# Between as many trials for every data set and as many seconds: of few images, each trial is
# over at once, and tells less.
_EXPONENT = 0.3


def usual_trials(n_training: int, epochs: int) -> int:
    """How many trials pay, the more the fewer images one sees; a multiple of five.

    Args:
        n_training: images that train.
        epochs: that each network is trained.
    """
    n_trials = _OF_MNIST * math.pow(_IMAGES_OF_MNIST / (n_training * epochs), _EXPONENT)
    return 5 * round(min(max(n_trials, _LEAST), _MOST) / 5)
