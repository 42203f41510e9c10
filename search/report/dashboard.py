"""optuna-dashboard, served on a storage."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
from collections.abc import Callable
from pathlib import Path
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
import optuna_dashboard

from search.exceptions import InputError
from search.report.artifact_files import ArtifactFolder, artifact_folder
from search.report.dashboard_pages import StudyPages
from search.storage.open import opened_storage

HOST = "127.0.0.1"  # optuna-dashboard has no log-in: whoever reaches it may delete studies
EXPOSED = (
    "Whoever reaches this address can read, change and delete every study of the database: "
    "optuna-dashboard has no log-in, and nothing is encrypted. Rather leave out --host and reach "
    "it through a tunnel (ssh -L 8080:127.0.0.1:8080 THIS-HOST), or put a web server with a "
    "log-in before it (nginx: proxy_pass with auth_basic, over HTTPS)."
)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server6(_Server):
    address_family = socket.AF_INET6


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
        host: the address to listen on; another than this machine's own is announced as open.
        port: 0 takes a free one.
        announce: told the dashboard's address once it answers.

    Raises:
        StorageError: if there is no database at `url`.
        InputError: if the port is taken, or `host` is no address of this machine.
    """
    with opened_storage(url) as storage:
        folder = artifact_folder(url, artifacts)
        # Optuna's cache: else each look at a page reads all trials again.
        cached = optuna.storages.get_storage(storage)
        store = None if folder is None else ArtifactFolder(folder, cached)
        app = optuna_dashboard.wsgi(cached, artifact_store=store)
        app.install(StudyPages(cached))
        try:
            server = make_server(
                host, port, app, _Server6 if ":" in host else _Server, _QuietHandler
            )
        except (OSError, UnicodeError) as error:
            if getattr(error, "errno", None) not in (errno.EADDRINUSE, errno.EACCES):
                raise InputError(
                    f"--host must be an address of this machine, but got {host!r}; leave it out "
                    "for 127.0.0.1, which this machine alone reaches."
                ) from error
            raise InputError(
                f"The port must be free, but {port} is not ({error}); take another with "
                "--port, or any free one with --port 0."
            ) from error
        with server, contextlib.suppress(KeyboardInterrupt):
            shown = f"[{host}]" if ":" in host else host
            announce(f"http://{shown}:{server.server_port}/")
            if not _is_this_machine(host):
                announce(EXPOSED)
            server.serve_forever()


def _is_this_machine(host: str) -> bool:
    """Whether an address is one that no other machine reaches."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
