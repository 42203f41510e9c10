"""The pools of training processes: here, and on a Ray cluster of one machine."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from multiprocessing import forkserver
from multiprocessing.forkserver import _forkserver
from pathlib import Path
from typing import cast

import psutil
import pytest

from search.data.dataset import Dataset, DatasetInfo, Examples
from search.data.load import load_dataset
from search.data.mapped import DatasetFiles, dataset_files
from search.data.parts import part_numbers
from search.exceptions import TrainingError
from search.space.hyperparameters import Hyperparameters
from search.training.epochs import EpochResult
from search.training.train import train
from search.workers.fork_server import start_server
from search.workers.jobs import (
    Event,
    Job,
    JobCancelled,
    JobDone,
    JobEpoch,
    JobFailed,
    WorkerPool,
    run_jobs,
)
from search.workers.local_pool import LocalWorkerPool
from search.workers.ray_connection import connected
from search.workers.ray_pool import RayWorkerPool
from search.workers.repeats import train_repeats
from search.workers.resources import Resources
from search.workers.setup import WorkerSetup
from search_models.spec import ModelSpec
from tests.conftest import wait_until

RECIPE = Hyperparameters(
    spec=ModelSpec.parse("c3 4, pool, c3 4, pool, out+bias, gap"), learning_rate=0.05
)


AnyPool = LocalWorkerPool | RayWorkerPool
MakePool = Callable[..., AnyPool]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load_dataset("digits", tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def files(dataset: Dataset) -> Iterator[DatasetFiles]:
    with dataset_files(dataset, with_test=True) as files:
        yield files


@pytest.fixture(scope="module", params=["local", "ray"])
def make_pool(request: pytest.FixtureRequest) -> Iterator[MakePool]:
    """Makes a pool; each test with it runs on both kinds."""
    if request.param == "local":
        yield LocalWorkerPool
        return
    with connected(None, n_cpus=4):
        yield partial(RayWorkerPool, resources=Resources(cpu=1))


@pytest.fixture(scope="module")
def logs(make_pool: MakePool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the workers of `pool` keep their logs."""
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def pool(make_pool: MakePool, files: DatasetFiles, logs: Path) -> Iterator[AnyPool]:
    with make_pool(2, files, log_folder=logs) as pool:
        wait_for_idle(pool, 2)
        yield pool


def wait_for_idle(pool: WorkerPool, n: int = 1) -> None:
    """Waits until so many workers are idle, of a pool with nothing else to tell."""

    def is_idle() -> bool:
        assert not list(pool.events(timeout=0.1))
        return pool.n_idle >= n

    wait_until(is_idle)


def events_until(pool: WorkerPool, kind: type[Event], *, key: int) -> list[Event]:
    """All events up to the first of that kind for that job."""
    seen: list[Event] = []

    def has_come() -> bool:
        seen.extend(pool.events(timeout=0.1))
        return any(isinstance(event, kind) and event.key == key for event in seen)

    wait_until(has_come)
    return seen


def test_a_job_reports_each_epoch_then_its_end(pool: AnyPool) -> None:
    pool.submit(Job(1, RECIPE, epochs=3, seed=0))
    events = events_until(pool, JobDone, key=1)
    epochs = [event.result.epoch for event in events if isinstance(event, JobEpoch)]
    assert epochs == [1, 2, 3]


def test_the_worker_does_not_change_the_numbers(pool: AnyPool) -> None:
    jobs = [Job(key, RECIPE, epochs=2, seed=7) for key in range(4)]
    results: dict[int, list[float]] = {job.key: [] for job in jobs}
    workers = set()
    for event in run_jobs(pool, jobs):
        workers.add(event.worker)
        if isinstance(event, JobEpoch):
            results[event.key].append(event.result.loss)
    assert workers == {0, 1}
    assert len({tuple(losses) for losses in results.values()}) == 1


def test_a_setup_makes_no_more_workers_than_jobs_and_seals_the_test_set(
    make_pool: MakePool, dataset: Dataset
) -> None:
    resources = None if make_pool is LocalWorkerPool else Resources(cpu=1)
    with WorkerSetup(4, "cpu", resources).pool(dataset, with_test=False, n_jobs=1) as pool:
        wait_for_idle(pool)
        pool.submit(Job(1, RECIPE, epochs=1, seed=0, evaluation="test"))
        assert pool.n_idle == 0
        (failed,) = (e for e in events_until(pool, JobFailed, key=1) if isinstance(e, JobFailed))
        assert "test set" in failed.reason
        assert pool.n_idle == 1


