"""The options of `search run`: those of `search.tuner.options`, for Typer. Imports nothing slow."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, get_type_hints

import typer

from search.cli.completion import (
    complete_datasets_or_auto,
    complete_engines,
    complete_objectives,
    complete_pruners,
    complete_samplers,
    complete_spaces,
    complete_studies,
)
from search.cli.options import (
    COUNT,
    IMAGE_SIZE,
    SERVER,
    SHARED,
    decimal,
    duration,
    field_option,
    not_negative,
    percentage,
)
from search.exceptions import InputError
from search.tuner.options import GROUPS, Goal, Output, SearchRequest, Target

_OPTIONS: dict[str, Any] = {
    "budget": field_option("budget", **COUNT),
    "epochs": field_option("epochs", **COUNT),
    "space": field_option("space", autocompletion=complete_spaces),
    "network": field_option("network", metavar="FILE.py"),
    "objective": field_option("objective", autocompletion=complete_objectives),
    "metric": field_option("metric"),
    "target": field_option("target", form="as 99.4", parser=percentage, metavar="PERCENT"),
    "confirm": field_option("confirm", "--confirm/--no-confirm"),
    "n_trials": field_option("n_trials", "--trials", **COUNT),
    "timeout_seconds": field_option(
        "timeout_seconds", "--timeout", form="as 30m, 2h, 1h30m or 1d", **duration("--timeout")
    ),
    "patience": field_option("patience", **COUNT),
    "trial_timeout_seconds": field_option(
        "trial_timeout_seconds", "--trial-timeout", **duration("--trial-timeout")
    ),
    "dataset": field_option("dataset", autocompletion=complete_datasets_or_auto),
    "image_size": field_option("image_size", form="as 32 or 20x60", **IMAGE_SIZE),
    "study": field_option("study", autocompletion=complete_studies),
    "engine": field_option("engine", autocompletion=complete_engines),
    "ray_address": field_option("ray_address", metavar="HOST:PORT"),
    "resources": field_option("resources"),
    "lost_after_seconds": field_option(
        "lost_after_seconds", "--lost-after", show_default=False, **duration("--lost-after")
    ),
    "sampler": field_option("sampler", autocompletion=complete_samplers),
    "pruner": field_option("pruner", autocompletion=complete_pruners),
    "seed": field_option("seed", parser=not_negative, metavar="N"),
    "from_study": field_option("from_study", autocompletion=complete_studies),
    "worker_log": field_option("worker_log"),
    **SHARED,
}


@dataclass(frozen=True)
class Display:
    """What `search run` puts out besides what it stores."""

    log: str | None
    quiet: bool
    as_json: bool


def takes_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options of a search; it is called with their values by name."""
    return _with_parameters(command, [p for group in GROUPS for p in _parameters(group)])


def takes_submission(command: Callable[..., None]) -> Callable[..., None]:
    """The same for a search that a server runs: what a terminal shows of it is no part of it."""
    shown = {field.name for field in fields(Display)}
    found = [p for group in GROUPS for p in _parameters(group) if p.name not in shown]
    first = typer.Option("--first", help="Run it before all that waits.")
    as_json = typer.Option("--json", help="Print the job as JSON, for programs.")
    found.append(_parameter("server", str | None, SERVER, None))
    found.append(_parameter("first", bool, first, False))
    found.append(_parameter("as_json", bool, as_json, False))
    return _with_parameters(command, found)


def _with_parameters(
    command: Callable[..., None], parameters: list[inspect.Parameter]
) -> Callable[..., None]:
    vars(command)["__signature__"] = inspect.Signature(parameters)
    return command


def _parameters(group: type) -> list[inspect.Parameter]:
    types = get_type_hints(group, localns={"Dataset": str}) | {
        "target": float | None,
        "image_size": Any,
    }
    found = [
        _parameter(
            field.name,
            types[field.name],
            _OPTIONS[field.name],
            inspect.Parameter.empty if field.default is MISSING else field.default,
        )
        for field in fields(group)
    ]
    if group is Goal:
        confidence = typer.Option(
            parser=decimal,
            metavar="SHARE",
            help="With which a network must reach the target.  [default: 0.95]",
            rich_help_panel=_OPTIONS["target"].rich_help_panel,
        )
        found.insert(-1, _parameter("confidence", float | None, confidence, None))
    if group is Output:
        panel = _OPTIONS["worker_log"].rich_help_panel
        quiet = typer.Option(
            "--quiet", "-q", help="Print the best trial alone.", rich_help_panel=panel
        )
        as_json = typer.Option(
            "--json",
            help="Print each event as a line of JSON, for programs.",
            rich_help_panel=panel,
        )
        log = typer.Option(
            metavar="tensorboard:FOLDER",
            help="Keep records of all trials there, too.",
            rich_help_panel=panel,
        )
        found[:0] = [
            _parameter("quiet", bool, quiet, False),
            _parameter("as_json", bool, as_json, False),
            _parameter("log", str | None, log, None),
        ]
    return found


def _parameter(name: str, kind: Any, option: Any, default: object) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
    )


def read_options(values: Mapping[str, Any]) -> tuple[SearchRequest, Display]:
    """What the values of the options ask for.

    Raises:
        InputError: for a target that is none, or a confidence without one.
    """
    left = dict(values)
    display = Display(**{field.name: left.pop(field.name) for field in fields(Display)})
    return read_request(left), display


def read_request(values: Mapping[str, Any]) -> SearchRequest:
    """What search the values of the options ask for.

    Raises:
        InputError: as `read_options` does.
    """
    left = dict(values)
    target = _target(left.pop("target"), left.pop("confidence"))
    return SearchRequest(target=target, **left)


def _target(percent: float | None, confidence: float | None) -> Target | None:
    if percent is None:
        if confidence is None:
            return None
        raise InputError(
            f"A confidence must have a target that it is for, but got --confidence {confidence:g} "
            "without --target; add --target, or leave it out."
        )
    accuracy = percent / 100
    return Target(accuracy) if confidence is None else Target(accuracy, confidence)
