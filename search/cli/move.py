"""`search move`: a job that waits moved to the front of the queue, or to its end."""

from __future__ import annotations

from typing import Annotated

import typer

from search.cli.jobs import JobName, opened_jobs
from search.cli.options import Server, Storage
from search.cli.output import echo
from search.exceptions import InputError
from search.folders import DATABASE_URL


def move(
    job: JobName,
    first: Annotated[bool, typer.Option("--first", help="Run it next.")] = False,
    last: Annotated[bool, typer.Option("--last", help="Run it after all others.")] = False,
    storage: Storage = DATABASE_URL,
    server: Server = None,
) -> None:
    """Have a job that waits run next, or last.

    Example: search move 3 --first
    """
    if first == last:
        given = "both" if first else "neither"
        raise InputError(
            f"A job must be moved to one end of the queue, but got {given} of --first and --last; "
            f"give one, as 'search move {job} --first'."
        )
    with opened_jobs(storage, server) as jobs:
        moved = jobs.move(job, first=first)
    place = "next" if first else "last"
    echo(f"{moved.title} runs {place}.")
