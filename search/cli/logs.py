"""`search logs`: what the search of a job printed."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from search.cli.jobs import JobName, opened_queue
from search.cli.options import Storage
from search.cli.output import stop_signals
from search.folders import DATABASE_URL

_PAUSE_SECONDS = 0.5  # between two looks at a log that grows


def logs(
    job: JobName,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the search ends, or Ctrl-C.")
    ] = False,
    storage: Storage = DATABASE_URL,
) -> None:
    """Print what the search of a job printed.

    Example: search logs 3 --follow
    """
    from search.plain_text import printable_lines
    from search.service.jobs import JobState
    from search.service.logs import read_log

    with opened_queue(storage) as queue, stop_signals() as should_stop:
        found = queue.find(job)
        offset = 0
        while True:
            # Asked first: what it printed before it ended is read after.
            is_over = queue.job(found.number).state not in (JobState.RUNNING, JobState.WAITING)
            while text := read_log(storage, found, offset):
                typer.echo(printable_lines(text.decode(errors="replace")), nl=False)
                offset += len(text)
            if not follow or is_over or should_stop():
                return
            time.sleep(_PAUSE_SECONDS)
