"""Output folders: where results go, and that they can be written there."""

from __future__ import annotations

import re
from pathlib import Path

from search.exceptions import InputError


def default_folder(study_name: str, number: int) -> Path:
    """Where the weights of a trial go unless a user says otherwise; always below `runs`."""
    # Plain Optuna takes longer names than a file system does.
    safe_name = re.sub(r"[^A-Za-z0-9_.-]+", "-", study_name)[:200].strip(".") or "study"
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
