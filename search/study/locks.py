"""Who searches a study: the owners of its running trials that live, and the lock beside a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from optuna.study import Study
from optuna.trial import TrialState

from search.exceptions import StorageError, StudyError
from search.study.owners import has_open, is_alive, is_here, is_this_process, who_locked
from search.study.record import Owner, TrialRecord
from search.study.trials import trials_of


@contextmanager
def locked_file(path: Path, study: Study) -> Iterator[None]:
    """Lets no other process onto a study of a SQLite file as long as the context lasts.

    The lock is a file beside it, which the system unlocks when its process ends, however it ends.

    Raises:
        StudyError: if another process is there.
        StorageError: if the lock cannot be taken at all.
    """
    # The file stays: to delete it could let two processes lock two files of one name.
    lock_path = _lock_path(path, study)
    file_lock = FileLock(lock_path, timeout=0)
    try:
        file_lock.acquire()
    except Timeout as error:
        raise _busy(study, who_locked(lock_path)) from error
    except OSError as error:
        raise StorageError(
            f"The folder of a SQLite database must allow files that are locked, but {lock_path} "
            f"cannot be ({error}). Make room on its disk, or put the database on a local disk or "
            "a database server, with --storage."
        ) from error
    try:
        # Somebody may have deleted the file all the same. A process that has left its search, or
        # searches what this database is a copy of, is in nobody's way.
        for owner in filter(is_here, _living_owners(study)):
            if not is_this_process(owner) and has_open(owner.pid, path.resolve()):
                raise _busy(study, owner)
        yield
    finally:
        file_lock.release()


def check_unlocked(path: Path, study: Study) -> None:
    """Raises StudyError where `locked_file` would, as far as that can be told without a lock."""
    owner = who_locked(_lock_path(path, study))
    if owner is not None:
        raise _busy(study, owner)


def _lock_path(path: Path, study: Study) -> Path:
    """The file that is locked for a study; one, whatever links lead to the database."""
    path = path.resolve()
    return path.with_name(f".{path.name}.{study._study_id}.lock")


def _busy(study: Study, owner: Owner | None) -> StudyError:
    who = "another" if owner is None else f"process {owner.pid} on {owner.host}"
    return StudyError(
        f"One search at a time must run on a study, but {who} is searching {study.study_name!r} "
        "or races its trials; wait for it, stop it, or name another study with --study. For "
        "searches on several machines, keep their studies on a database server: --storage "
        "postgresql+psycopg://user@host/database."
    )


def searching_process(study: Study, *, is_leaving: bool = False) -> Owner | None:
    """The process that searches a study, or races its trials; None without one.

    Args:
        is_leaving: whether this process is about to end that, and does not count.
    """
    owner = next(_living_owners(study), None)
    if owner is None:  # it may load its data, be between two trials, or race the best
        storage = study._storage
        engine = getattr(getattr(storage, "_backend", storage), "engine", None)
        if engine is not None and engine.name == "sqlite":
            owner = who_locked(_lock_path(Path(str(engine.url.database)), study))
    return None if owner is not None and is_leaving and is_this_process(owner) else owner


def is_searched(study: Study) -> bool:
    """Whether a process searches a study, or races its trials."""
    return searching_process(study) is not None


def check_no_owner_alive(study: Study) -> None:
    """Raises StudyError where a running trial says that its search is still there."""
    for owner in _living_owners(study):
        raise StudyError(
            f"One search at a time must run on a study, but process {owner.pid} on "
            f"{owner.host} is searching {study.study_name!r}; wait for it, stop it, or name "
            "another study with --study. If that host is lost, fail its running trials in the "
            "dashboard."
        )


def _living_owners(study: Study) -> Iterator[Owner]:
    for trial in trials_of(study, states=(TrialState.RUNNING,)):
        owner = TrialRecord.read(trial).owner
        if owner is not None and is_alive(owner):
            yield owner
