"""`search resume`: a job queued again that was stopped, or failed."""

from __future__ import annotations

from search.cli.jobs import JobName, hint_at_server, opened_queue
from search.cli.options import Storage
from search.cli.output import echo
from search.folders import DATABASE_URL


def resume(job: JobName, storage: Storage = DATABASE_URL) -> None:
    """Queue a job again that was stopped or cancelled, or failed. It goes on where it was.

    Example: search resume mnist-8000x15
    """
    with opened_queue(storage) as queue:
        resumed = queue.resume(job)
        echo(f"{resumed.name[:1].upper()}{resumed.name[1:]} waits again.")
        hint_at_server(queue, storage)
