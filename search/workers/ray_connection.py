"""The connection to a Ray cluster, and what is known of it.

Meets Ray, as besides only `ray_pool.py` does.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import search
from search.exceptions import InputError
from search.workers.fork_server import without_working_folder
from search.workers.ray_head import (
    AUTO,
    answers,
    check_answers,
    check_reachable,
    hushed_errors,
    unreachable,
)
from search.workers.resources import Resources

# Read when Ray is imported. It would report its use, and under `uv run` start its workers by uv
# from a copy of the folder that the command is given in.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # else its errors stand on the screen

import ray
from ray._private.authentication.authentication_token_setup import (
    maybe_enable_token_auth_if_token_available,
)
from ray._private.services import canonicalize_bootstrap_address
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError
from ray.job_config import JobConfig

_CONNECT_SECONDS = 30.0  # in which a cluster that answers must take this process
_ASK_SECONDS = 0.2  # between two looks whether it has
_OTHER_TOKEN = (
    "it wants another token: copy ~/.ray/auth_token of the machine that began it, or set "
    "RAY_AUTH_TOKEN"
)
_LEAVE_SECONDS = 3.0  # in which the connection must be ended
HEAD, HERE = "its head", "Ray on this machine"


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
            head = address
            if address == AUTO:  # which raises where no cluster was started here
                head = str(canonicalize_bootstrap_address(address))
                check_answers(head)
            _join(address, head, options)
        except Exception as error:  # Ray raises a bare one, too
            raise unreachable(address, _reason(error)) from error
    _end_rays_own_words()
    ends = ends_of_connection()
    try:
        yield
    finally:
        _leave(ends)


def ends_of_connection() -> dict[str, str]:
    """What this process speaks to, each with its address: the head, and Ray on this machine."""
    context = ray.get_runtime_context()
    (own,) = (node for node in ray.nodes() if node["NodeID"] == context.get_node_id())
    return {
        HEAD: context.gcs_address,
        HERE: f"{own['NodeManagerAddress']}:{own['NodeManagerPort']}",
    }


def _leave(ends: dict[str, str]) -> None:
    """Ends the connection, unless the head, or Ray on this machine, hangs.

    Ray would wait for them, for minutes or for ever, now or as this process ends.
    """
    if all(map(answers, ends.values())):
        leaving = threading.Thread(target=ray.shutdown, daemon=True)
        leaving.start()
        leaving.join(_LEAVE_SECONDS)
        if not leaving.is_alive():
            return
    atexit.unregister(ray.shutdown)


def _join(address: str, head: str, options: dict[str, Any]) -> None:
    """Connects to a cluster, in a thread: Ray hears no signal meanwhile, and waits for minutes.

    Raises:
        ConnectionError: if it wants another token.
        TimeoutError: if it takes too long.
        Exception: whatever Ray raises.
    """
    joining: Future[None] = Future()

    def join() -> None:
        try:
            _bring_token(head)
            ray.init(address=address, **options)
        except Exception as error:
            joining.set_exception(error)
        else:
            joining.set_result(None)

    end = time.monotonic() + _CONNECT_SECONDS
    try:
        with hushed_errors():
            threading.Thread(target=join, daemon=True).start()
            while not wait([joining], _ASK_SECONDS).done:
                if time.monotonic() > end:
                    raise TimeoutError(f"it takes no connection in {_CONNECT_SECONDS:.0f} s")
            joining.result()
    except BaseException:  # else the end of this process would wait for that thread, or the cluster
        atexit.unregister(ray.shutdown)
        raise


def _bring_token(head: str) -> None:
    """Has this process bring the token of its machine, where a cluster asks for one.

    One that `ray start` makes does where there is a token, and Ray brings it to a HOST:PORT only
    where that is said. To a cluster that asks for none it is not to be brought: the actors there
    bring none in turn, and would not be heard.

    Raises:
        ConnectionError: if it wants another.
    """
    if _is_taken(head):
        return
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    if not _is_taken(head):
        raise ConnectionError(_OTHER_TOKEN)


def _is_taken(head: str) -> bool:
    """Whether a cluster takes what this process brings: its token, or none."""
    try:
        GcsClient(address=head)  # which asks the head who it is
    except AuthenticationError:
        return False
    return True


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
