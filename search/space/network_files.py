"""A file of networks that its user has named: read, then loaded. Without PyTorch until it is."""

from __future__ import annotations

import ast
import difflib
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from search.exceptions import InputError, SearchError
from search.files import check_has_contents
from search.folders import as_path
from search_models.own import (
    NetworkSource,
    OwnNetworkError,
    OwnSpec,
    name_file,
    named_file,
)

_MOST_BYTES = 100_000
_FUNCTION = "network"
_RUNNING: set[str] = set()  # the fingerprints of files that are being loaded
NamedNetwork = str | os.PathLike[str] | Callable[..., Any]  # a file's path, or its function
_N_LINES, _LONGEST_LINE = 6, 80  # of a difference that is told; characters


def network_path(network: NamedNetwork) -> Path:
    """The file that a program names: by its path, or by its function.

    A function is not run as it is, as neither a worker nor a study could keep it: its file is.

    Raises:
        InputError: if it is neither, or a function that no file has by that name.
    """
    if not callable(network):
        return as_path(network, "network")
    try:
        path = inspect.getsourcefile(network)
    except TypeError:  # of what is no function
        path = None
    name = getattr(network, "__qualname__", type(network).__name__)
    if name != _FUNCTION or path is None or not Path(path).is_file():
        raise InputError(
            f"A network must be the function {_FUNCTION} of a Python file, which workers run as "
            f"well, but got {name}; write it into a file with its imports (in a notebook by "
            '%%writefile net.py), and give network="net.py".'
        )
    return Path(path)


def read_network(path: str | os.PathLike[str]) -> NetworkSource:
    """The text of a file that has a function `network`; runs nothing.

    Raises:
        InputError: if there is no such file, or it is no Python or has no such function.
    """
    file = Path(path)
    content = _content(file)
    if len(content) > _MOST_BYTES:
        raise InputError(
            f"A file of networks must have at most {_MOST_BYTES:,} bytes, as a study keeps its "
            f"text, but {file} has more; take out what is no code."
        )
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise InputError(
            f"--network must name a text in UTF-8, but {file} is none; save it as one."
        ) from error
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError) as error:
        line, words = getattr(error, "lineno", None), getattr(error, "text", None) or ""
        where = f" in line {line}: {words.strip()}" if line else ""
        raise InputError(
            f"--network must name a file that Python can run, but {file} is none "
            f"({getattr(error, 'msg', error)}{where}); mend it."
        ) from error
    if not any(_binds(node) for node in ast.walk(tree)):
        raise InputError(
            f"{file} must have a function {_FUNCTION}(trial, input_shape, n_classes), but it has "
            "none; add it."
        )
    return NetworkSource.of_text(str(file), text)


def _content(file: Path) -> bytes:
    """The contents of a file, as far as they count.

    Raises:
        InputError: if it cannot be read, or is a folder, a pipe or a device.
    """
    try:
        check_has_contents(file)
        with file.open("rb") as opened:
            return opened.read(_MOST_BYTES + 1)
    except FileNotFoundError as error:
        raise InputError(
            f"--network must name a Python file with a function {_FUNCTION}, but there is no "
            f"{file}; name one."
        ) from error
    except (OSError, ValueError) as error:  # or it is no path
        raise InputError(
            f"--network must name a file that can be read, but {file} cannot "
            f"({getattr(error, 'strerror', error)}); name another."
        ) from error


def _binds(node: ast.AST) -> bool:
    """Whether a part of a program gives something the name of the function."""
    names = (getattr(node, "name", None), getattr(node, "asname", None))
    is_stored = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    return _FUNCTION in names or (is_stored and getattr(node, "id", None) == _FUNCTION)


def load_network(source: NetworkSource | None) -> None:
    """Runs a file, so that this process, and the workers that it starts, can build its networks.

    Args:
        source: None where there is none to be run.

    Raises:
        InputError: if it cannot be run, or begins a search as it is run.
    """
    if source is None or named_file(source.fingerprint) is not None:
        return
    from search_models.network_file import NetworkFile  # which brings PyTorch

    if source.fingerprint in _RUNNING:
        raise InputError(
            f"{source.name} must not begin a search as it is read, which each worker does; put "
            "that under \"if __name__ == '__main__':\"."
        )
    _RUNNING.add(source.fingerprint)
    try:
        name_file(NetworkFile(source))
    except OwnNetworkError as error:
        raise InputError(f"{error} Mend the file.") from error
    finally:
        _RUNNING.discard(source.fingerprint)


def told_by_file(spec: object, error: Exception) -> str | None:
    """What an error in a user's own network says, by the file's lines; None where it is not."""
    if isinstance(error, OwnNetworkError):
        return str(error).rstrip(".")
    if isinstance(error, SearchError | OSError | MemoryError):  # which are not its fault
        return None
    file = named_file(spec.fingerprint) if isinstance(spec, OwnSpec) else None
    return None if file is None else f"{file.source.name}: {file.told(error)}"


def check_network(
    network: NamedNetwork | None,
    wanted: NetworkSource | None,
    *,
    of: str,
    how: str,
) -> NetworkSource | None:
    """The user's file that builds the networks of a study or a card, read and not yet run.

    Args:
        network: the file that the user names, if any.
        wanted: which it must be; None where the networks are the search's own.
        of: what it is that has these networks, as `the study 'digits'`.
        how: how to name the file, as a whole command, or as an argument.

    Returns:
        None where there is none to be run.

    Raises:
        InputError: if none is named where one is needed, or another one than that.
    """
    path = None if network is None else network_path(network)
    if wanted is None:
        if path is None:
            return None
        raise InputError(
            f"--network must be left out where the search's own networks are built, as those of "
            f"{of} are, but got {path}."
        )
    if path is None:
        raise InputError(
            f"The file that builds the networks of {of} must be named, as nothing that a study or "
            f"a card holds is run; it is {wanted.name} ({wanted.fingerprint[:12]}). Give {how}"
        )
    source = read_network(path)
    if source.fingerprint != wanted.fingerprint:
        raise InputError(
            f"The file must be the one that built the networks of {of}, {wanted.name} "
            f"({wanted.fingerprint[:12]}), but {source.path} ({source.fingerprint[:12]}) is "
            f"another{difference(wanted.text, source.text)}; name that file, as it was."
        )
    return source


def source_of_network(spec: object) -> NetworkSource | None:
    """Which file builds a network; None where it is one of the search's own."""
    return spec.source if isinstance(spec, OwnSpec) else None


def difference(before: str, now: str) -> str:
    """The first lines in which two texts differ, in brackets; empty where one is not known."""
    if not before:
        return ""
    lines = difflib.unified_diff(before.splitlines(), now.splitlines(), n=0, lineterm="")
    changed = [
        line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}…"
        for line in lines
        if line[:1] in "+-" and line[:3] not in ("+++", "---") and line[1:].strip()
    ]
    more = f", and {len(changed) - _N_LINES} more lines" if len(changed) > _N_LINES else ""
    shown = ", ".join(repr(line) for line in changed[:_N_LINES])
    return f" (it differs in {shown}{more})" if changed else " (it differs in blanks)"
