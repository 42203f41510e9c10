"""Systems to train: those tuned by hand, shipped networks, and what a user's own file builds."""

from __future__ import annotations

import json

from search.exceptions import InputError
from search.folders import CARD_NAME
from search.space.baselines import BASELINES, Baseline, Claim
from search.space.distributions import first_value
from search.space.file_space import FileSpace
from search.space.hyperparameters import Hyperparameters
from search.space.network_files import load_network
from search.space.presets import PRESETS, preset_folder
from search.space.toml import ADAPTIVE
from search_models.own import NetworkSource, OwnNetworkError


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
    )


def own_system(
    source: NetworkSource,
    *,
    input_shape: tuple[int, int, int],
    n_classes: int,
    n_training: int,
    epochs: int,
) -> Baseline:
    """A network that a user's file builds, trained as its file says or else as a search begins.

    Raises:
        InputError: if the file cannot be run, or leaves something open.
    """
    load_network(source)
    space = FileSpace.load_for(
        ADAPTIVE,
        source,
        input_shape=input_shape,
        n_classes=n_classes,
        n_training=n_training,
        epochs=epochs,
    )
    try:
        suggestions, count = space.runs.suggest(lambda _name, kind: first_value(kind))
        if suggestions.asks:
            raise InputError(
                f"A baseline's network must be whole, but {source.name} suggests "
                f"{', '.join(suggestions.asks)}; write the values into it, or search it with "
                f"'search run --network {source.path}'."
            )
        sized = FileSpace.load_for(
            ADAPTIVE,
            source,
            input_shape=input_shape,
            n_classes=n_classes,
            parameter_cap=count + 1,  # by which the learning rate goes
            n_training=n_training,
            epochs=epochs,
        )
        hyperparameters = sized.hyperparameters(sized.with_single(sized.first()))
        sized.spec({}).check_trains()
    except OwnNetworkError as error:
        raise InputError(f"{str(error).rstrip('.')}. Mend the file.") from error
    return Baseline(source.name, hyperparameters, epochs, Claim())


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
