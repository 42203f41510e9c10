"""Who searches a study: the owners of its running trials that live, and the lock beside a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from optuna.study import Study
from optuna.trial import TrialState

from search.exceptions import StorageError, StudyError
from search.study.owners import is_alive
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
    path = path.resolve()  # one lock, whatever links lead to the database
    # The file stays: to delete it could let two processes lock two files of one name.
    lock_path = path.with_name(f".{path.name}.{study._study_id}.lock")
    file_lock = FileLock(lock_path, timeout=0)
    try:
        file_lock.acquire()
    except Timeout as error:
        raise StudyError(
            f"{_busy(study)} For searches on several machines, keep their studies on a database "
            "server: --storage postgresql+psycopg://user@host/database."
        ) from error
    except OSError as error:
        raise StorageError(
            f"The folder of a SQLite database must allow files that are locked, but {lock_path} "
            f"cannot be ({error}). Make room on its disk, or put the database on a local disk or "
            "a database server, with --storage."
        ) from error
    try:
        yield
    finally:
        file_lock.release()


def _busy(study: Study) -> str:
    return (
        "One search at a time must run on a study, but another is searching "
        f"{study.study_name!r}; wait for it, stop it, or name another study with --study."
    )


def searching_process(study: Study) -> Owner | None:
    """The process of which a running trial says that it searches the study; None without one."""
    return next(_living_owners(study), None)


def is_searched(study: Study) -> bool:
    """Whether a running trial says that a search of the study is there."""
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
