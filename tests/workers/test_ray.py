"""Searches whose workers are actors of a Ray cluster: of several nodes, with one that dies."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from optuna.trial import TrialState
from ray.cluster_utils import Cluster

from search.data.load import load_dataset
from search.data.mapped import dataset_files
from search.exceptions import TrainingError
from search.study.summary import is_trained
from search.workers import ray_pool
from search.workers.ray_connection import HEAD, HERE, connected
from search.workers.ray_head import answers
from search.workers.ray_pool import RayWorkerPool
from search.workers.resources import Resources
from tests.conftest import DIGITS_RUN, Command, alive, n_reported, wait_until
from tests.support.own_networks import RESIDUAL
from tests.support.servers import free_port

NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100_000_000}  # bytes
ON_RAY = (*DIGITS_RUN, "--engine", "ray", "--no-confirm")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A cluster of two nodes, with a CPU each."""
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    cluster.add_node(**NODE)
    yield cluster
    cluster.shutdown()


def actors(*above: psutil.Process) -> list[psutil.Process]:
    """The actors below these processes."""
    below = [child for process in above for child in process.children(recursive=True)]
    return [process for process in alive(below) if process.name() == "ray::_Actor"]


def test_a_search_goes_on_with_the_nodes_that_are_left(cluster: Cluster, command: Command) -> None:
    search = command.start(
        *(*ON_RAY, "--epochs", "60", "--study", "long", "--trials", "2"),
        *("--ray-address", cluster.address),
    )
    wait_until(lambda: 0 < n_reported(command, "long", first=1) < n_reported(command, "long"))
    (node,) = cluster.worker_nodes
    cluster.remove_node(node, allow_graceful=False)
    out, _ = search.communicate()
    assert search.returncode == 0, out
    assert "2 machines, 2 CPUs" in out
    assert not re.search(r"raylet|core_worker|\.cc:", out)  # Ray's own words
    trials = command.study("long").trials
    (failed,) = (trial for trial in trials if trial.state == TrialState.FAIL)
    (repeated,) = (trial for trial in trials if "repeats" in trial.user_attrs)
    assert re.search("stopped answering|node", failed.user_attrs["reason"])
    assert sum(map(is_trained, trials)) == 2
    assert len(trials) == 3
    assert repeated.params == failed.params
    assert not actors(psutil.Process())
    weights = command.folder / "studies.db-artifacts"
    assert len(list(weights.glob("*-1"))) == 2


def test_an_actor_waits_for_room_while_another_has_some(cluster: Cluster, tmp_path: Path) -> None:
    dataset = load_dataset("digits", tmp_path)
    one = Resources(cpu=1)
    with (
        connected(cluster.address, n_cpus=1),
        dataset_files(dataset, with_test=False) as files,
        RayWorkerPool(3, files, resources=one) as pool,
    ):
        wait_until(lambda: not list(pool.events(0.1)) and pool.n_idle > 0)
        pool.startup_seconds = 0.5
        until = time.monotonic() + 2 * pool.startup_seconds
        while time.monotonic() < until:
            assert not list(pool.events(0.1))
        assert pool.n_idle < 3
        with RayWorkerPool(1, files, resources=one) as without_room:
            without_room.startup_seconds = 0.5
            with pytest.raises(TrainingError, match=r"3 in a row ended while they did.* CPU"):
                wait_until(lambda: bool(list(without_room.events(0.1))))


@contextmanager
def stopped(cluster: Cluster, name: str) -> Iterator[None]:
    """A process of the first node that accepts connections and says nothing, as one that hangs."""
    assert cluster.head_node is not None
    (server,) = cluster.head_node.all_processes[name]
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.process.pid, signal.SIGCONT)


def test_a_search_is_refused_where_the_head_of_a_cluster_hangs(
    cluster: Cluster, command: Command
) -> None:
    assert answers(cluster.address)
    with stopped(cluster, "gcs_server"):
        wait_until(lambda: not answers(cluster.address))
        done = command(*ON_RAY, "--ray-address", cluster.address)
    assert done.code == 2
    assert f"{cluster.address!r} does not (timed out)" in done.err
    assert not command.database.exists()


