"""Processes that own trials: what marks them, and whether they live."""

from __future__ import annotations

import functools
import os
import socket
from contextlib import suppress
from pathlib import Path

import psutil
from optuna.trial import FrozenTrial

from search.study.record import Owner, TrialRecord


def owner_of_this_process() -> Owner:
    """What marks this process's trials."""
    return owner_of(psutil.Process())


def owner_of(process: psutil.Process) -> Owner:
    """What marks the trials of a process.

    Raises:
        psutil.Error: if it has ended.
    """
    return Owner(
        host=socket.gethostname(),
        machine=_machine(),
        pid=process.pid,
        started=round(_started(process), 2),
    )


def who_locked(path: Path) -> Owner | None:
    """The process that has locked a file; None where none has, or that is not to be known."""
    try:
        inode = path.stat().st_ino
        # As `5: FLOCK  ADVISORY  WRITE 29056 fe:00:2441276 0 EOF`. What it says of the device is
        # not what `stat` says of it, on some file systems.
        locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        pids = [int(e[4]) for e in locks if e[1] == "FLOCK" and e[5].endswith(f":{inode}")]
    except (OSError, ValueError, IndexError):  # no Linux, or a lock of a kind yet unknown
        return None
    for pid in pids:
        with suppress(psutil.Error, ValueError):  # of another container, one has no number here
            if has_open(pid, path):
                return owner_of(psutil.Process(pid))
    return None


def has_open(pid: int, path: Path) -> bool:
    """Whether a process has a file open; false where that is not to be known."""
    try:
        return any(file.path == str(path) for file in psutil.Process(pid).open_files())
    except (psutil.Error, OSError):
        return False


def is_here(owner: Owner) -> bool:
    """Whether a process is, or was, on this machine."""
    return owner.machine == _machine()


def is_this_process(owner: Owner) -> bool:
    """Whether a process is the one that asks."""
    return is_here(owner) and owner.pid == os.getpid()


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


def is_alive(owner: Owner) -> bool:
    """Whether the process that owns a trial still runs; one on another machine may."""
    if not is_here(owner):
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
    return owner is not None and not is_alive(owner)
