"""`search queue`: what waits, runs and has ended."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli.jobs import describe_best, describe_progress, opened_jobs
from search.cli.options import AsJson, Server, Storage
from search.cli.output import echo, echo_json, make_console, shown_command
from search.folders import DATABASE_URL
from search.wording import counted

if TYPE_CHECKING:
    from search.service.jobs import Job

_N_ENDED, _N_WAITING = 10, 100  # that are shown where not all are asked for


def queue(
    all: Annotated[bool, typer.Option("--all", help="List all that ended, too.")] = False,
    storage: Storage = DATABASE_URL,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """List the searches that run, wait and have ended.

    Example: search queue
    """
    from search.service.jobs import ENDED, JobState

    with opened_jobs(storage, server) as jobs:
        found: list[Job] = [
            *jobs.jobs((JobState.RUNNING,)),
            *jobs.jobs((JobState.WAITING,), limit=None if all else _N_WAITING),
            *jobs.jobs(ENDED, limit=None if all else _N_ENDED),
        ]
        n_left = sum(jobs.count().values()) - len(found)
    if as_json:
        echo_json([job.to_json() for job in found], indent=2)
        return
    if not found:
        echo(f"Nothing was submitted yet; '{shown_command(['submit', '--help'])}' says how.")
        return
    _print(found)
    if n_left > 0:
        echo(f"\nAnd {counted(n_left, 'job')} more: --all lists them.")


def _print(found: list[Job]) -> None:
    from search.cli.tables import FittedTable

    table = FittedTable()
    table.add_column("job", justify="right")
    table.add_column("search", overflow="fold")
    for heading in ("", "progress", "best", "since"):
        table.add_column(heading, no_wrap=True)
    table.add_column("why", overflow="fold")
    for job in found:
        moment = job.ended or job.started if job.state != "waiting" else job.submitted
        table.add_row(
            str(job.number),
            job.search,
            job.shown_state,
            describe_progress(job),
            describe_best(job),
            _shown(moment or job.submitted),
            job.reason or "",
        )
    make_console().print(table)


def _shown(moment: str) -> str:
    """A moment by this machine's clock: of today the time, else the day as well."""
    try:
        at = datetime.fromisoformat(moment).astimezone()
    except (ValueError, OverflowError):  # which another program has written
        return ""
    return f"{at:%H:%M}" if at.date() == datetime.now().astimezone().date() else f"{at:%m-%d %H:%M}"
