"""`search watch`: the live display of a search, wherever it runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.cli.completion import complete_studies
from search.cli.jobs import find_client, opened_jobs
from search.cli.options import Server, Storage
from search.cli.output import echo_json, make_console
from search.exceptions import ServiceError
from search.folders import DATABASE_URL
from search.wording import counted

if TYPE_CHECKING:
    from rich.console import Console

    from search.cli.progress import Progress
    from search.cli.view import View
    from search.tuner.events import SearchEvent

_PAUSE_SECONDS = 0.5  # between two looks
_HINT = "Ctrl-C ends the display alone"


def watch(
    search: Annotated[
        str,
        typer.Argument(
            metavar="SEARCH",
            help="Number of the job, or name of the study.",
            autocompletion=complete_studies,
        ),
    ],
    storage: Storage = DATABASE_URL,
    server: Server = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each event as a line of JSON, for programs.")
    ] = False,
) -> None:
    """Show a search as it goes on, wherever it runs. Ctrl-C ends the display, not the search.

    Example: search watch mnist-8000x15
    """
    # Not by `stop_signals`: a stream on which nothing comes would be waited for.
    with suppress(KeyboardInterrupt):
        events = _events(search, storage, server)
        if as_json:
            for event in events:
                echo_json(event)
        else:
            _show(events)


def _events(search: str, storage: str, server: str | None) -> Iterator[dict[str, Any]]:
    """The events of a search, until it is over; where its server goes, from the database."""
    while True:
        try:
            with opened_jobs(storage, server) as jobs:
                yield from _paced(jobs.watch(search))
                return
        except ServiceError:
            if find_client(storage, server) is not None:
                raise


def _paced(events: Iterator[dict[str, Any] | None]) -> Iterator[dict[str, Any]]:
    """The events as they come, with a pause where there is none."""
    for event in events:
        if event is None:
            time.sleep(_PAUSE_SECONDS)
        else:
            yield event


def _show(events: Iterator[dict[str, Any]]) -> None:
    from search.service.jobs import Job
    from search.tuner.events import read_event

    console = make_console()
    job: Job | None = None
    progress: Progress | None = None
    with ExitStack() as stack:
        view: Callable[[SearchEvent], None] | None = None
        for values in events:
            match values["event"]:
                case "job":
                    values = {key: value for key, value in values.items() if key != "event"}
                    before, job = job, Job.from_json(values)
                    if view is None and (before is None or before.state != job.state):
                        console.print(_standing(job))
                case "study":
                    stack.close()  # that of a search for a target under the cap before
                    progress, shown = _view(console, values)
                    view = stack.enter_context(shown)
                case _:
                    event = read_event(values)
                    if event is not None and view is not None:
                        view(event)
    if progress is not None:
        if job is not None:
            console.print(_standing(job))
        console.print(_result(progress), soft_wrap=True)


def _standing(job: Any) -> str:
    """A line on where a job is."""
    why = "" if job.reason is None else f": {job.reason}"
    return f"Job {job.number} is {job.shown_state}, {job.search}{why}"


def _result(progress: Progress) -> str:
    """A line on what a search has found."""
    from search.cli.view import describe_best

    best = "none complete" if progress.best is None else f"the best {describe_best(progress.best)}"
    return f"{counted(progress.n_trained, 'trained trial')}, {best}."


def _view(console: Console, values: dict[str, Any]) -> tuple[Progress, View]:
    """Counts a search, and shows it."""
    from search.cli.progress import Best, Progress
    from search.cli.time_left import Forecast
    from search.cli.view import make_view
    from search.service.feed import StudyStart
    from search.training.metrics import metric_words

    start = StudyStart.from_json(values)
    best = None
    if start.best_trial is not None and start.best_value is not None:
        best = Best(start.best_trial, start.best_value, start.best_parameter_count)
    progress = Progress(
        before=start.before,
        best=best,
        length=start.length,
        stagnation=start.stagnation,
        timeout_seconds=None,
        forecast=Forecast(start.epochs, start.pruner, start.n_workers, race=None),
    )
    title = (
        f"{start.study}: {start.dataset}, fewer than {start.budget:,} parameters, "
        f"{counted(start.epochs, 'epoch')}"
    )
    view = make_view(
        progress,
        console,
        epochs=start.epochs,
        title=title,
        metric=metric_words(start.metric),
        hint=_HINT,
    )
    return progress, view
