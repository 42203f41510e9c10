"""`search serve`: runs the searches that are submitted, one after another."""

from __future__ import annotations

from typing import Annotated

from search.cli.options import Storage, count_option
from search.cli.output import echo, make_console, shown_waiting, stop_signals
from search.folders import DATABASE_URL


def serve(
    storage: Storage = DATABASE_URL,
    slots: Annotated[int, count_option("How many searches run at a time.")] = 1,
) -> None:
    """Run the searches that 'search submit' queues. Ctrl-C ends the server; what it runs goes on.

    Example: search serve
    """
    import optuna

    from search.service.database import opened_database
    from search.service.folder import ServiceFolder
    from search.service.supervisor import Supervisor
    from search.storage.urls import shown_url

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with stop_signals() as should_stop:
        waiting = shown_waiting(make_console(), should_stop)
        with opened_database(storage, create=True, waiting=waiting) as database:
            folder = ServiceFolder(storage)
            folder.make()
            with folder.only_server():
                echo(
                    f"Serving the queue of {shown_url(storage)}, {slots:,} at a time. Ctrl-C ends "
                    "the server; what it runs goes on."
                )
                supervisor = Supervisor(database, folder, url=storage, n_slots=slots, notice=echo)
                supervisor.run(should_stop)
