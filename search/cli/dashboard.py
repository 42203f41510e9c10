"""`search dashboard`: all studies in a browser, also while a search runs."""

from __future__ import annotations

from typing import Annotated

import typer

from search.cli.options import Artifacts, Storage
from search.cli.output import echo
from search.folders import DATABASE_URL


def dashboard(
    storage: Storage = DATABASE_URL,
    artifacts: Artifacts = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="PORT", help="0 takes a free one.")
    ] = 8080,
    host: Annotated[
        str, typer.Option(help="Address to listen on, which this machine alone reaches.")
    ] = "127.0.0.1",
) -> None:
    """Show all studies in a browser, also while a search runs. Stop it with Ctrl-C.

    Example: search dashboard --port 8081
    """
    from search.report.dashboard import serve

    def show(text: str) -> None:
        is_address = text.startswith("http://")
        echo(f"Dashboard on {text} (Ctrl-C stops)" if is_address else text)

    serve(storage, host=host, port=port, announce=show, artifacts=artifacts)
