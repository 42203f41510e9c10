"""What befalls a server: its database fails, its disk is full, its clients never read."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import sqlalchemy

import search
from search.service.database import QueueDatabase, opened_database
from search.service.folder import ServiceFolder
from search.service.jobs import JobState, now
from search.service.queue import JobQueue, note_event, note_state
from search.service.supervisor import Supervisor
from search.service.tables import jobs
from tests.conftest import Command, alive, n_reported, wait_until
from tests.service.test_serve import LONG, SEARCH, is_in, search_of, start_server
from tests.support.disks import fill, small_disk
from tests.support.prepared import HANG_SECONDS

N_WATCHERS = 100
N_EVENTS = 9000  # of some 100 bytes each, of which a client that reads nothing is sent what fits
MOST_GROWTH = 64 * 2**20  # bytes, of a server's memory


def served_client(command: Command) -> search.Client:
    storage = f"sqlite:///{command.database}"
    return search.Client(storage=storage, away_seconds=HANG_SECONDS)


@contextlib.contextmanager
def supervised(database: QueueDatabase, url: str, told: list[str]) -> Iterator[None]:
    """A supervisor that runs, as a server has it."""
    folder, ending = ServiceFolder(url), threading.Event()
    folder.make()
    supervisor = Supervisor(database, folder, url=url, n_slots=1, notice=told.append)
    thread = threading.Thread(target=supervisor.run, args=(ending.is_set,))
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def test_a_job_that_is_taken_as_the_database_fails_is_started_once_it_answers(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    told: list[str] = []
    taken = jobs.insert().values(
        state="running",
        server="only",
        place=0,
        options=f'{{"budget": 800, "epochs": 1, "dataset": "digits", "space": "{tmp_path}/none"}}',
        submitted=now(),
        n_starts=1,
        n_deaths=0,
    )
    rename = "ALTER TABLE {} RENAME TO {}"
    with opened_database(url, create=True) as database:
        queue = JobQueue(database)
        with supervised(database, url, told):
            wait_until(queue.has_server)

            def take_and_fail(connection: sqlalchemy.Connection) -> None:
                connection.execute(taken)
                connection.exec_driver_sql(rename.format("service_jobs", "elsewhere"))

            database.write(take_and_fail)
            wait_until(lambda: any("The server tries again." in text for text in told))
            database.write(lambda c: c.exec_driver_sql(rename.format("elsewhere", "service_jobs")))
            wait_until(lambda: queue.job(1).state is JobState.FAILED)
        assert "Job 1 waits again: it was not started" in told
        assert "there is no file" in str(queue.job(1).reason)


def test_a_search_whose_job_was_put_away_meanwhile_is_ended(command: Command) -> None:
    assert command("submit", *LONG).code == 0
    server = start_server(command)
    wait_until(lambda: n_reported(command, "long") >= 1)
    process = search_of(command, 1)
    server.kill()
    server.wait()
    with opened_database(f"sqlite:///{command.database}", create=False) as database:
        database.write(lambda c: note_state(c, 1, JobState.CANCELLED, server=None))
    assert alive([process])
    start_server(command)
    wait_until(lambda: not alive([process]))
    assert is_in(command, 1, "cancelled")


def test_a_client_finds_a_server_that_starts_again_on_another_port(command: Command) -> None:
    first = start_server(command, "--slots", "0")
    assert command("submit", *SEARCH, "--epochs", "1", "--study", "moved").code == 0
    with served_client(command) as client, ThreadPoolExecutor(1) as thread:
        watching = client.watch("moved")
        assert next(watching)["state"] == "waiting"
        before = client.url
        first.send_signal(signal.SIGTERM)
        assert first.wait() == 0
        rest = thread.submit(list, watching)
        with socket.create_server(("127.0.0.1", urlsplit(before).port or 0)) as taken:
            threading.Thread(target=hang_up, args=(taken,), daemon=True).start()
            start_server(command, "--slots", "0")
            assert command("cancel", "moved").code == 0
            assert [event["state"] for event in rest.result()][-1] == "cancelled"
        assert client.url != before
        assert client.job("moved").state is JobState.CANCELLED


def hang_up(server: socket.socket) -> None:
    """Another program on a port, which says nothing to who calls."""
    with contextlib.suppress(OSError):  # it is closed
        while True:
            server.accept()[0].close()


def ask_for_events(address: str, token: str, path: str) -> socket.socket:
    """A connection on which events come, with little room for what is not read."""
    parts = urlsplit(address)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(HANG_SECONDS)
    connection.connect((parts.hostname, parts.port))
    headers = f"Host: {parts.netloc}\r\nAuthorization: Bearer {token}\r\nLast-Event-ID: 0\r\n"
    connection.sendall(f"GET /api/v1{path} HTTP/1.1\r\n{headers}\r\n".encode())
    return connection


def test_many_who_watch_and_some_who_never_read_take_bounded_memory(command: Command) -> None:
    server = start_server(command, "--slots", "0")
    assert command("submit", *SEARCH, "--epochs", "1", "--study", "watched").code == 0

    def note_many(connection: sqlalchemy.Connection) -> None:
        for _ in range(N_EVENTS):
            note_event(connection, 1, "waiting")

    with opened_database(f"sqlite:///{command.database}", create=False) as database:
        database.write(note_many)
    token = (command.folder / "studies.db-service" / "token").read_text().strip()
    process = psutil.Process(server.pid)
    with served_client(command) as client, contextlib.ExitStack() as stack:
        before, n_threads = process.memory_info().rss, process.num_threads()
        for path in ("/events", "/jobs/1/events"):  # which nobody reads
            for _ in range(20):
                stack.enter_context(ask_for_events(client.url, token, path))
        watchers = [
            stack.enter_context(ask_for_events(client.url, token, "/jobs/1/events"))
            for _ in range(N_WATCHERS)
        ]
        for watcher in watchers:
            read_until(watcher, b"waiting")
        assert client.count()[JobState.WAITING] == 1
        # One thread reads the search for all; those that answer calls are 40 at most.
        assert process.num_threads() - n_threads < N_WATCHERS
        client.cancel(1)
        for watcher in watchers:
            assert b"cancelled" in read_until(watcher, b"event: over")
        assert client.job(1).state is JobState.CANCELLED
        assert process.memory_info().rss - before < MOST_GROWTH


def read_until(connection: socket.socket, end: bytes) -> bytes:
    found = b""
    while end not in found:
        block = connection.recv(65536)
        assert block, found
        found += block
    return found


def test_a_queue_whose_disk_is_full_says_so_and_goes_on_with_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        command = Command(disk)
        server = start_server(command, "--slots", "0")
        words = (*SEARCH, "--epochs", "1", "--study")
        assert command("submit", *words, "before").code == 0
        filler = fill(disk, but=0)
        told = [command("submit", *words, f"s{n}") for n in range(10)]
        refused = [each for each in told if each.code]
        assert refused, "the log of the database had room for all"
        assert {each.code for each in refused} == {1}
        assert "disk" in refused[-1].err
        assert "Traceback" not in refused[-1].err
        assert command("queue").code == 0
        filler.unlink()
        assert command("submit", *words, "after").code == 0
        queued = {job["study"] for job in command("queue", "--json").json}
        assert queued == {"before", "after", *(f"s{n}" for n, t in enumerate(told) if not t.code)}
        server.send_signal(signal.SIGTERM)
        out, _ = server.communicate()
        assert "Traceback" not in out
