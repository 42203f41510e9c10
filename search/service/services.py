"""What the routes of the HTTP interface stand on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from search.service.access import Access
from search.service.channels import Channels
from search.service.paths import AllowedFolders
from search.service.queue import JobQueue
from search.service.reports import Reports


@dataclass(frozen=True, slots=True)
class Service:
    """What the routes stand on.

    Args:
        url: of the database.
        n_slots: how many searches run at a time.
        ray_address: of the cluster that searches with the engine ray use; None makes one for each.
        look: has the supervisor look at once at what is new.
        should_stop: whether the server is about to end.
    """

    queue: JobQueue
    url: str
    access: Access
    folders: AllowedFolders
    channels: Channels
    reports: Reports
    n_slots: int
    ray_address: str | None = None
    look: Callable[[], None] = lambda: None
    should_stop: Callable[[], bool] = lambda: False


async def _service_of(connection: HTTPConnection) -> Service:
    service: Service = connection.app.state.service
    return service


Served = Annotated[Service, Depends(_service_of)]  # that of the application which is asked
