"""`search stop`: a search stopped from another terminal, to be resumed."""

from __future__ import annotations

from search.cli.jobs import JobName, opened_jobs
from search.cli.options import Server, Storage
from search.cli.output import echo, shown_command, storage_words
from search.exceptions import InputError, JobError
from search.folders import DATABASE_URL


def stop(job: JobName, storage: Storage = DATABASE_URL, server: Server = None) -> None:
    """Stop a search that runs, or hold one that waits. 'search resume' goes on with it.

    It stops a search of 'search run' on this machine as well, by the name of its study.

    Example: search stop mnist-8000x15
    """
    with opened_jobs(storage, server) as jobs:
        try:
            stopped = jobs.stop(job)
        except JobError:  # it may be one of a terminal
            try:
                process = jobs.stop_study(job)["process"]
            except InputError:
                process = None
            if process is None:
                raise
            echo(f"Told process {process}, which searches {job}, to stop.")
            return
    again = shown_command(["resume", str(stopped.number), *storage_words(storage)])
    how = "is being stopped" if stopped.wanted else "is held"
    echo(f"{stopped.title} {how}; what is finished is kept. '{again}' goes on.")
