"""What clients send, as OpenAPI describes it: the options of a search are those of `search run`."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, StrictBool, StrictFloat, StrictInt, StrictStr

from search.tuner.options import LARGEST_NUMBER, SearchRequest

# What the server decides: where results go, what its machine connects to, and that it runs no
# program of a client's.
SERVER_DECIDES = ("storage", "ray_address", "network")
_COUNTS = ("budget", "epochs", "n_trials", "n_workers", "patience")
_LONGEST_TEXT = 1000

Count = Annotated[StrictInt, pydantic.Field(ge=1, le=LARGEST_NUMBER)]
Number = Annotated[StrictInt, pydantic.Field(ge=0, le=LARGEST_NUMBER)]
Side = Annotated[StrictInt, pydantic.Field(ge=1, le=1000)]
Seconds = Annotated[StrictFloat, pydantic.Field(gt=0, le=1e9, allow_inf_nan=False)]
Text = Annotated[StrictStr, pydantic.Field(min_length=1, max_length=_LONGEST_TEXT)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Target(_Model):
    """An accuracy to reach with as few parameters as possible."""

    accuracy: Annotated[StrictFloat, pydantic.Field(ge=0.01, lt=1, allow_inf_nan=False)]
    confidence: Annotated[StrictFloat, pydantic.Field(ge=0.5, lt=1, allow_inf_nan=False)] = 0.95


def _kind(name: str) -> Any:
    if name in _COUNTS:
        return Count
    if name.endswith("_seconds"):
        return Seconds
    kinds: dict[str, Any] = {
        "seed": Number,
        "confirm": StrictBool,
        "target": Target,
        "image_size": Side | tuple[Side, Side],
    }
    return kinds.get(name, Text)


def _described(field: Field[Any]) -> tuple[Any, Any]:
    text, kind = field.metadata["text"], _kind(field.name)
    if field.default is MISSING:
        return kind, pydantic.Field(description=text)
    words = field.metadata["default_words"]
    description = f"{text} By default {words}." if words else text
    # What is not given is not sent on: the search has defaults of its own.
    return kind | None, pydantic.Field(default=None, description=description)


_OPTIONS: dict[str, Any] = {
    field.name: _described(field)
    for field in fields(SearchRequest)
    if field.name not in SERVER_DECIDES
}
JobRequest: Any = pydantic.create_model(
    "JobRequest",
    __base__=_Model,
    __doc__="A search, by the options of 'search run'.",
    first=(StrictBool, pydantic.Field(default=False, description="Run it before all that waits.")),
    **_OPTIONS,
)


class ErrorDetail(_Model):
    """What went wrong: which error of this package it is, and what a person is told."""

    type: str
    message: str


class Error(_Model):
    """What is answered where a request is refused."""

    error: ErrorDetail


# What any call may be answered with, beside what it is for.
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Error, "description": words}
    for status, words in {
        400: "It cannot be read.",
        401: "It has no token.",
        403: "Its token is for looking, or it comes from a page of another site.",
        404: "What it names is not there.",
        413: "It is too large.",
        421: "It names another host.",
        422: "What it asks for is wrong, or cannot be now.",
        429: "Its address calls too often.",
        503: "The database does not answer, or too many calls are answered or searches watched.",
    }.items()
}


class Move(_Model):
    """Where a job that waits is to go."""

    to: Literal["first", "last"]


class LinkRequest(_Model):
    """What a link is to allow."""

    read_only: StrictBool = True


def options_from(request: Any) -> dict[str, Any]:
    """The options that a request gives, as values that JSON knows."""
    values: dict[str, Any] = request.model_dump(mode="json", exclude_none=True)
    del values["first"]
    return values
