"""A pool of actors on a Ray cluster.

Ray places the actors, shares the data set among those of a machine, and ends them with the process
that made them; the rules are those of `search.workers.base_pool`. Alone imports Ray.
"""

from __future__ import annotations

import atexit
import os
import queue
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import search
from search.data.dataset import DatasetInfo, Examples
from search.data.mapped import DatasetFiles, sealed_test
from search.exceptions import InputError, TrainingError
from search.workers.base_pool import BaseWorkerPool
from search.workers.fork_server import without_working_folder
from search.workers.ray_head import (
    AUTO,
    answers,
    check_answers,
    check_reachable,
    heard_errors,
    unreachable,
)
from search.workers.resources import DeviceShare, Resources
from search.workers.worker_loop import Message, Order, work
from search_models.own import NetworkSource, named_sources

# Read when Ray is imported. It would report its use, and under `uv run` start its workers by uv
# from a copy of the folder that the command is given in.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray._private.authentication.authentication_token_setup import (
    maybe_enable_token_auth_if_token_available,
)
from ray._private.services import canonicalize_bootstrap_address
from ray.exceptions import ActorUnavailableError, RayError
from ray.job_config import JobConfig

_CONNECT_SECONDS = 30.0  # in which a cluster that answers must take this process
_ASK_SECONDS = 0.2  # between two looks whether it has
_OTHER_TOKEN = (
    "it wants another token: copy ~/.ray/auth_token of the machine that began it, or set "
    "RAY_AUTH_TOKEN"
)
_GET_SECONDS = 10.0  # in which a message that is there must come over
_LOST_SECONDS = 30.0  # after which a cluster that does not answer is lost
_LOOK_SECONDS = 5.0  # between two looks whether it answers


class _JobConfig(JobConfig):
    """Of actors that have the working folder on no path of theirs.

    Ray puts it first on theirs, unless it is told that their code is sent to them; a file of the
    user's that has a module's name would be run in place of the module. There is no option for
    that.
    """

    def _runtime_env_has_working_dir(self) -> bool:
        return os.path.realpath("") != os.path.realpath(Path(search.__file__).parent.parent)


@contextmanager
def connected(address: str | None, *, n_cpus: int) -> Iterator[None]:
    """A connection to the cluster at `address`; without one, to a Ray of `n_cpus` CPUs made here.

    A Ray that is made here ends with the context. A program that is connected stays so.

    Raises:
        InputError: if there is no cluster at that address.
    """
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": "ERROR",
        "job_config": _JobConfig(),
    }
    if address is None:
        try:
            with without_working_folder():
                ray.init(address="local", num_cpus=n_cpus, include_dashboard=False, **options)
        except Exception as error:  # Ray raises a bare one where a part of it does not start
            raise InputError(
                f"Ray must start on this machine, but it does not ({error}); mend that, or leave "
                "out --engine ray."
            ) from error
    else:
        if address != AUTO:
            check_reachable(address)
        try:
            if address == AUTO:  # which raises where no cluster was started here
                check_answers(str(canonicalize_bootstrap_address(address)))
            _join(address, options)
        except Exception as error:  # Ray raises a bare one, too
            raise unreachable(address, _reason(error)) from error
    _end_rays_own_words()
    head = ray.get_runtime_context().gcs_address
    try:
        yield
    finally:
        if answers(head):
            ray.shutdown()
        else:  # Ray would wait for it, for minutes, now or as this process ends
            atexit.unregister(ray.shutdown)


def _join(address: str, options: dict[str, Any]) -> None:
    """Connects to a cluster, in a thread: Ray hears no signal meanwhile, and waits for minutes.

    Raises:
        ConnectionError: if it wants another token.
        TimeoutError: if it takes too long.
        Exception: whatever Ray raises.
    """
    joining: Future[None] = Future()

    def join() -> None:
        try:
            # A cluster that `ray start` makes asks for the token that is there, and Ray brings it
            # to a HOST:PORT only where that is said.
            maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
            ray.init(address=address, **options)
        except Exception as error:
            joining.set_exception(error)
        else:
            joining.set_result(None)

    end = time.monotonic() + _CONNECT_SECONDS
    try:
        with heard_errors() as heard:
            threading.Thread(target=join, daemon=True).start()
            while not wait([joining], _ASK_SECONDS).done:
                if b"InvalidAuthToken" in heard():
                    raise ConnectionError(_OTHER_TOKEN)
                if time.monotonic() > end:
                    raise TimeoutError(f"it takes no connection in {_CONNECT_SECONDS:.0f} s")
            joining.result()
    except BaseException:  # else the end of this process would wait for that thread, or the cluster
        atexit.unregister(ray.shutdown)
        raise


def _reason(error: Exception) -> str:
    """The first line of what Ray, or the system, says of an error."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _end_rays_own_words() -> None:
    """Keeps Ray from printing, into what is on the screen, that workers died: events tell of it.

    There is no option for that.
    """
    worker: Any = ray._private.worker.global_worker
    worker.threads_stopped.set()
    worker.gcs_error_subscriber.close()


def describe_cluster() -> str:
    """What the cluster has, as `2 machines, 16 CPUs, 1 GPU`."""
    total = ray.cluster_resources()
    counts = [(len(_machines()), "machine"), (total.get("CPU", 0), "CPU")]
    counts += [(total.get("GPU", 0), "GPU")]
    return ", ".join(f"{n:g} {what}{'' if n == 1 else 's'}" for n, what in counts)


def n_actors(resources: Resources) -> int:
    """How many actors with these resources the cluster holds.

    Raises:
        InputError: if it holds none.
    """
    n = sum(resources.n_in(machine) for machine in _machines())
    if n == 0:
        raise InputError(
            f"A machine of the cluster must have what a worker takes, but none has {resources}: in "
            f"all there is {describe_cluster()}; ask for less with --resources."
        )
    return n


def _machines() -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


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
        self._head: str = ray.get_runtime_context().gcs_address
        self._looked = self._answered = time.monotonic()
        super().__init__(n_workers)

    def close(self) -> None:
        if not answers(self._head):
            return  # actors end with the cluster, or once it has noticed that this process has
        for worker in self._workers:
            worker.process.kill()

    def _start(self, index: int) -> _ActorProcess:
        work = self._data, index, self._log_folder, self._networks
        return _ActorProcess(self._actor_class.remote(*work))

    def _look_at_head(self) -> None:
        """Raises TrainingError where the cluster's head has not answered for too long.

        Ray itself says nothing for a minute, and then ends this process.
        """
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return
        try:
            check_answers(self._head, timeout=1.0)
        except OSError as error:
            self._looked = time.monotonic()
            if self._looked - self._answered > _LOST_SECONDS:
                raise TrainingError(
                    f"The Ray cluster at {self._head} must answer, but its head has not for "
                    f"{_LOST_SECONDS:.0f} s ({error}); once there is one, the same command goes on."
                ) from error
        else:
            self._looked = self._answered = time.monotonic()

    def _wait(self, processes: Sequence[_ActorProcess], timeout: float) -> Sequence[_ActorProcess]:
        self._look_at_head()
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
