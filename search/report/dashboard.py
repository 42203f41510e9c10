"""optuna-dashboard, served on a storage."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
from collections.abc import Callable
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
import optuna_dashboard

from search.exceptions import InputError
from search.report.artifacts import ArtifactFolder, artifact_folder
from search.storage.open import opened_storage
from search.study.record import is_long

HOST = "127.0.0.1"  # optuna-dashboard has no log-in: whoever reaches it may delete studies
EXPOSED = (
    "Whoever reaches this address can read, change and delete every study of the database: "
    "optuna-dashboard has no log-in, and nothing is encrypted. Rather leave out --host and reach "
    "it through a tunnel (ssh -L 8080:127.0.0.1:8080 THIS-HOST), or put a web server with a "
    "log-in before it (nginx: proxy_pass with auth_basic, over HTTPS)."
)


class _ShortAttributes:
    """A plugin of the dashboard's web framework: leaves out attributes that pages are no place for.

    An entry for each epoch makes a trial's page some thousand pixels wide, and its row in the table
    as high. The database keeps them.
    """

    name, api = "short-attributes", 2

    def apply(self, callback: Callable[..., Any], route: Any) -> Callable[..., Any]:
        if (route.method, route.rule) != ("GET", "/api/studies/<study_id:int>"):
            return callback

        def shortened(*args: Any, **kwargs: Any) -> Any:
            detail = callback(*args, **kwargs)
            if "trials" in detail:  # else it says what went wrong
                for trial in (*detail["trials"], *detail["best_trials"]):
                    trial["user_attrs"] = self._short(trial["user_attrs"])
                detail["union_user_attrs"] = self._short(detail["union_user_attrs"])
            return detail

        return shortened

    def _short(self, attributes: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [attribute for attribute in attributes if not is_long(attribute["key"])]


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
        store = None if folder is None else ArtifactFolder(folder)
        # Optuna's cache: else each look at a page reads all trials again.
        app = optuna_dashboard.wsgi(optuna.storages.get_storage(storage), artifact_store=store)
        app.install(_ShortAttributes())
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
