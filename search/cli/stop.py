"""`search stop`: a search stopped from another terminal, to be resumed."""

from __future__ import annotations

from search.cli.jobs import JobName, opened_queue
from search.cli.options import Storage
from search.cli.output import echo, shown_command, storage_words
from search.exceptions import JobError
from search.folders import DATABASE_URL


def stop(job: JobName, storage: Storage = DATABASE_URL) -> None:
    """Stop a search that runs, or hold one that waits; 'search resume' goes on with it.

    It stops a search of 'search run' on this machine as well, by the name of its study.

    Example: search stop mnist-8000x15
    """
    with opened_queue(storage) as queue:
        try:
            stopped = queue.stop(job)
        except JobError:
            from search.service.plain_searches import stop_search

            owner = stop_search(queue.storage, job)
            if owner is None:
                raise
            echo(f"Told process {owner.pid}, which searches {job}, to stop.")
            return
    again = shown_command(["resume", str(stopped.number), *storage_words(storage)])
    how = "is being stopped" if stopped.wanted else "is held"
    name = stopped.name[:1].upper() + stopped.name[1:]
    echo(f"{name} {how}; what is finished is kept. '{again}' goes on.")
