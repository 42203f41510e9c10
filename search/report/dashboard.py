"""optuna-dashboard, served on a storage."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
import optuna_dashboard
from optuna.storages import BaseStorage

from search.addresses import is_this_machine, refused_address
from search.exceptions import InputError
from search.report.artifact_files import ArtifactFolder, artifact_folder
from search.report.dashboard_pages import StudyPages
from search.storage.open import opened_storage

HOST = "127.0.0.1"  # optuna-dashboard has no log-in: whoever reaches it may delete studies


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server6(_Server):
    address_family = socket.AF_INET6


def dashboard_application(
    storage: BaseStorage, url: str, artifacts: Path | None = None
) -> Callable[..., Any]:
    """optuna-dashboard on a storage, as a WSGI application.

    Args:
        url: of the storage.
        artifacts: their folder; `artifact_folder` has a default.
    """
    folder = artifact_folder(url, artifacts)
    # Optuna's cache: else each look at a page reads all trials again.
    cached = optuna.storages.get_storage(storage)
    store = None if folder is None else ArtifactFolder(folder, cached)
    app: Any = optuna_dashboard.wsgi(cached, artifact_store=store)
    app.install(StudyPages(cached))

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        # It fails where that is missing, as it is from many programs.
        environ.setdefault("HTTP_ACCEPT_ENCODING", "")
        return app(environ, start_response)

    return answer


def serve(
    url: str,
    *,
    port: int,
    announce: Callable[[str], None],
    host: str = HOST,
    artifacts: Path | None = None,
) -> None:
    """Serves the dashboard of a storage until interrupted.

    Args:
        artifacts: their folder; `artifact_folder` has a default.
        host: the address to listen on, which this machine alone reaches.
        port: 0 takes a free one.
        announce: told the dashboard's address once it answers.

    Raises:
        StorageError: if there is no database at `url`.
        InputError: if the port is taken, or others reach `host`: whoever does may delete studies.
    """
    if not is_this_machine(host):
        number = port or "PORT"  # a free one is known only once it is taken
        tunnel = f"{number}:127.0.0.1:{number}"
        raise InputError(
            f"A dashboard alone must listen where this machine alone reaches it, as it has no "
            f"log-in and whoever reaches it can delete every study, but got --host {host!r}. Have "
            "'search serve' show it, which asks for a token, or leave out --host and reach it "
            f"through a tunnel: ssh -L {tunnel} THIS-HOST."
        )
    with opened_storage(url) as storage:
        app = dashboard_application(storage, url, artifacts)
        try:
            server = make_server(
                host, port, app, _Server6 if ":" in host else _Server, _QuietHandler
            )
        except (OSError, UnicodeError) as error:
            raise refused_address(host, port, error) from error
        with server, contextlib.suppress(KeyboardInterrupt):
            shown = f"[{host}]" if ":" in host else host
            announce(f"http://{shown}:{server.server_port}/")
            server.serve_forever()
