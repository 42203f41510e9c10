"""`search run`: a search, with its options read and what it does shown."""

from __future__ import annotations

from typing import Any

import typer

from search.cli.output import EXIT_INTERRUPTED, heard_interrupts, make_console, told_end
from search.cli.run_options import Display, read_options, takes_options
from search.tuner.options import SearchRequest


@takes_options
def run(**options: Any) -> None:
    """Search for the best network under a budget. Ctrl-C is safe: the same command goes on.

    Example: search run --budget 8000 --epochs 15 --trials 100
    """
    with told_end(as_json=options["as_json"]):
        _run(*read_options(options))


def _run(request: SearchRequest, display: Display) -> None:
    console = make_console(to_stderr=display.as_json, quiet=display.quiet)
    with heard_interrupts(), console.status("Loading"):
        import optuna

        from search.tuner.preflight import prepare_search
        from search.tuner.request import check_request
        from search.tuner.trackers import check_log

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        checked = check_request(request)
        if display.log is not None:
            check_log(display.log)
        prepare_search(checked)

        from search.cli.run_watcher import TerminalWatcher
        from search.tuner.run import run_search

    result = run_search(checked, TerminalWatcher(console, display))
    if result.is_interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)
