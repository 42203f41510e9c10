"""`search link`: a link that opens the server's page in a browser."""

from __future__ import annotations

from typing import Annotated

import typer

from search.cli.options import Server, Storage
from search.cli.output import echo
from search.folders import DATABASE_URL


def link(
    write: Annotated[
        bool, typer.Option("--write", help="Let it submit, stop and cancel as well.")
    ] = False,
    storage: Storage = DATABASE_URL,
    server: Server = None,
) -> None:
    """Print a link that opens the server's page in a browser.

    It opens once, within ten minutes, and lets who opens it look at everything and change nothing.

    Example: search link
    """
    from search.service.client import Client

    with Client(server, storage=storage) as client:
        echo(client.link(read_only=not write))
