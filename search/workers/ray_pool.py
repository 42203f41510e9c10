"""A pool of actors on a Ray cluster.

Ray places the actors, shares the data set among those of a machine, and ends them with the process
that made them; the rules are those of `search.workers.base_pool`. Meets Ray, as besides only
`ray_connection.py` does, which says with which settings.
"""

from __future__ import annotations

import queue
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import ActorUnavailableError, RayError

from search.data.dataset import DatasetInfo, Examples
from search.data.mapped import DatasetFiles, sealed_test
from search.exceptions import TrainingError
from search.workers.base_pool import BaseWorkerPool
from search.workers.ray_connection import HEAD, HERE, describe_cluster, ends_of_connection
from search.workers.ray_head import answers, check_answers
from search.workers.resources import DeviceShare, Resources
from search.workers.worker_loop import Message, Order, work
from search_models.own import NetworkSource, named_sources

_GET_SECONDS = 10.0  # in which a message that is there must come over
_LOOK_SECONDS = 5.0  # between two looks whether it answers
# After which a cluster is lost that does not answer. Once the head takes this machine for dead,
# which takes it half a minute, Ray hangs in calls that hear no stop.
_LOST_SECONDS = {HEAD: 30.0, HERE: 15.0}


@dataclass(frozen=True)
class _StoredDataset:
    """A data set whose arrays lie in the object store of the machine, which no actor copies."""

    info: DatasetInfo
    arrays: dict[str, tuple[Any, Any]]

    @classmethod
    def put(cls, files: DatasetFiles) -> ray.ObjectRef[Any]:
        parts = {"development": files.development()}
        if files.test_path is not None:
            parts["test"] = files.test()
        return ray.put(
            cls(files.info, {n: (e.images.numpy(), e.labels.numpy()) for n, e in parts.items()})
        )

    def development(self) -> Examples:
        return self._part("development")

    def test(self) -> Examples:
        if "test" not in self.arrays:
            raise sealed_test()
        return self._part("test")

    def _part(self, name: str) -> Examples:
        with warnings.catch_warnings():  # they cannot be written, and nobody does
            warnings.simplefilter("ignore", UserWarning)
            images, labels = map(torch.from_numpy, self.arrays[name])
        return Examples(images, labels)


class _Inbox:
    """The orders that Ray has brought to an actor."""

    def __init__(self) -> None:
        self._orders: queue.SimpleQueue[Order] = queue.SimpleQueue()

    def put(self, order: Order) -> None:
        self._orders.put(order)

    def poll(self) -> bool:
        return not self._orders.empty()

    def recv(self) -> Order:
        return self._orders.get()


class _Actor:
    """A worker as Ray runs it: `work` in one thread, and `send` in another."""

    def __init__(
        self,
        data: _StoredDataset,
        index: int,
        log_folder: Path | None,
        networks: Sequence[NetworkSource],
    ) -> None:
        if log_folder is not None:  # another machine may not have it yet
            log_folder.mkdir(parents=True, exist_ok=True)
        self._inbox = _Inbox()
        self._work = data, index, log_folder, networks

    def send(self, order: Order) -> None:
        self._inbox.put(order)

    def work(self) -> Iterator[Message]:
        yield from work(self._inbox, *self._work)


class _ActorProcess:
    """An actor, and the stream of what it says."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self.stream = actor.work.options(num_returns="streaming").remote()
        self._death = "ended by itself"

    def send(self, order: Order) -> None:
        self._actor.send.remote(order)

    def messages(self) -> Iterator[Message]:
        try:
            while ray.wait([self.stream], timeout=0)[0]:
                yield ray.get(next(self.stream), timeout=_GET_SECONDS)
        except (RayError, StopIteration) as error:
            self._death = _death(error)
            raise EOFError from error

    def kill(self) -> None:
        ray.kill(self._actor)

    def death(self) -> str:
        self.kill()  # what raised an error may still be there
        return self._death


def _death(error: Exception) -> str:
    """Ray's reason: the last line says what happened, between other words."""
    if isinstance(error, ActorUnavailableError):  # Ray does not know yet, or cannot
        return "stopped answering: it, its machine or the network between failed"
    last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    detail = last.rpartition("Worker exit detail: ")[2].partition(" Some common causes")[0]
    return f"ended: {detail.rstrip('.')}"


class RayWorkerPool(BaseWorkerPool[_ActorProcess]):
    """`n_workers` actors that share one data set, on the cluster that this process is connected to.

    An actor for which the cluster has no room now starts once it has. It is a context manager: when
    the context ends, so do the actors.

    Args:
        resources: what each actor takes.
        log_folder: as that of `LocalWorkerPool`, on the machine of each actor; it is made
            where it is missing.
    """

    def __init__(
        self,
        n_workers: int,
        files: DatasetFiles,
        *,
        resources: Resources,
        log_folder: Path | None = None,
    ) -> None:
        self._resources = resources
        self._data = _StoredDataset.put(files)
        self._networks = named_sources()
        self._log_folder = None if log_folder is None else log_folder.resolve()
        self._actor_class = ray.remote(_Actor).options(
            num_cpus=resources.cpu,
            num_gpus=resources.gpu,
            max_concurrency=2,
            max_restarts=0,  # the pool replaces it, because what that means for a job is its rule
        )
        self._ends = ends_of_connection()
        self._looked = time.monotonic()
        self._answered = dict.fromkeys(self._ends, self._looked)
        super().__init__(n_workers)

    def close(self) -> None:
        if not all(map(answers, self._ends.values())):
            return  # actors end with the cluster, or once it has noticed that this process has
        for worker in self._workers:
            worker.process.kill()

    def _start(self, index: int) -> _ActorProcess:
        work = self._data, index, self._log_folder, self._networks
        return _ActorProcess(self._actor_class.remote(*work))

    def _look_at_cluster(self) -> None:
        """Raises TrainingError where the head, or Ray on this machine, is gone for too long.

        Ray itself says nothing for a minute, and then ends this process; where it has died on this
        machine, after ten seconds.
        """
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return
        for name, address in self._ends.items():
            try:
                check_answers(address, timeout=1.0)
            except OSError as error:
                silent = time.monotonic() - self._answered[name]
                has_died = name == HERE and isinstance(error, ConnectionRefusedError)
                if has_died or silent > _LOST_SECONDS[name]:
                    # One that died did so at some time since it answered last.
                    what = "is gone" if has_died else f"has not for {silent:.0f} s"
                    raise TrainingError(
                        f"The Ray cluster at {self._ends[HEAD]} must answer, but {name} {what} "
                        f"({error}); once it does, the same command goes on."
                    ) from error
            else:
                self._answered[name] = time.monotonic()
        self._looked = time.monotonic()

    def _wait(self, processes: Sequence[_ActorProcess], timeout: float) -> Sequence[_ActorProcess]:
        self._look_at_cluster()
        streams = [process.stream for process in processes]
        ray.wait(streams, num_returns=1, timeout=timeout)
        heard, _ = ray.wait(streams, num_returns=len(streams), timeout=0)
        return [process for process in processes if process.stream in heard]

    def _share(self, device: str, index: int) -> DeviceShare:
        return self._resources.share

    def _is_due(self, index: int) -> bool:
        """An actor that waits for room, on a cluster that lost a machine, may do so for long."""
        return not any(worker.is_ready for worker in self._workers)

    def _startup_advice(self) -> str:
        return (
            f"The cluster has {describe_cluster()}, and each worker takes {self._resources}. What "
            "they printed stands in Ray's logs; this package must be installed on each machine."
        )
