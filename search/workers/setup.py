"""Which workers train, and a pool of them once their data are there.

Workers come into being in two steps: a server that imports PyTorch is started first, so that it
imports while the data are loaded, and the pool is made from it afterwards. Imports nothing slow.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from search.exceptions import InputError
from search.training.devices import check_device_name
from search.wording import thousands
from search.workers.fork_server import start_server

if TYPE_CHECKING:
    from pathlib import Path

    from search.data.dataset import Dataset
    from search.workers.jobs import WorkerPool
    from search.workers.resources import Resources

_MOST_WORKERS, _MOST_A_CORE = 64, 16  # on one machine: the higher of the two


def check_worker_count(n_workers: int | None) -> None:
    """Sees that this machine can hold so many workers, each a process of some 100 MB.

    Raises:
        InputError: if it cannot: it would stand still, and all else on it.
    """
    most = max(_MOST_WORKERS, _MOST_A_CORE * (os.cpu_count() or 1))
    if n_workers is not None and n_workers > most:
        raise InputError(
            f"Workers must be at most {most} on this machine, {_MOST_A_CORE} for each of its cores "
            f"or {_MOST_WORKERS}, but got {thousands(n_workers)}; more make nothing faster."
        )


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """Which workers train, wherever they run.

    Args:
        n_workers: how many at most.
        device: what each job is to be trained on, as a `Job` takes it.
        resources: what each worker takes of the Ray cluster that this process is connected to;
            None where they are processes on this machine.
    """

    n_workers: int
    device: str
    resources: Resources | None = None

    @contextmanager
    def pool(
        self,
        dataset: Dataset,
        *,
        with_test: bool,
        n_jobs: int | None = None,
        log_folder: Path | None = None,
    ) -> Iterator[WorkerPool]:
        """A pool of these workers, which end with the context.

        Args:
            with_test: whether they get the test set; a search and all that chooses have none.
            n_jobs: how many there will be, where that is known: no more workers are made.
            log_folder: as that of `LocalWorkerPool`.

        Raises:
            DataError: if there is no room for the files that workers share.
            TrainingError: if workers cannot be started.
        """
        from search.data.mapped import dataset_files

        n_workers = self.n_workers if n_jobs is None else min(self.n_workers, n_jobs)
        with dataset_files(dataset, with_test=with_test) as files:
            if self.resources is None:
                from search.workers.local_pool import LocalWorkerPool

                with LocalWorkerPool(n_workers, files, log_folder=log_folder) as local:
                    yield local
            else:
                from search.workers.ray_pool import RayWorkerPool

                with RayWorkerPool(
                    n_workers, files, resources=self.resources, log_folder=log_folder
                ) as actors:
                    yield actors


def start_workers(resources: Resources | None) -> None:
    """Starts what workers are forked from, where they are processes on this machine.

    Call it before PyTorch is imported here, which takes seconds: the server imports it meanwhile.

    Args:
        resources: what each takes of a Ray cluster, or None.

    Raises:
        InputError: if there is no temporary folder for the server.
    """
    if resources is None:
        start_server()


def prepare_workers(n_workers: int | None, device: str) -> WorkerSetup:
    """Starts the server that workers on this machine are forked from; says what they train on.

    Call it before the data are loaded: PyTorch is imported meanwhile, there and here.

    Args:
        n_workers: by default one for each core that this process may use.
        device: as a user names it.

    Raises:
        InputError: if there is no such device, no temporary folder for the server, or if these are
            more workers than this machine can hold.
    """
    check_worker_count(n_workers)
    check_device_name(device)
    start_server()
    return local_workers(n_workers, device)


def local_workers(n_workers: int | None, device: str) -> WorkerSetup:
    """Workers on this machine.

    Args:
        n_workers: by default one for each core that this process may use.
        device: as a user names it.

    Raises:
        InputError: if there is no such device.
    """
    from search.training.train import find_device
    from search.workers.local_pool import default_worker_count

    return WorkerSetup(n_workers or default_worker_count(), str(find_device(device)))
