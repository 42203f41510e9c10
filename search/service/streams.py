"""Server-sent events of one search: of a job and of a study alike."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, HTTPException
from fastapi.sse import EventSourceResponse, ServerSentEvent

from search.service.channels import MOST_CHANNELS, Channel, channel_events
from search.service.services import Served, Service

LastEvent = Annotated[str | None, Header(max_length=100)]


def open_channel(service: Service, search: int | str) -> Channel:
    """The channel of a search that is there, as `Channels.open` takes it.

    Raises:
        HTTPException: if too many are watched.
    """
    channel = service.channels.open(search)
    if channel is None:
        raise HTTPException(
            503,
            f"At most {MOST_CHANNELS} searches may be watched at a time, and as many are; "
            "close some of their pages.",
        )
    return channel


def add_search_events(router: APIRouter, path: str, find: Callable[..., Channel]) -> None:
    """Adds a route of the events of one search.

    Args:
        find: gives its channel, by what the path and the query name.
    """

    channel_of_call = Depends(find)

    @router.get(
        path,
        summary="What happens in its search, until it is over",
        response_class=EventSourceResponse,
    )
    async def events(
        service: Served, last_event_id: LastEvent = None, channel: Channel = channel_of_call
    ) -> AsyncIterator[ServerSentEvent]:
        async for key, values in channel_events(channel, last_event_id, service.should_stop):
            yield as_event(key, values)


def as_event(key: str, values: dict[str, Any]) -> ServerSentEvent:
    """An event as it is sent."""
    return ServerSentEvent(id=key, event=str(values["event"]), data=values)
