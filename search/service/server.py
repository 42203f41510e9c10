"""The server: what runs searches and what answers clients, in one process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from search.addresses import refused_address
from search.report.dashboard import dashboard_application
from search.service.access import Access, Role
from search.service.app import make_application
from search.service.channels import Channels
from search.service.connections import BoundedConnection
from search.service.database import QueueDatabase
from search.service.folder import ServiceFolder
from search.service.guard import LOGIN
from search.service.notices import Notifier
from search.service.paths import AllowedFolders
from search.service.queue import JobQueue
from search.service.reports import Reports
from search.service.services import Service
from search.service.supervisor import Supervisor
from search.storage.urls import sqlite_path

_LAST_SECONDS = 3  # for what is being answered when the server ends


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How a server is reached, and what it may do.

    Args:
        port: 0 takes a free one.
        n_slots: how many searches run at a time.
        allowed: folders below which clients may name files.
        hosts: names that it goes by, besides its address.
        proxies: addresses of web servers before it, which are believed where a call comes from.
        notify: URLs that are told when a search has ended, or has found a better network.
        artifacts: their folder, as `artifact_folder` takes it.
    """

    host: str
    port: int
    n_slots: int
    allowed: Sequence[Path]
    hosts: Sequence[str] = ()
    proxies: Sequence[str] = ()
    ray_address: str | None = None
    artifacts: Path | None = None
    notify: Sequence[str] = ()


def serve(
    database: QueueDatabase,
    folder: ServiceFolder,
    url: str,
    options: ServerOptions,
    *,
    should_stop: Callable[[], bool],
    notice: Callable[[str], None],
    announce: Callable[[str, str], None],
) -> None:
    """Serves until it is to stop; the searches that it runs then go on.

    Args:
        notice: is told what happens, in words.
        announce: is told the server's address, and a link that opens its page once.

    Raises:
        InputError: if it cannot listen there, or a token is open to others.
        DatabaseError: if the file of the database is gone.
    """
    queue = JobQueue(database)
    access = Access(folder.path)
    with closing(_listen(options.host, options.port)) as listening:
        host = f"[{options.host}]" if ":" in options.host else options.host
        port = listening.getsockname()[1]
        address = f"http://{host}:{port}"
        supervisor = Supervisor(database, folder, url=url, n_slots=options.n_slots, notice=notice)
        running = _Running(should_stop)
        service = Service(
            queue=queue,
            url=url,
            access=access,
            folders=AllowedFolders(options.allowed, own=folder.path, database=sqlite_path(url)),
            channels=Channels(queue),
            reports=Reports(database.storage),
            n_slots=options.n_slots,
            ray_address=options.ray_address,
            look=supervisor.look,
            should_stop=lambda: running.is_over,
        )
        names = (options.host, socket.gethostname(), *options.hosts)
        application = make_application(
            service,
            dashboard_application(database.storage, url, options.artifacts),
            hosts=names,
            cookie=f"search-{port}",
        )
        server = uvicorn.Server(
            uvicorn.Config(
                application,
                access_log=False,  # no address of a client, no link, is written anywhere
                log_level="warning",
                lifespan="off",
                server_header=False,
                http=BoundedConnection,
                ws="none",
                proxy_headers=bool(options.proxies),
                forwarded_allow_ips=list(options.proxies),
                timeout_graceful_shutdown=_LAST_SECONDS,
            )
        )
        running.server = server
        notifiers = [Notifier(queue, each, folder.path, notice) for each in options.notify]
        with folder.announced(_reachable(address)):
            announce(
                address, f"{_reachable(address)}{LOGIN}?code={access.make_link_code(Role.WRITER)}"
            )
            with (
                _started(notifiers),
                running.thread(lambda: supervisor.run(lambda: running.is_over)),
            ):
                server.run(sockets=[listening])


@contextmanager
def _started(notifiers: Sequence[Notifier]) -> Iterator[None]:
    for notifier in notifiers:
        notifier.start()
    try:
        yield
    finally:
        for notifier in notifiers:
            notifier.close()


class _Running:
    """Whether the server is to go on, and the thread that runs searches beside it."""

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        self._should_stop = should_stop
        self.server: uvicorn.Server | None = None
        self._error: BaseException | None = None
        self._has_ended = False

    @property
    def is_over(self) -> bool:
        has_exit = self.server is not None and self.server.should_exit
        return self._has_ended or has_exit or self._should_stop()

    @contextmanager
    def thread(self, run: Callable[[], None]) -> Iterator[None]:
        def watched() -> None:
            try:
                run()
            except BaseException as error:
                self._error = error
            finally:
                if self.server is not None:
                    self.server.should_exit = True

        thread = threading.Thread(target=watched, name="supervisor")
        thread.start()
        try:
            yield
        finally:
            self._has_ended = True
            thread.join()
        if self._error is not None:
            raise self._error


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # By that protocol asyncio knows it for TCP, and has it send at once: else the second part of an
    # answer waits 40 ms until the client has acknowledged the first.
    listening = socket.socket(family, proto=socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(128)
        return listening
    except (OSError, UnicodeError) as error:
        listening.close()
        raise refused_address(host, port, error) from error


def _reachable(address: str) -> str:
    """The address at which this machine itself reaches a server that listens on all of its own."""
    return address.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
