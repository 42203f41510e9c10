"""optuna-dashboard, served on a storage."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna_dashboard

from search.exceptions import InputError
from search.storage import opened_storage

HOST = "127.0.0.1"  # optuna-dashboard has no log-in: whoever reaches it may delete studies


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def serve(url: str, *, port: int, announce: Callable[[str], None]) -> None:
    """Serves the dashboard of a storage until interrupted, on this machine alone.

    Args:
        port: 0 takes a free one.
        announce: told the dashboard's address once it answers.

    Raises:
        StorageError: if there is no database at `url`.
        InputError: if the port is taken.
    """
    with opened_storage(url) as storage:
        app = optuna_dashboard.wsgi(storage)
        try:
            server = make_server(HOST, port, app, _Server, _QuietHandler)
        except OSError as error:
            raise InputError(
                f"The port must be free, but {port} is not ({error.strerror}); take another with "
                "--port, or any free one with --port 0."
            ) from error
        with server:
            announce(f"http://{HOST}:{server.server_port}/")
            with contextlib.suppress(KeyboardInterrupt):
                server.serve_forever()
