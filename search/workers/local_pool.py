"""A pool of training processes on this machine.

Each worker is a process of its own with one thread, made once and used for many jobs. It maps
the data set's file, so that all workers share one copy. A worker whose pool is gone ends by
itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
import torch

from search.data.mapped import DatasetFiles
from search.exceptions import TrainingError
from search.workers.base_pool import BaseWorkerPool
from search.workers.fork_server import start_server, without_program, worker_context
from search.workers.resources import DeviceShare, deal
from search.workers.worker_loop import Message, Order, work
from search_models.own import NetworkSource, named_sources

_MAX_SERVER_DEATHS = 20  # in a row; its imports take seconds, in which a busy machine may kill it
_SERVER_REST_SECONDS = 0.25  # one that is dying refuses work, but does not yet count as dead
_CLOSE_SECONDS = 1.0  # of the five in which a search must end


class _LocalProcess:
    """A process forked here, and the pipe to it."""

    def __init__(self, process: BaseProcess, connection: Connection) -> None:
        self.process = process
        self.connection = connection
        # As the system has it. Once their server is dead, multiprocessing takes all its workers
        # for dead, and neither kills them nor waits for them.
        self.system = _system_process(process.pid)

    def send(self, order: Order) -> None:
        with contextlib.suppress(OSError):  # it is dead
            self.connection.send(order)

    def messages(self) -> Iterator[Message]:
        try:
            while self.connection.poll():
                yield self.connection.recv()
        except OSError as error:
            raise EOFError from error

    def kill(self) -> None:
        if self.system is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                self.system.kill()

    def death(self) -> str:
        self.connection.close()
        _end([self])
        return _death(self.process.exitcode)


def default_worker_count() -> int:
    """One worker for each core that this process may use, cgroup quotas included."""
    import joblib  # slow to import, and no worker needs it

    return int(joblib.cpu_count())


def _own_cores(n_workers: int) -> dict[int, int]:
    """A core for each worker, where there are exactly as many; else the system places them."""
    if not hasattr(os, "sched_getaffinity"):
        return {}
    cores = sorted(os.sched_getaffinity(0))
    return dict(enumerate(cores)) if len(cores) == n_workers else {}


class LocalWorkerPool(BaseWorkerPool[_LocalProcess]):
    """`n_workers` training processes that share one data set.

    Use it as a context manager: when the context ends, so do the processes. Those that train on
    GPUs are dealt round them, and share the memory of each.

    Args:
        log_folder: where each worker keeps a log of its own, if anywhere: `worker-PID.jsonl`, one
            line an epoch with the job's key, the epoch and its accuracy, written before anybody
            else hears of the epoch. The folder must be there.

    Raises:
        TrainingError: if the server that forks workers dies again and again.
    """

    def __init__(
        self, n_workers: int, files: DatasetFiles, *, log_folder: Path | None = None
    ) -> None:
        self._context = worker_context()
        self._files = files
        self._log_folder = log_folder
        self._n_workers = n_workers
        self._cores = _own_cores(n_workers)
        self._networks = named_sources()
        super().__init__(n_workers)

    def close(self) -> None:
        processes = [worker.process for worker in self._workers]
        for process in processes:
            process.connection.close()  # which ends them between two batches
        _end(processes)

    def _start(self, index: int) -> _LocalProcess:
        for n_left in reversed(range(_MAX_SERVER_DEATHS)):
            start_server()  # another, where it has died
            ours, theirs = self._context.Pipe()
            process = self._context.Process(
                target=_worker_main,
                args=(
                    *(theirs, self._files, index),
                    *(self._cores.get(index), self._log_folder, self._networks),
                ),
                daemon=True,
                name=f"search-worker-{index}",
            )
            try:
                with without_program():
                    process.start()
            except (EOFError, OSError) as error:  # the server died before it answered
                ours.close()
                if not n_left:
                    raise TrainingError(
                        "Worker processes must start, but what starts them died "
                        f"{_MAX_SERVER_DEATHS} times in a row ({error!r}); if it is memory, take "
                        "fewer --workers."
                    ) from error
                time.sleep(_SERVER_REST_SECONDS)
                continue
            finally:
                theirs.close()
            return _LocalProcess(process, ours)
        raise AssertionError  # the last one ends one way or the other

    def _wait(self, processes: Sequence[_LocalProcess], timeout: float) -> Sequence[_LocalProcess]:
        by_connection = {process.connection: process for process in processes}
        heard = wait(list(by_connection), timeout)
        return [process for connection, process in by_connection.items() if connection in heard]

    def _share(self, device: str, index: int) -> DeviceShare:
        n_gpus = torch.cuda.device_count() if device == "cuda" else 0
        return deal(device, self._n_workers, n_gpus)[index]

    def _startup_advice(self) -> str:
        return "What they printed stands above; if it is memory, take fewer --workers."


def _system_process(pid: int | None) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:  # it has died already
        return None


def _end(workers: Sequence[_LocalProcess]) -> None:
    """Gives processes that are about to end a moment for it, and then kills them."""
    processes = [worker.system for worker in workers if worker.system is not None]
    psutil.wait_procs(processes, timeout=_CLOSE_SECONDS)
    for worker in workers:
        worker.kill()
        worker.process.join(_CLOSE_SECONDS)  # for its exit code


def _death(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        try:
            name = signal.Signals(-exit_code).name
        except ValueError:
            name = "an unknown signal"
        hint = ", perhaps for lack of memory" if name == "SIGKILL" else ""
        return f"was killed by signal {-exit_code} ({name}{hint})"
    return f"ended with exit code {exit_code}"


def _worker_main(
    connection: Connection,
    files: DatasetFiles,
    index: int,
    core: int | None,
    log_folder: Path | None,
    networks: Sequence[NetworkSource],
) -> None:
    # A terminal or a cluster sends these to all processes; only the pool decides what follows.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if core is not None:
        os.sched_setaffinity(0, {core})
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the pool is gone
        for message in work(connection, files, index, log_folder, networks):
            connection.send(message)
