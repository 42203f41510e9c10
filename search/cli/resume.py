"""`search resume`: a job queued again that was stopped, or failed."""

from __future__ import annotations

from search.cli.jobs import JobName, has_server, hint_at_server, opened_jobs
from search.cli.options import Server, Storage
from search.cli.output import echo
from search.folders import DATABASE_URL


def resume(job: JobName, storage: Storage = DATABASE_URL, server: Server = None) -> None:
    """Queue a job again that was stopped or cancelled, or failed. It goes on where it was.

    Example: search resume mnist-8000x15
    """
    with opened_jobs(storage, server) as jobs:
        resumed = jobs.resume(job)
        echo(f"{resumed.title} waits again.")
        if not has_server(jobs):
            hint_at_server(storage)
