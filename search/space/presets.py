"""The networks that this project found by search, shipped with cards and weights: where they lie.

Imports nothing slow: the shell asks for these names.
"""

from __future__ import annotations

from pathlib import Path

import search_models

# Shipped networks: what a search finds by itself, then winners of spaces that were drawn by hand.
PRESETS = (
    *("best-8k", "best-small", "best-20k", "best-1-epoch"),
    *("expert-8k", "expert-small", "expert-20k", "expert-1-epoch"),
)


def preset_folder(name: str) -> Path:
    """Where the card and weights of a shipped network lie."""
    return Path(search_models.__file__).parent / "presets" / name


def weights_folder(folder: str | Path) -> Path:
    """Where a card and weights lie: in a folder, else under the name of a shipped network."""
    is_preset = str(folder) in PRESETS and not Path(folder).is_dir()
    return preset_folder(str(folder)) if is_preset else Path(folder)
