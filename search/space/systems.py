"""Systems to train by name: those tuned by hand, and the shipped networks that a search found."""

from __future__ import annotations

import json

from search.exceptions import InputError
from search.folders import CARD_NAME
from search.space.baselines import BASELINES, Baseline, Claim
from search.space.hyperparameters import Hyperparameters
from search.space.presets import PRESETS, preset_folder


def preset(name: str) -> Baseline:
    """A shipped network as a system to train: recipe and epochs are those of its card.

    What it claims is the mean over the card's runs, of the mean of their last three epochs.
    """
    card = json.loads((preset_folder(name) / CARD_NAME).read_text(encoding="utf-8"))
    return Baseline(
        name=name,
        hyperparameters=Hyperparameters.from_dict(card["hyperparameters"]),
        epochs=card["epochs"],
        claim=Claim(last_three_mean=100 * card["test_accuracy"]["mean"]),
        found_as=f"trial {card['trial']} of the study {card['study']}",
        found_trial=card["trial"],
    )


def all_systems() -> list[Baseline]:
    """The hand-tuned systems, then the shipped networks."""
    return [*BASELINES.values(), *map(preset, PRESETS)]


def find_system(name: str) -> Baseline:
    """The hand-tuned system or the shipped network of that name.

    Raises:
        InputError: if there is none.
    """
    if name in PRESETS:
        return preset(name)
    if name not in BASELINES:
        names = ", ".join((*BASELINES, *PRESETS))
        raise InputError(f"A baseline's name must be one of {names}, but got {name!r}.")
    return BASELINES[name]
