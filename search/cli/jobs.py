"""What commands on the jobs of a queue share. Imports nothing slow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli.completion import complete_studies
from search.cli.output import echo
from search.wording import counted, percent

if TYPE_CHECKING:
    from search.service.jobs import Job
    from search.service.queue import JobQueue

JobName = Annotated[
    str,
    typer.Argument(
        metavar="JOB",
        help="Number of the job, or name of its study.",
        autocompletion=complete_studies,
    ),
]


@contextmanager
def opened_queue(storage: str, *, create: bool = False) -> Iterator[JobQueue]:
    """The queue of a database.

    Args:
        create: whether to create the database where there is none.

    Raises:
        StorageError: if it cannot be opened.
    """
    import optuna

    from search.service.database import opened_database
    from search.service.queue import JobQueue

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with opened_database(storage, create=create) as database:
        yield JobQueue(database)


def hint_at_server(queue: JobQueue, storage: str) -> None:
    """Says, where it is so, that nobody runs what waits."""
    from search.cli.output import shown_command, storage_words
    from search.service.folder import ServiceFolder

    if not ServiceFolder(storage).has_server() and not queue.has_server():
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


def asked_for(job: Job) -> str:
    """What a job searches, where the name of its study is not known yet."""
    if job.study is not None:
        return job.study
    options = job.options
    data = options.get("dataset", "auto")
    return f"{data}, budget {options['budget']:,}, {counted(options['epochs'], 'epoch')}"
