"""Files of ours in folders of a user's: what a command wrote there, and nothing else, it replaces.

Beside the files lies a list of them, with a digest of what each contained. A file that it does not
name, or that was changed since, is the user's, as is a copy of ours without the list.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from search.exceptions import InputError
from search.files import check_has_contents, remove_halves, write_bytes, write_text
from search.folders import locked, make_folder

LIST_NAME = ".search-files.json"

_Digests = dict[str, list[str]]  # of a file's name; two while it is being replaced


class OutputFolder:
    """A folder that a command writes into, made where it is missing.

    Args:
        kind: of the files, as `report`: those of other kinds stay.
        option: that names the folder.

    Raises:
        InputError: if files cannot be written there.
    """

    def __init__(self, path: Path, kind: str, *, option: str = "--out") -> None:
        self.path = make_folder(path, option=option)
        _check_list(path, option)
        self._kind = kind
        self._option = option
        self._digests = self._read_digests()

    def check(self, names: Iterable[str]) -> None:
        """Sees that no file of a user's has one of these names.

        Raises:
            InputError: if one has; nothing was written then.
        """
        for name in names:
            _check_name(name, self._option)
            # A link that leads nowhere is a user's, too.
            if os.path.lexists(self.path / name) and not self._is_ours(name):
                raise InputError(
                    "What is replaced must be a file that this command wrote, but "
                    f"{self.path / name} is another, or was changed since; move it, or name "
                    f"another place with {self._option}."
                )

    def replace(self, files: Mapping[str, bytes | Path]) -> None:
        """Writes files in place of all of their kind that were written before.

        Args:
            files: by name, their contents, or a file that is moved there.

        Raises:
            InputError: if a file of a user's has such a name; nothing was written then.
            OSError: if a file cannot be written.
        """
        # Of several processes at once, each begins with the list as the one before has left it.
        with locked(self.path, wait=True) as is_alone:
            self._digests = self._read_digests()
            self.check(files)
            if is_alone:
                remove_halves(self.path, {LIST_NAME, *self._digests, *files})
            before = {name for name in self._digests if self._is_ours(name)}
            written = {
                name: hashlib.sha256(_contents(content)).hexdigest()
                for name, content in files.items()
            }
            # Both are ours, should this end in the middle.
            both = {
                name: [*self._digests.get(name, ()), *([written[name]] if name in written else [])]
                for name in before | set(written)
            }
            self._write_list(both)
            for name, content in files.items():
                if isinstance(content, Path):
                    content.replace(self.path / name)
                else:
                    write_bytes(content, self.path / name)
            for name in before - set(written):
                (self.path / name).unlink(missing_ok=True)
            self._write_list({name: [digest] for name, digest in written.items()})

    def _read_digests(self) -> _Digests:
        return _read_list(self.path).get(self._kind, {})

    def _is_ours(self, name: str) -> bool:
        return bool(set(_digests(self.path / name)) & set(self._digests.get(name, ())))

    def _write_list(self, digests: _Digests) -> None:
        self._digests = digests
        kinds = _read_list(self.path) | {self._kind: digests}
        write_text(json.dumps(kinds, indent=2) + "\n", self.path / LIST_NAME)


def _check_name(name: str, option: str) -> None:
    """Raises InputError for the name of the list itself, which is written last."""
    if name == LIST_NAME:
        raise InputError(
            f"{LIST_NAME} must stay the list of what commands wrote in a folder, but a file is to "
            f"have that name; name another with {option}."
        )


def _check_list(folder: Path, option: str) -> None:
    """Raises InputError where what has the name of the list is a user's, and would be replaced."""
    path = folder / LIST_NAME
    if os.path.lexists(path) and not _is_list(_read_json(path)):
        raise InputError(
            f"{LIST_NAME} must be the list of what commands wrote in a folder, but {path} is "
            f"another file, or was changed since; move it, or name another place with {option}."
        )


def check_file(path: Path, *, option: str = "--out") -> None:
    """Sees that a file can be written, and takes the place of none but one of ours; makes nothing.

    Args:
        option: that names the file.

    Raises:
        InputError: if files cannot be written there, or it would take the place of a user's.
    """
    _check_name(path.name, option)
    if os.path.lexists(path):
        _folder_of(path, option).check([path.name])
    else:
        _check_list(path.parent, option)
        folders = (path.parent, *path.parent.parents)
        make_folder(next(filter(os.path.lexists, folders), Path()), option=option)


def write_file(content: bytes, path: Path, *, option: str = "--out") -> None:
    """Writes a file alone, in a folder made where it is missing.

    Raises:
        InputError: if files cannot be written there, or it would take the place of a user's.
        OSError: if it cannot be written.
    """
    _folder_of(path, option).replace({path.name: content})


def _folder_of(path: Path, option: str) -> OutputFolder:
    return OutputFolder(path.parent, f"file {path.name}", option=option)


def _contents(content: bytes | Path) -> bytes:
    return content if isinstance(content, bytes) else content.read_bytes()


def _digests(path: Path) -> list[str]:
    """The digest of a file's contents; none where it is no file that can be read.

    A link is a user's, wherever it leads, and a pipe would be waited for.
    """
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return []
        with path.open("rb") as file:
            return [hashlib.file_digest(file, "sha256").hexdigest()]
    except (OSError, ValueError):  # or what the list names can be no file's name
        return []


def _read_list(folder: Path) -> dict[str, _Digests]:
    """What the list says, by kind; nothing where there is none of ours."""
    stored = _read_json(folder / LIST_NAME)
    kinds: dict[str, _Digests] = stored if _is_list(stored) else {}
    # A name that leads elsewhere is none that was written.
    return {
        kind: {name: digests for name, digests in names.items() if Path(name).name == name}
        for kind, names in kinds.items()
    }


def _read_json(path: Path) -> Any:
    """What a file has; None where it is none, a link, or no JSON."""
    try:
        check_has_contents(path)
        return None if path.is_symlink() else json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _is_list(stored: Any) -> bool:
    """Whether that is as `_write_list` writes it, whatever it names."""
    return isinstance(stored, dict) and all(
        isinstance(names, dict)
        and all(
            isinstance(digests, list) and all(isinstance(digest, str) for digest in digests)
            for digests in names.values()
        )
        for names in stored.values()
    )