def test_a_cancelled_job_ends_and_its_worker_goes_on(pool: AnyPool) -> None:
    pool.submit(Job(2, RECIPE, epochs=100_000, seed=0))
    events_until(pool, JobEpoch, key=2)
    pool.cancel(2)
    events_until(pool, JobCancelled, key=2)
    assert pool.n_idle == len(pool.pids)
    pool.submit(Job(3, RECIPE, epochs=1, seed=0))
    assert {event.key for event in events_until(pool, JobDone, key=3)} == {3}


def test_an_error_in_training_fails_its_job_alone(pool: AnyPool) -> None:
    pool.submit(Job(4, replace(RECIPE, batch_size=5000), epochs=1, seed=0))
    (failed,) = (e for e in events_until(pool, JobFailed, key=4) if isinstance(e, JobFailed))
    assert not failed.worker_died
    assert "A batch must not be larger" in failed.reason


def test_a_killed_worker_fails_its_job_and_is_replaced(pool: AnyPool) -> None:
    before = set(pool.pids)
    worker = pool.submit(Job(5, RECIPE, epochs=100_000, seed=0))
    events_until(pool, JobEpoch, key=5)
    os.kill(pool.pids[worker], signal.SIGSEGV)
    (failed,) = (e for e in events_until(pool, JobFailed, key=5) if isinstance(e, JobFailed))
    assert failed.worker_died
    assert (
        "SIGSEGV" if isinstance(pool, LocalWorkerPool) else "unexpectedly exits"
    ) in failed.reason
    wait_for_idle(pool, 2)
    assert len(set(pool.pids) - before) == 1
    pool.submit(Job(6, RECIPE, epochs=1, seed=0))
    events_until(pool, JobDone, key=6)


def test_a_cancelled_job_that_hangs_is_killed_as_well(pool: AnyPool) -> None:
    worker = pool.submit(Job(9, RECIPE, epochs=100_000, seed=0))
    events_until(pool, JobEpoch, key=9)
    pool.kill_overdue(60)
    os.kill(pool.pids[worker], signal.SIGSTOP)
    pool.cancel(9)
    assert not [event for event in pool.events(1) if not isinstance(event, JobEpoch)]
    pool.kill_overdue(0)
    (failed,) = (e for e in events_until(pool, JobFailed, key=9) if isinstance(e, JobFailed))
    assert failed.worker_died
    assert "the time limit of a trial" in failed.reason
    wait_for_idle(pool, 2)


def test_each_worker_keeps_a_log_of_its_epochs(pool: AnyPool, logs: Path) -> None:
    jobs = [Job(key, RECIPE, epochs=2, seed=key) for key in range(100, 103)]
    told = [event for event in run_jobs(pool, jobs) if isinstance(event, JobEpoch)]
    assert {path.name for path in logs.iterdir()} >= {f"worker-{pid}.jsonl" for pid in pool.pids}
    lines = [json.loads(line) for path in logs.iterdir() for line in path.open()]
    assert sorted(str(line) for line in lines if line["trial"] >= 100) == sorted(
        str({"trial": event.key, "epoch": event.result.epoch, "accuracy": event.result.accuracy})
        for event in told
    )


