"""The Ray cluster that workers run on. Imports Ray only where a cluster is asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from search.extras import import_extra
from search.workers.local_pool import default_worker_count

if TYPE_CHECKING:
    from search.workers.resources import Resources


@contextmanager
def connected_cluster(
    resources: Resources | None, address: str | None, *, n_workers: int | None
) -> Iterator[None]:
    """A connection to the cluster for as long as a search is planned and runs.

    Args:
        resources: what each worker takes; None where they are processes on this machine, which
            need no cluster.
        address: that of the cluster; None makes one on this machine, which ends with the context.
        n_workers: how many such a cluster must hold; None for one a core.

    Raises:
        InputError: if Ray is not installed, or there is no cluster at that address.
    """
    if resources is None:
        yield
        return
    connection = "search.workers.ray_connection"  # which says with which settings
    import_extra("ray", connection, rule="The engine ray must have Ray installed", package="ray")
    from search.workers.ray_connection import connected

    n_cpus = math.ceil((n_workers or 0) * resources.cpu)
    with connected(address, n_cpus=max(n_cpus, default_worker_count())):
        yield


def count_actors(resources: Resources) -> int:
    """How many actors with these resources the connected cluster holds.

    Raises:
        InputError: if it holds none.
    """
    from search.workers.ray_connection import n_actors

    return n_actors(resources)
