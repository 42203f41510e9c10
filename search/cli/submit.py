"""`search submit`: a search queued, to be run by `search serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from search.cli.jobs import find_client, hint_at_server
from search.cli.output import echo, echo_json, heard_interrupts, shown_command, storage_words
from search.cli.run_options import read_request, takes_submission

if TYPE_CHECKING:
    from search.service.jobs import Job
    from search.tuner.options import SearchRequest


@takes_submission
def submit(**options: Any) -> None:
    """Queue a search, and return at once. It is checked as 'search run' checks it.

    Example: search submit --budget 8000 --epochs 15 --timeout 2h
    """
    as_json, first = options.pop("as_json"), options.pop("first")
    server = options.pop("server")
    request = read_request(options)
    with heard_interrupts():
        job, has_server = _submit(request, server, first=first)
    if as_json:
        echo_json(job.to_json())
        return
    watch = shown_command(["watch", str(job.number), *storage_words(request.storage)])
    echo(f"Job {job.number} waits: {job.search}. '{watch}' shows it.")
    if not has_server:
        hint_at_server(request.storage)


def _submit(request: SearchRequest, server: str | None, *, first: bool) -> tuple[Job, bool]:
    """The job of a search, and whether a server runs that will start it."""
    from search.service.submission import check_submission, options_of

    client = find_client(request.storage, server)
    if client is not None:
        with client:
            options = options_of(request, is_here=server is None)
            return client.submit(first=first, **options), True
    import optuna

    from search.service.local import opened_jobs

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    submission = check_submission(request)  # before anything is written
    with opened_jobs(request.storage, create=True) as jobs:
        return jobs.submit(submission, first=first), jobs.has_server()
