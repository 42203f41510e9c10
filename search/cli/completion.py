"""What the Tab key offers in a shell. Imports nothing slow, and no error reaches the shell."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path

import typer

from search.data.names import SPLITS
from search.folders import CARD_NAME
from search.plain_text import printable
from search.space.presets import PRESETS

_SQLITE = "sqlite:///"
_STUDIES = """
    SELECT study_name FROM studies JOIN study_user_attributes USING (study_id)
    WHERE key = 'settings' ORDER BY study_id DESC
"""

Completer = Callable[[str], list[str]]


def one_of(*names: str) -> Completer:
    """Offers those of the names that begin as the word does."""

    def complete(incomplete: str) -> list[str]:
        return _beginning(names, incomplete)

    return complete


# Those of `search.tuner.sampler`, `search.tuner.pruners` and `search.space.toml`, which the shell
# would wait for.
complete_samplers = one_of("tpe", "random", "qmc", "gp", "cmaes")
complete_pruners = one_of("halving", "median", "percentile", "hyperband", "none")
complete_spaces = one_of("adaptive", "standard", "wide")
complete_devices = one_of("auto", "cpu", "cuda")
complete_engines = one_of("local", "ray")
complete_objectives = one_of("accuracy", "accuracy,size")
complete_datasets = one_of(*SPLITS)
complete_datasets_or_auto = one_of("auto", *SPLITS)


def complete_systems(incomplete: str) -> list[str]:
    """The hand-tuned systems and the shipped networks."""
    from search.space.baselines import BASELINES

    return _beginning([*BASELINES, *PRESETS], incomplete)


def complete_weights(incomplete: str) -> list[str]:
    """The shipped networks, and folders in which `search retrain` keeps weights by default."""
    cards = sorted([*Path().glob(f"*/{CARD_NAME}"), *Path("runs").glob(f"*/*/{CARD_NAME}")])
    return _beginning([*PRESETS, *(str(card.parent) for card in cards)], incomplete)


def complete_studies(ctx: typer.Context, incomplete: str) -> list[str]:
    """The studies of a SQLite database, the last one first; a server would take too long to ask."""
    url = str(ctx.params["storage"])
    file = Path(url.removeprefix(_SQLITE)).absolute()
    if not url.startswith(_SQLITE):
        return []
    try:
        with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as database:
            names = [str(name) for (name,) in database.execute(_STUDIES)]
    except sqlite3.Error:
        return []
    return _beginning(names, incomplete)


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete) and printable(name) == name]
