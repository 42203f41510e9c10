"""Folders: where results go, that they can be written there, and where shipped networks lie."""

from __future__ import annotations

import re
from pathlib import Path

import models
from search.exceptions import InputError

# Networks that were found by search and are shipped with the package.
PRESETS = ("best-1-epoch",)


def preset_folder(name: str) -> Path:
    """Where the card and weights of a shipped network lie."""
    return Path(models.__file__).parent / "presets" / name


def weights_folder(folder: str | Path) -> Path:
    """Where a card and weights lie: in a folder, or under the name of a shipped network."""
    return preset_folder(str(folder)) if str(folder) in PRESETS else Path(folder)


def default_folder(study_name: str, number: int) -> Path:
    """Where the weights of a trial go unless a user says otherwise; always below `runs`."""
    safe_name = re.sub(r"[^A-Za-z0-9_.-]+", "-", study_name).strip(".") or "study"
    return Path("runs") / safe_name / f"trial-{number}"


def make_folder(folder: Path) -> Path:
    """Makes an output folder, and sees that files can be written there; returns it.

    Raises:
        InputError: if they cannot.
    """
    probe = folder / ".probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"The output folder must be writable, but {folder} is not ({error.strerror}); name "
            "another with --out."
        ) from error
    return folder