class _Deadly:
    """What kills the process that unpickles it, as a broken installation would."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return os._exit, (3,)


def test_workers_that_die_as_they_start_end_the_search_with_an_explanation(
    make_pool: MakePool, files: DatasetFiles
) -> None:
    deadly = replace(files, info=cast(DatasetInfo, _Deadly()))
    with (
        # Each actor imports PyTorch first, for seconds.
        make_pool(3 if make_pool is LocalWorkerPool else 1, deadly) as pool,
        pytest.raises(TrainingError, match="Worker processes must start, but 3 in a row"),
    ):
        wait_for_idle(pool)


def test_workers_start_although_what_starts_them_is_killed(files: DatasetFiles) -> None:
    """The server that forks them, again and again while it imports PyTorch."""
    before = _forkserver._forkserver_pid  # type: ignore[attr-defined]
    if before is not None:  # it has imported all
        os.kill(before, signal.SIGKILL)
    killed: list[int] = []

    def kill() -> None:
        while len(killed) < 4:
            time.sleep(0.1)
            server = _forkserver._forkserver_pid  # type: ignore[attr-defined]
            if server not in (None, before, *killed):
                os.kill(server, signal.SIGKILL)
                killed.append(server)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    with LocalWorkerPool(2, files) as pool:
        thread.join()
        wait_for_idle(pool, 2)
        pool.submit(Job(1, RECIPE, epochs=1, seed=0))
        events_until(pool, JobDone, key=1)
    assert len(killed) == 4


def test_a_stop_while_their_server_starts_is_heard_once_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[bool] = []

    def stop_and_start() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        _forkserver.ensure_running()
        started.append(True)

    monkeypatch.setattr(forkserver, "ensure_running", stop_and_start)
    with pytest.raises(KeyboardInterrupt):
        start_server()
    assert started == [True]


def test_run_jobs_raises_where_a_job_fails(pool: AnyPool) -> None:
    with pytest.raises(TrainingError, match="A batch must not be larger"):
        list(run_jobs(pool, [Job(7, replace(RECIPE, batch_size=5000), epochs=1, seed=0)]))


def test_a_run_that_the_machine_fails_says_what_to_mend(pool: AnyPool, tmp_path: Path) -> None:
    job = Job(8, RECIPE, epochs=1, seed=0, weights_path=tmp_path / "gone" / "weights")
    with pytest.raises(TrainingError, match=r"read and write its files, .*gone.*; mend that"):
        list(run_jobs(pool, [job]))


def test_repeats_differ_by_seed_and_write_their_weights(pool: AnyPool, tmp_path: Path) -> None:
    heard: list[tuple[int, EpochResult]] = []
    repeats = train_repeats(
        pool,
        RECIPE,
        seeds=[1, 2],
        epochs=2,
        training="development",
        evaluation="test",
        device="cpu",
        listener=lambda seed, result: heard.append((seed, result)),
        folder=tmp_path,
    )
    assert [repeat.seed for repeat in repeats] == [1, 2]
    assert repeats[0].epochs[0].loss != repeats[1].epochs[0].loss
    assert len(heard) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "seed-1.safetensors",
        "seed-2.safetensors",
    ]


def test_closing_ends_workers_that_train(make_pool: MakePool, files: DatasetFiles) -> None:
    pool = make_pool(1, files)
    wait_for_idle(pool)
    pool.submit(Job(8, RECIPE, epochs=100_000, seed=0))
    events_until(pool, JobEpoch, key=8)
    processes = [psutil.Process(pid) for pid in pool.pids]
    pool.close()
    wait_until(lambda: not any(process.is_running() for process in processes))


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity"), reason="this system does not place processes"
)
def test_as_many_workers_as_cores_have_a_core_each(files: DatasetFiles) -> None:
    cores = os.sched_getaffinity(0)
    with LocalWorkerPool(len(cores), files) as pool:
        wait_for_idle(pool, len(cores))

        def are_placed() -> bool:
            own = [psutil.Process(pid).cpu_affinity() for pid in pool.pids]
            return sorted(own) == [[core] for core in sorted(cores)]

        wait_until(are_placed)
    with LocalWorkerPool(len(cores) + 1, files) as pool:
        run = [
            Job(key=key, hyperparameters=RECIPE, epochs=1, seed=0) for key in range(len(cores) + 1)
        ]
        assert any(isinstance(event, JobDone) for event in run_jobs(pool, run))
        assert all(set(psutil.Process(pid).cpu_affinity()) == cores for pid in pool.pids)


def test_a_job_is_validated_by_its_part_alone(pool: AnyPool, dataset: Dataset) -> None:
    numbers = part_numbers(dataset.development.labels, dataset.info)
    jobs = [Job(part, RECIPE, epochs=1, seed=7, part=part) for part in (0, 2)]
    results = {e.key: e.result for e in run_jobs(pool, jobs) if isinstance(e, JobEpoch)}
    for part in (0, 2):
        others, own = dataset.development.images, dataset.development.labels
        trains, validates = numbers != part, numbers == part
        (result,) = train(
            RECIPE,
            Examples(others[trains], own[trains]),
            Examples(others[validates], own[validates]),
            dataset.info.normalization,
            epochs=1,
            seed=7,
            device="cpu",
        )
        assert (results[part].loss, results[part].training_loss) == (
            result.loss,
            result.training_loss,
        )
