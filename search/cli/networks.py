"""The file of a user's that builds the networks of a study or of weights, as commands take it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from search.cli.output import same_command

if TYPE_CHECKING:
    from optuna.study import Study

    from search.training.card import Card
    from search_models.own import NetworkSource


def study_network(study: Study, path: Path | None) -> NetworkSource | None:
    """The file that builds a study's networks, read and not yet run; None where there is none.

    Raises:
        InputError: if it is not named where it is needed, or another one is.
    """
    from search.space.network_files import check_network
    from search.study.history import network_words
    from search.study.settings import StudySettings

    settings = StudySettings.from_study(study)
    how = same_command(*network_words(study, settings))
    of = f"the study {study.study_name!r}"
    return check_network(path, settings.network_source, of=of, how=how)


def card_network(card: Card, path: Path | None) -> NetworkSource | None:
    """The same of the network whose weights a card stands beside."""
    from search.space.network_files import check_network, source_of_network

    wanted = source_of_network(card.hyperparameters.spec)
    how = "" if wanted is None else same_command("--network", wanted.path)
    return check_network(path, wanted, of="these weights", how=how)
