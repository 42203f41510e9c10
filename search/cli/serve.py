"""`search serve`: runs the searches that are submitted, and answers who asks for them."""

from __future__ import annotations

import ipaddress
import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from search.addresses import is_this_machine
from search.cli.options import Artifacts, DataDir, Storage, not_negative
from search.cli.output import (
    echo,
    make_console,
    shown_command,
    shown_waiting,
    stop_signals,
    storage_words,
)
from search.exceptions import InputError, StorageUnreachableError
from search.folders import DATABASE_URL

_EXPOSED = (
    "Whoever sees what is sent to this address can read the token and use it: nothing is "
    "encrypted. Rather leave out --host and reach it through a tunnel (ssh -L "
    "{port}:127.0.0.1:{port} THIS-HOST), or put a web server with TLS before it (docs/service.md "
    "has an example for nginx)."
)


def serve(
    storage: Storage = DATABASE_URL,
    slots: Annotated[
        int,
        typer.Option(
            parser=not_negative,
            metavar="N",
            help="How many searches run at a time; 0 runs none.",
        ),
    ] = 1,
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="PORT", help="0 takes a free one.")
    ] = 8765,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but this opens it to others.")
    ] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A name that it goes by, as behind a web server."),
    ] = None,
    proxy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS", help="Of a web server before it, as 127.0.0.1: it says who calls."
        ),
    ] = None,
    allow: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER",
            help="Below which submissions may name files.  [default: the working folder]",
        ),
    ] = None,
    data_dir: DataDir = None,
    artifacts: Artifacts = None,
    notify: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="Post a small JSON there when a search ends, or finds a better network.",
        ),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="The Ray cluster of searches with that engine."),
    ] = None,
) -> None:
    """Run the searches that 'search submit' queues. Ctrl-C ends the server; what it runs goes on.

    Example: search serve
    """
    import optuna

    from search.service.database import opened_database
    from search.service.folder import ServiceFolder
    from search.service.notices import check_notify_url
    from search.service.server import ServerOptions
    from search.service.server import serve as serve_queue
    from search.storage.urls import shown_url

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folders = [*(allow or [Path()]), *(each for each in (data_dir, artifacts) if each is not None)]
    options = ServerOptions(
        host=host,
        port=port,
        n_slots=slots,
        allowed=folders,
        hosts=allow_host or (),
        proxies=[_check_proxy(address) for address in proxy or ()],
        ray_address=ray_address,
        artifacts=artifacts,
        notify=[check_notify_url(url) for url in notify or ()],
    )

    def announce(address: str, link: str) -> None:
        echo(f"Serving the queue of {shown_url(storage)} on {address}, {slots:,} at a time.")
        if sys.stdout.isatty():
            echo(f"Its page, for one browser within ten minutes: {link}")
        else:  # a file or a journal, which others may read
            words = shown_command(["link", "--write", *storage_words(storage)])
            echo(f"'{words}' prints a link that opens its page.")
        echo("Ctrl-C ends the server; what it runs goes on.")
        if not is_this_machine(host):
            echo(_EXPOSED.format(port=urlsplit(address).port))

    with stop_signals() as should_stop:
        waiting = shown_waiting(make_console(), should_stop, from_start=True)
        try:
            with opened_database(storage, create=True, waiting=waiting) as database:
                folder = ServiceFolder(storage)
                folder.make()
                with folder.only_server():
                    serve_queue(
                        database,
                        folder,
                        storage,
                        options,
                        should_stop=should_stop,
                        notice=echo,
                        announce=announce,
                    )
                    words = shown_command(["serve", *storage_words(storage)])
                    echo(f"The server has ended. What it runs goes on; '{words}' looks after it.")
        except StorageUnreachableError:
            if not should_stop():  # while it waited for the database
                raise


def _check_proxy(address: str) -> str:
    try:
        return str(ipaddress.ip_address(address))
    except ValueError as error:
        raise InputError(
            f"--proxy must be an address as numbers, as 127.0.0.1, but got {address[:100]!r}."
        ) from error
