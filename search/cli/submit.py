"""`search submit`: a search queued, to be run by `search serve`."""

from __future__ import annotations

from typing import Any

from search.cli.jobs import asked_for, hint_at_server, opened_queue
from search.cli.output import echo, echo_json, heard_interrupts, shown_command, storage_words
from search.cli.run_options import read_request, takes_submission


@takes_submission
def submit(**options: Any) -> None:
    """Queue a search, and return at once. It is checked as 'search run' checks it.

    Example: search submit --budget 8000 --epochs 15 --timeout 2h
    """
    as_json, first = options.pop("as_json"), options.pop("first")
    request = read_request(options)
    with heard_interrupts():
        import optuna

        from search.service.submission import check_submission

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        submission = check_submission(request)
    with opened_queue(request.storage, create=True) as queue:
        job, _ = queue.submit(submission.options, study=submission.study)
        if first:
            job = queue.move(str(job.number), first=True)
        if as_json:
            echo_json(job.to_json())
            return
        watch = shown_command(["watch", str(job.number), *storage_words(request.storage)])
        echo(f"Job {job.number} waits: {asked_for(job)}. '{watch}' shows it.")
        hint_at_server(queue, request.storage)
