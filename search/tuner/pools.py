"""What the workers of a search need around them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from search.exceptions import InputError
from search.tuner.request import CheckedRequest
from search.wording import install_words
from search.workers.local_pool import default_worker_count


@contextmanager
def opened_engine(checked: CheckedRequest) -> Iterator[None]:
    """What the workers of a search need for as long as it is planned and runs.

    Raises:
        InputError: if it is not there.
    """
    request, resources = checked.asked, checked.resources
    if resources is None:
        yield
        return
    n_cpus = math.ceil((request.n_workers or 0) * resources.cpu)
    ray_pool = pool_of_actors()
    with ray_pool.connected(request.ray_address, n_cpus=max(n_cpus, default_worker_count())):
        yield


def pool_of_actors() -> ModuleType:
    """`search.workers.ray_pool`, which imports Ray.

    Raises:
        InputError: if Ray is not installed.
    """
    try:
        from search.workers import ray_pool
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise InputError(
            f"The engine ray must have Ray installed, but it is not; {install_words('ray')}."
        ) from error
    return ray_pool
