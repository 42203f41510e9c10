"""Where results go unless a user says otherwise, and that they can be written there."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import platformdirs

from search.exceptions import InputError

try:
    import fcntl
except ImportError:  # pragma: no cover
    fcntl = None  # type: ignore[assignment]

_APPLICATION = "budget-search"  # the name of this package's folder in the user's cache
_NO_CACHE = Path(os.devnull) / "no-home-directory"

DATABASE_URL = "sqlite:///studies.db"  # of trials, unless a user says otherwise
CARD_NAME = "card.json"  # beside weights, what rebuilds their network
# What `search pictures` draws, beside the weights.
PICTURES = ("curves.png", "confusion.png", "mistakes.png")

# What `search report` writes.
PAGE = "report.html"
_DRAWN = ("race", "size", "learning", "influence", "history", "confusion", "mistakes")
REPORT_FILES = (PAGE, "space.toml", "network.py", *(f"{name}.png" for name in _DRAWN))


def user_cache() -> Path:
    """This package's folder in the user's cache; one that cannot be made where there is none.

    That is so for who has neither a home directory nor an entry among the system's users. What is
    kept there is done without then.
    """
    try:
        return platformdirs.user_cache_path(_APPLICATION)
    except (RuntimeError, KeyError):
        return _NO_CACHE


def has_user_cache() -> bool:
    """Whether this user has a place for a cache, be it not made yet."""
    return user_cache() != _NO_CACHE


def check_working_folder() -> None:
    """Raises InputError where the folder that this process works in was deleted."""
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise InputError(
            "The working folder must be there, but it was deleted; change to another one (cd), and "
            "give the same command again."
        ) from error


def python_settings() -> dict[str, str]:
    """The environment in which a Python that is started has the working folder on no path of its.

    Python puts the folder that `-c` or `-m` runs in first on its path, and a file of the user's
    that has a module's name (search.py, random.py) would be run in place of the module. Parts of
    PYTHONPATH may name that folder as well, an empty one too; it stays where this package lies in
    it.
    """
    working, ours = os.path.realpath(""), os.path.realpath(Path(__file__).parent.parent)
    parts = [
        part
        for part in os.environ.get("PYTHONPATH", "").split(os.pathsep)
        if part and (working == ours or os.path.realpath(part) != working)
    ]
    # An empty text is the same to Python as none.
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(parts)}


def as_path(path: str | os.PathLike[str], what: str) -> Path:
    """A path as a program gives it, also as text; `~` is the user's home.

    Args:
        what: it is called, for an error.

    Raises:
        InputError: if it is no path.
    """
    try:
        found = Path(path).expanduser()
        if "\0" in str(found):
            raise ValueError(path)
        return found
    except RuntimeError as error:
        raise InputError(
            f"{what} must be a path, but {path} begins with a home directory that the system does "
            "not know; write that out."
        ) from error
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{what} must be a path, as text or pathlib.Path, but got {path!r}; give one, as "
            f'{what}="folder".'
        ) from error


def file_name(study_name: str) -> str:
    """A study's name as that of a file or folder: one that leads nowhere else."""
    # Plain Optuna takes longer names than a file system does.
    safe = re.sub(r"[^A-Za-z0-9_.-]+", "-", study_name)[:200].strip(".") or "study"
    if safe == study_name:
        return safe
    # "a b" and "a-b" are two studies, and so are their folders.
    return f"{safe}-{hashlib.sha256(study_name.encode(errors='replace')).hexdigest()[:6]}"


def study_folder(study_name: str) -> Path:
    """Where all that is made of a study goes unless a user says otherwise; always below `runs`."""
    return Path("runs") / file_name(study_name)


def default_folder(study_name: str, number: int) -> Path:
    """Where the weights of a trial go unless a user says otherwise."""
    return study_folder(study_name) / f"trial-{number}"


def make_folder(folder: Path, *, option: str = "--out") -> Path:
    """Makes an output folder, and sees that files can be written there; returns it.

    Args:
        option: that names the folder.

    Raises:
        InputError: if they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _not_writable(folder, error.strerror, option) from error
    return folder


def check_folder_can_be_made(folder: Path, *, option: str) -> None:
    """Sees whether `make_folder` would be refused, as far as that is told without making anything.

    Raises:
        InputError: if it would.
    """
    whole = folder.absolute()
    there = next(each for each in (whole, *whole.parents) if os.path.lexists(each))
    if not there.is_dir():
        raise _not_writable(folder, os.strerror(errno.ENOTDIR), option)
    if not os.access(there, os.R_OK | os.W_OK | os.X_OK):
        raise _not_writable(folder, os.strerror(errno.EACCES), option)


def _not_writable(folder: Path, why: str | None, option: str) -> InputError:
    return InputError(
        f"The output folder must be writable, but {folder} is not ({why}); name another with "
        f"{option}."
    )


@contextmanager
def training_folder(beside: Path) -> Iterator[Path]:
    """A folder for weights until all are trained, in the one where they go; deleted at the end.

    What processes that were killed left there is deleted first.

    Raises:
        OSError: if it cannot be made.
    """
    folder = beside / f".training-{secrets.token_hex(8)}"
    with ExitStack() as stack:
        with locked(beside, wait=True):  # so that nobody sweeps what is not locked yet
            for left in beside.iterdir():
                if re.fullmatch(r"\.training-[0-9a-f]{16}", left.name):
                    with locked(left, wait=False) as is_free:
                        if is_free:
                            shutil.rmtree(left, ignore_errors=True)
            folder.mkdir(mode=0o700)
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            stack.enter_context(locked(folder, wait=True))
        yield folder


@contextmanager
def locked(folder: Path, *, wait: bool) -> Iterator[bool]:
    """Whether a folder could be locked, until the context or the process ends, however it ends."""
    descriptor = None
    is_locked = False
    try:
        with suppress(OSError):  # a file system without locks, or another has it
            if fcntl is not None:
                descriptor = os.open(folder, os.O_RDONLY)
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                is_locked = True
        yield is_locked
    finally:
        if descriptor is not None:
            os.close(descriptor)