@pytest.mark.parametrize(
    ("name", "words"), [("raylet", "Ray on this machine"), ("gcs_server", "its head")]
)
def test_what_hangs_of_a_cluster_while_workers_train_ends_them(
    name: str, words: str, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_pool, "_LOOK_SECONDS", 0.1)
    monkeypatch.setattr(ray_pool, "_LOST_SECONDS", dict.fromkeys(ray_pool._LOST_SECONDS, 0.5))
    dataset = load_dataset("digits", tmp_path)
    with (
        connected(cluster.address, n_cpus=1),
        dataset_files(dataset, with_test=False) as files,
        RayWorkerPool(1, files, resources=Resources(cpu=1)) as pool,
    ):
        wait_until(lambda: not list(pool.events(0.1)) and pool.n_idle == 1)
        with stopped(cluster, name), pytest.raises(TrainingError, match=f"{words} has not for"):
            wait_until(lambda: bool(list(pool.events(0.1))))


def test_what_has_died_on_this_machine_is_said_to_be_gone(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_pool, "_LOOK_SECONDS", 0.1)
    gone = {HEAD: cluster.address, HERE: f"127.0.0.1:{free_port()}"}  # where nothing listens
    monkeypatch.setattr(ray_pool, "ends_of_connection", lambda: gone)
    dataset = load_dataset("digits", tmp_path)
    with (
        connected(cluster.address, n_cpus=1),
        dataset_files(dataset, with_test=False) as files,
        RayWorkerPool(1, files, resources=Resources(cpu=1)) as pool,
        pytest.raises(TrainingError, match=r"Ray on this machine is gone \(.* refused\)"),
    ):
        wait_until(lambda: bool(list(pool.events(0.1))))


def test_a_cluster_that_asks_for_a_token_is_joined_with_it_alone(command: Command) -> None:
    """As `ray start` makes one wherever there is a token, which Ray itself makes once."""
    token = command.folder / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("0" * 64)
    command.environment["HOME"] = str(command.folder)
    port = free_port()
    ray = "import sys; from ray.scripts.scripts import main; sys.argv[0] = 'ray'; main()"
    head = command.start_words(
        [
            *(sys.executable, "-c", ray, "start", "--head", "--block", "--port", str(port)),
            *("--num-cpus", "1", "--include-dashboard", "false"),
            *("--object-store-memory", str(NODE["object_store_memory"])),
        ]
    )
    address = f"127.0.0.1:{port}"
    wait_until(lambda: answers(address))
    join = (
        "import sys; from search.workers.ray_connection import connected, describe_cluster\n"
        "with connected(sys.argv[1], n_cpus=1): print(describe_cluster())"
    )
    joined = command.run_words([sys.executable, "-c", join, address])
    assert "1 machine, 1 CPU" in joined.out, joined.err
    refused = command.run_words(
        [*command.words(*ON_RAY), "--ray-address", address], RAY_AUTH_TOKEN="1" * 64
    )
    assert refused.code == 2
    assert "it wants another token" in " ".join(refused.err.split())
    assert "InvalidAuthToken" not in refused.err
    os.killpg(head.pid, signal.SIGTERM)
    head.wait()


