"""`search cancel`: a job taken out of the queue."""

from __future__ import annotations

from search.cli.jobs import JobName, opened_jobs
from search.cli.options import Server, Storage
from search.cli.output import echo
from search.folders import DATABASE_URL


def cancel(job: JobName, storage: Storage = DATABASE_URL, server: Server = None) -> None:
    """Take a job out of the queue; one that runs is stopped. Its study stays as it is.

    Example: search cancel 3
    """
    with opened_jobs(storage, server) as jobs:
        cancelled = jobs.cancel(job)
    how = "is being stopped, then cancelled" if cancelled.wanted else "is cancelled"
    echo(f"{cancelled.title} {how}.")
