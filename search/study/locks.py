"""Who owns the trials that run, and the lock beside a SQLite file."""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from filelock import FileLock, Timeout
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from search.exceptions import StorageError, StudyError
from search.study.record import Owner, TrialRecord


def owner_of_this_process() -> Owner:
    """What marks this process's trials."""
    return Owner(
        host=socket.gethostname(),
        machine=_machine(),
        pid=os.getpid(),
        started=round(_started(psutil.Process()), 2),
    )


@functools.cache
def _machine() -> str:
    """What tells this machine, and this container on it, from all others: names may be alike."""
    if not psutil.LINUX:
        return socket.gethostname()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"


def _started(process: psutil.Process) -> float:
    """When a process started, in seconds that no setting of the clock changes.

    Linux knows it since boot, and psutil adds the time of day that the boot had by today's clock.
    """
    return float(process.create_time() - (psutil.boot_time() if psutil.LINUX else 0.0))


def _is_alive(owner: Owner) -> bool:
    """Whether the process that owns a trial still runs; one on another machine may."""
    if owner.machine != _machine():
        return True
    try:
        process = psutil.Process(owner.pid)
        is_same = abs(_started(process) - owner.started) < 1
        return bool(is_same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def is_owner_dead(trial: FrozenTrial) -> bool:
    """Whether the process that ran a trial was on this machine, and is gone."""
    owner = TrialRecord.read(trial).owner
    return owner is not None and not _is_alive(owner)


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
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        owner = TrialRecord.read(trial).owner
        if owner is not None and _is_alive(owner):
            yield owner