def test_a_stop_is_heard_while_a_cluster_is_joined(command: Command) -> None:
    """One that begins as heads do, and then hangs: Ray waits for minutes, and hears nothing."""
    # On all addresses: Ray takes another one of this machine for 127.0.0.1.
    with socket.create_server(("", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        search = command.start(*ON_RAY, "--ray-address", address)
        looks, _ = listener.accept()
        with looks:
            looks.sendall(bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))  # the settings of HTTP/2
            joins, _ = listener.accept()
            with joins:
                search.send_signal(signal.SIGTERM)
                out, _ = search.communicate()
    assert search.returncode == 130, out
    assert out.splitlines() == ["Interrupted. What was finished is kept; the same command goes on."]
    assert not command.database.exists()


def test_networks_of_a_users_file_train_on_a_cluster(cluster: Cluster, command: Command) -> None:
    (command.folder / "net.py").write_text(RESIDUAL)
    done = command(
        *("run", "--network", "net.py", "--dataset", "digits", "--budget", "3000", "--epochs", "1"),
        *("--engine", "ray", "--ray-address", cluster.address, "--no-confirm", "--pruner", "none"),
        *("--trials", "2", "--workers", "1"),
    )
    assert done.code == 0, done.err
    trials = command.study("digits-3000x1-net").trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 2


def test_what_no_machine_of_the_cluster_has_is_refused(cluster: Cluster, command: Command) -> None:
    done = command(*ON_RAY, "--ray-address", cluster.address, "--resources", "gpu=0.5")
    assert done.code == 2
    assert "none has cpu=1,gpu=0.5: in all there is " in done.err
    assert "0 GPUs" in done.err
    assert not command.database.exists()


def test_ctrl_c_ends_the_search_and_the_ray_that_it_started(command: Command) -> None:
    # No actor runs a file of the user's in place of a module, nor does Ray itself.
    for name in ("search", "search_models", "torch", "random", "queue", "logging"):
        (command.folder / f"{name}.py").write_text("open('executed', 'w')\nraise SystemExit(3)\n")
    search = command.start(
        *(*ON_RAY, "--epochs", "400", "--study", "long", "--trials", "4", "--workers", "2")
    )
    wait_until(lambda: 0 < n_reported(command, "long", first=1) < n_reported(command, "long"))
    processes = psutil.Process(search.pid).children(recursive=True)
    assert len(actors(psutil.Process(search.pid))) == 2
    os.killpg(search.pid, signal.SIGINT)
    out, _ = search.communicate()
    assert search.returncode == 130, out
    assert "The same command goes on" in out
    wait_until(lambda: not alive(processes))
    assert not (command.folder / "executed").exists()
    states = [trial.state for trial in command.study("long").trials]
    assert states == [TrialState.FAIL] * 2 + [TrialState.WAITING] * 2


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "ray://127.0.0.1:10001", ":"])
def test_an_address_without_a_cluster_is_refused(address: str, command: Command) -> None:
    done = command(*ON_RAY, "--ray-address", address)
    assert done.code == 2
    assert "start one with 'ray start --head'" in done.err
    assert not command.database.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--engine", "spark"), "An engine must be local or ray, but got 'spark'"),
        (("--engine", "ray", "--resources", "tpu=1"), "but got 'tpu=1'"),
        (("--engine", "ray", "--device", "cpu"), "must get their device from their resources"),
        (("--resources", "cpu=1"), "add --engine ray"),
        (("--ray-address", "auto"), "add --engine ray"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    words: tuple[str, ...], message: str, command: Command
) -> None:
    done = command(*DIGITS_RUN, *words)
    assert done.code == 2
    assert message in done.err
    assert not command.database.exists()


def test_without_ray_its_engine_says_how_to_install_it(command: Command) -> None:
    program = (
        "import sys; sys.modules['ray'] = None; from search.cli import main; main(sys.argv[1:])"
    )
    done = command.fork("-c", program, *ON_RAY)
    assert done.code == 2
    assert "pip install '.[ray]'" in done.err


def test_a_cluster_that_asks_for_no_token_gets_none(cluster: Cluster, command: Command) -> None:
    """Its actors bring none in turn, and who expects one hears none of them."""
    token = command.folder / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("0" * 64)
    command.environment["HOME"] = str(command.folder)
    done = command.apart(*ON_RAY, "--trials", "1", "--ray-address", cluster.address)
    assert done.code == 0, done.err
    assert "1 trained" in done.out
