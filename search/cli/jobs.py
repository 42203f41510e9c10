"""What commands on the jobs of a queue share. Imports nothing slow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from search.cli.completion import complete_studies
from search.cli.output import echo
from search.wording import percent

if TYPE_CHECKING:
    from search.service.client import Client
    from search.service.jobs import Job
    from search.service.local import LocalJobs

    Jobs: TypeAlias = Client | LocalJobs

# For which a server that has gone is looked for: that of this machine has a database to look into.
_AWAY_SECONDS = {True: 3.0, False: 60.0}

JobName = Annotated[
    str,
    typer.Argument(
        metavar="JOB",
        help="Number of the job, or name of its study.",
        autocompletion=complete_studies,
    ),
]


def find_client(storage: str, server: str | None) -> Client | None:
    """The client of a server that is named, or that runs on this machine; None where none does.

    Raises:
        InputError: if there is no token for it.
    """
    from search.service.folder import ServiceFolder

    if server is None and ServiceFolder(storage).address() is None:
        return None  # what speaks HTTP takes a while to import
    from search.service.client import Client

    return Client(server, storage=storage, away_seconds=_AWAY_SECONDS[server is None])


@contextmanager
def opened_jobs(storage: str, server: str | None, *, create: bool = False) -> Iterator[Jobs]:
    """The jobs of a server or, where none runs, of a database.

    Args:
        server: its URL; None for that of the database on this machine.
        create: whether to create the database where there is none.

    Raises:
        StorageError: if it cannot be opened.
        ServiceError: if a server that is named does not answer.
    """
    client = find_client(storage, server)
    if client is not None:
        with client:
            yield client
        return
    import optuna

    from search.service.local import opened_jobs

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with opened_jobs(storage, create=create) as jobs:
        yield jobs


def has_server(jobs: Jobs) -> bool:
    """Whether somebody runs what waits."""
    from search.service.local import LocalJobs

    return not isinstance(jobs, LocalJobs) or jobs.has_server()


def hint_at_server(storage: str) -> None:
    """Says that nobody runs what waits."""
    from search.cli.output import shown_command, storage_words

    command = shown_command(["serve", *storage_words(storage)])
    echo(f"No server runs that would start it; '{command}' is one.")


def describe_progress(job: Job) -> str:
    """How far the search of a job is."""
    progress = job.progress
    if progress.n_trials is None:
        return "loads" if job.state == "running" else ""
    shown = f"{progress.n_trained}/{progress.n_trials} trials"
    return f"{shown}, races the best" if progress.is_racing else shown


def describe_best(job: Job) -> str:
    """The best trial that the search of a job has found."""
    return "" if job.progress.best_value is None else percent(job.progress.best_value)
