"""`search backup`: a copy of a database, and of its studies' curves and weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from search.cli.options import Artifacts, Storage
from search.cli.output import echo
from search.exceptions import InputError
from search.folders import DATABASE_URL


def backup(
    file: Annotated[Path, typer.Argument(help="The copy, a new file.")],
    storage: Storage = DATABASE_URL,
    artifacts: Artifacts = None,
) -> None:
    """Copy a SQLite database, also while a search writes to it.

    The artifacts of its studies are copied into a folder beside the copy.

    Example: search backup studies-monday.db
    """
    from search.report.artifact_files import artifact_folder, copy_artifacts
    from search.storage.backup import backup as copy_database
    from search.storage.open import opened_storage
    from search.storage.urls import sqlite_url

    copy = sqlite_url(file)
    copy_folder = artifact_folder(copy)
    assert copy_folder is not None
    if not file.exists() and os.path.lexists(copy_folder):
        what = "has files already" if copy_folder.is_dir() else "is none"
        if not copy_folder.is_dir() or any(copy_folder.iterdir()):
            raise InputError(
                f"Curves and weights are copied into a folder of their own, but {copy_folder} "
                f"{what}; move it, or name another copy."
            )
    copy_database(storage, file)
    folder = artifact_folder(storage, artifacts)
    assert folder is not None
    with opened_storage(copy) as opened:  # not to write: that would open a log beside it
        copy_artifacts(folder, copy_folder, opened)
    also = f"; its curves and weights to {copy_folder}" if copy_folder.exists() else ""
    echo(f"Copied to {file} ({file.stat().st_size:,} bytes){also}.")
