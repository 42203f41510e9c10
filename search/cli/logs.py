"""`search logs`: what the search of a job printed."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from search.cli.jobs import JobName, opened_jobs
from search.cli.options import Server, Storage
from search.cli.output import stop_signals
from search.folders import DATABASE_URL

_PAUSE_SECONDS = 0.5  # between two looks at a log that grows


def logs(
    job: JobName,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the search ends, or Ctrl-C.")
    ] = False,
    storage: Storage = DATABASE_URL,
    server: Server = None,
) -> None:
    """Print what the search of a job printed.

    Example: search logs 3 --follow
    """
    from search.plain_text import printable_lines
    from search.service.jobs import JobState

    with opened_jobs(storage, server) as jobs, stop_signals() as should_stop:
        number = jobs.job(job).number
        offset = 0
        while True:
            # Asked first: what it printed before it ended is read after.
            is_over = jobs.job(number).state not in (JobState.RUNNING, JobState.WAITING)
            while text := jobs.log(number, offset):
                typer.echo(printable_lines(text.decode(errors="replace")), nl=False)
                offset += len(text)
            if not follow or is_over or should_stop():
                return
            time.sleep(_PAUSE_SECONDS)
