"""One search at a time on a study: locks, and who owns the trials that run."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil
from filelock import FileLock, Timeout
from optuna.study import Study
from optuna.trial import TrialState

from search.exceptions import StorageError, StudyError
from search.storage import ServerLock, sqlite_path


def owner_of_this_process() -> dict[str, Any]:
    """What marks this process's trials: host, process identifier and its start time."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": round(_started(psutil.Process()), 2),
    }


def _started(process: psutil.Process) -> float:
    """When a process started, in seconds that no setting of the clock changes.

    Linux knows it since boot, and psutil adds the time of day that the boot had by today's clock.
    """
    return float(process.create_time() - (psutil.boot_time() if psutil.LINUX else 0.0))


def _is_alive(owner: dict[str, Any]) -> bool:
    """Whether the process that owns a trial still runs; one on another host may."""
    if owner["host"] != socket.gethostname():
        return True
    try:
        process = psutil.Process(owner["pid"])
        is_same = abs(_started(process) - owner["started"]) < 1
        return bool(is_same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@contextmanager
def only_search(study: Study, url: str) -> Iterator[Callable[[], None]]:
    """Lets no other search onto the study as long as the context lasts.

    A SQLite database is locked through a file beside it, which the system unlocks when its
    process ends, however it ends. PostgreSQL has locks of its own; and on any server, a trial that
    runs says who owns it, which outlasts a restart of the server.

    Yields what raises StudyError where another search has come onto the study all the same: a
    server that was away, or that took this machine for lost, frees its locks.

    Raises:
        StudyError: if another search is there.
        StorageError: if the lock cannot be taken at all.
    """
    path = sqlite_path(url)
    if path is None:
        lock = ServerLock(url, study._study_id)
        try:
            is_ours = lock.is_ours()
            _check_no_owner_alive(study)
            if not is_ours:
                raise StudyError(_busy(study))
            yield lambda: _check_still_ours(lock, study)
        finally:
            lock.release()
        return
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
        yield lambda: None
    finally:
        file_lock.release()


def _busy(study: Study) -> str:
    return (
        "One search at a time must run on a study, but another is searching "
        f"{study.study_name!r}; wait for it, stop it, or name another study with --study."
    )


def _check_still_ours(lock: ServerLock, study: Study) -> None:
    try:
        is_ours = lock.is_ours()
    except StorageError:  # nobody else can take it either; what is done next waits for the server
        return
    if not is_ours:
        raise StudyError(
            f"One search at a time must run on a study, but another has gone on with "
            f"{study.study_name!r} while the database could not be reached; this one ends."
        )


def _check_no_owner_alive(study: Study) -> None:
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        owner = trial.user_attrs.get("owner")
        if owner is not None and _is_alive(owner):
            raise StudyError(
                f"One search at a time must run on a study, but process {owner['pid']} on "
                f"{owner['host']} is searching {study.study_name!r}; wait for it, stop it, or name "
                "another study with --study. If that host is lost, fail its running trials in the "
                "dashboard."
            )
