"""Which files of the server's machine a client may name: those below the folders it serves."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from search.data.names import FOLDER
from search.exceptions import InputError
from search.service.submission import PATHS
from search.space.toml import BUILT_IN

_LONGEST = 1000  # characters


class AllowedFolders:
    """The folders below which a client may name files and folders.

    Args:
        folders: that were named as the server was started; a relative path is looked for below
            each, the first one that has it first.
        own: the server's own folder, with its tokens, which no client may name.
        database: its file, which none may name either, nor those that SQLite keeps beside it; None
            where it is none.
    """

    def __init__(self, folders: Sequence[Path], *, own: Path, database: Path | None) -> None:
        self._folders = [folder.resolve() for folder in folders]
        self._own = own.resolve()
        self._database = None if database is None else database.resolve()

    def check(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options of a search with their paths made whole.

        Raises:
            InputError: if one leads elsewhere, through a link perhaps; it says nothing of what is
                there.
        """
        found = dict(options)
        for name in PATHS:
            if found.get(name) is not None:
                found[name] = str(self._resolve(name, found[name]))
        dataset = found.get("dataset")
        if isinstance(dataset, str) and dataset.startswith(FOLDER):
            found["dataset"] = FOLDER + str(self._resolve("dataset", dataset.removeprefix(FOLDER)))
        space = found.get("space")
        if isinstance(space, str) and space not in BUILT_IN:
            found["space"] = str(self._resolve("space", space))
        return found

    def _resolve(self, name: str, text: str) -> Path:
        if "\0" not in text and len(text) <= _LONGEST:
            # As they are written: a link that stands for a folder stays one.
            paths = [Path(os.path.normpath(folder / text)) for folder in self._folders]
            for path in [*filter(_is_there, paths), *paths]:
                if self._is_below(path):
                    return path
        raise InputError(
            f"A path that a client names must lie below a folder that the server was started with, "
            f"but {name} {text[:100]!r} does not; name one there, or start the server with "
            "--allow FOLDER. The server's own folder and its database may not be named."
        )

    def _is_below(self, path: Path) -> bool:
        """Whether a path leads below a folder, wherever its links lead."""
        try:
            resolved = path.resolve()
        except (OSError, RuntimeError):  # links that lead to each other
            return False
        if self._is_the_servers(resolved):
            return False
        return any(resolved.is_relative_to(folder) for folder in self._folders)

    def _is_the_servers(self, resolved: Path) -> bool:
        try:
            # Also by another name, of a hard link or in capitals.
            if any(_is_same(each, self._own) for each in (resolved, *resolved.parents)):
                return True
            if self._database is None:
                return False
            is_beside = _is_same(resolved.parent, self._database.parent)
            name = resolved.name.removeprefix(".").lower()
            is_its = name.startswith(self._database.name.lower())
            return (is_beside and is_its) or _is_same(resolved, self._database)
        except (OSError, RuntimeError):
            return True


def _is_same(path: Path, other: Path) -> bool:
    return path == other or (path.exists() and other.exists() and path.samefile(other))


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, RuntimeError):
        return False
