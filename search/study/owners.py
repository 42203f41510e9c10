"""Processes that own trials: what marks them, and whether they live."""

from __future__ import annotations

import functools
import os
import socket
from pathlib import Path

import psutil
from optuna.trial import FrozenTrial

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


def is_alive(owner: Owner) -> bool:
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
    return owner is not None and not is_alive(owner)
