"""What a worker does: takes a job, trains, says what happens, and takes the next.

The same loop runs wherever a pool has its workers. What it says is a message of this file or an
event of `search.workers.jobs`.
"""

from __future__ import annotations

import errno
import json
import os
import random
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from search.data.dataset import Examples
from search.data.mapped import SharedDataset
from search.data.parts import fold
from search.exceptions import SearchError
from search.space.network_files import load_network, told_by_file
from search.training.epochs import EpochResult
from search.training.train import train
from search.training.weights import weights_as_bytes
from search.workers.jobs import Event, Job, JobCancelled, JobDone, JobEpoch, JobFailed
from search.workers.resources import DeviceShare
from search_models.own import NetworkSource


@dataclass(frozen=True, slots=True)
class Assignment:
    """To a worker: a job, and the device on which to do it."""

    job: Job
    share: DeviceShare


@dataclass(frozen=True, slots=True)
class Cancel:
    """To a worker: the job of that key is to end; it may have ended by then."""

    key: int


@dataclass(frozen=True, slots=True)
class Ready:
    """From a worker: it has started.

    Args:
        pid: its process, on the machine where it is.
    """

    pid: int


@dataclass(frozen=True, slots=True)
class Begun:
    """From a worker: it has its job; from here on, a death of the one is charged to the other."""


@dataclass(frozen=True, slots=True)
class Weights:
    """From a worker, just before its job is done: the trained weights, where they are wanted."""

    content: bytes


@dataclass(frozen=True, slots=True)
class Dying:
    """A worker's last word: why it ends, where it can still say so."""

    reason: str


Order = Assignment | Cancel
Message = Ready | Begun | Weights | Dying | Event


class Inbox(Protocol):
    """Where a worker finds its orders; a `Connection` is one.

    Both raise EOFError or an OSError of a broken connection once the pool is gone.
    """

    def poll(self) -> bool:
        """Whether there is one."""

    def recv(self) -> Any:
        """The next `Order`; waits for it."""


def work(
    inbox: Inbox,
    data: SharedDataset,
    index: int,
    log_folder: Path | None,
    networks: Sequence[NetworkSource] = (),
) -> Iterator[Message]:
    """Works for ever; whoever iterates over it hands its messages on, each at once.

    Args:
        index: the number of the worker, which its events bear.
        log_folder: where the worker keeps a log, if anywhere: `worker-PID.jsonl`, one line an
            epoch with the job's key, the epoch and its accuracy.
        networks: files that the user has named, whose networks it may build.

    Raises:
        EOFError, OSError: if the pool is gone.
        SystemExit: if memory runs out, after a `Dying`: what this process holds is freed with it.
    """
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    for source in networks:
        load_network(source)
    yield Ready(os.getpid())
    while True:
        order = inbox.recv()
        if isinstance(order, Assignment):  # a cancellation may come too late
            yield Begun()
            yield from _run(inbox, data, index, order, log_folder)


def _run(
    inbox: Inbox,
    data: SharedDataset,
    index: int,
    assignment: Assignment,
    log_folder: Path | None,
) -> Iterator[Message]:
    job, share = assignment.job, assignment.share

    def is_cancelled() -> bool:
        while inbox.poll():
            order = inbox.recv()
            if isinstance(order, Cancel) and order.key == job.key:
                return True
        return False

    started = time.perf_counter()
    try:
        _seed_all(job.seed)
        if share.memory is not None:
            torch.cuda.set_per_process_memory_fraction(share.memory, share.device)
        training, places, evaluation = _examples(data, job)
        run = train(
            job.hyperparameters,
            training,
            evaluation,
            data.info.normalization,
            places=places,
            epochs=job.epochs,
            seed=job.seed,
            device=share.device,
            should_stop=is_cancelled,
            metric=job.metric,
        )
        n_epochs = 0
        for result in run:
            n_epochs = result.epoch
            if log_folder is not None:
                _log(log_folder, job.key, result)
            yield JobEpoch(job.key, index, result)
        if n_epochs < job.epochs and (n_epochs == 0 or result.is_finite):
            yield JobCancelled(job.key, index)
            return
        if job.weights_path is not None:
            yield Weights(weights_as_bytes(run.network))
        yield JobDone(job.key, index, time.perf_counter() - started)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise
    except Exception as error:  # whatever a recipe does, the next job gets its chance
        told = told_by_file(job.hyperparameters.spec, error)
        if told is None and not isinstance(error, SearchError | OSError):  # they explain themselves
            traceback.print_exc()
        if _is_lack_of_memory(error):
            yield Dying(f"its worker process ran out of memory ({error})")
            raise SystemExit(1) from error
        yield JobFailed(
            job.key,
            index,
            told or f"{type(error).__name__}: {error}",
            worker_died=False,
            is_machines_fault=isinstance(error, OSError),
        )


def _seed_all(seed: int) -> None:
    """Seeds what a user's network may draw from besides PyTorch, which the training seeds."""
    random.seed(seed)
    np.random.seed(seed % 2**32)


def _is_lack_of_memory(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    # PyTorch has a class of its own for a GPU alone.
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def _log(folder: Path, key: int, result: EpochResult) -> None:
    """Appends one whole line: a single write, so that a kill leaves all of it or nothing."""
    line = json.dumps({"trial": key, "epoch": result.epoch, "accuracy": result.accuracy})
    with (folder / f"worker-{os.getpid()}.jsonl").open("ab", buffering=0) as file:
        file.write(f"{line}\n".encode())


def _examples(data: SharedDataset, job: Job) -> tuple[Examples, Tensor | None, Examples]:
    """The images that train, the places of those among them that do, and those that evaluate."""
    development = data.development()
    split = fold(development, data.info, job.part)
    evaluation = split.validation if job.evaluation == "validation" else data.test()
    if job.training == "development":
        return development, None, evaluation
    return split.training, split.places, evaluation
