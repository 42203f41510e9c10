"""What a URL is told of searches, by a real server that does not always take it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from search.exceptions import InputError
from search.service.claims import Claims
from search.service.database import opened_database
from search.service.jobs import JobProgress
from search.service.notices import Notifier, check_notify_url, sign
from search.service.progress import JobEnd
from search.service.queue import JobQueue
from tests.conftest import wait_until
from tests.support.servers import serving


class Receiver(HTTPServer):
    """Takes what is posted to it, but for the first times that it is asked."""

    def __init__(self, n_refused: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.n_refused = n_refused
        self.taken: list[tuple[str, bytes]] = []

    @property
    def told(self) -> list[tuple[str, int]]:
        values: list[dict[str, Any]] = [json.loads(body) for _, body in self.taken]
        return [(each["event"], each["job"]["number"]) for each in values]


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        receiver = self.server
        assert isinstance(receiver, Receiver)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        receiver.n_refused -= 1
        is_taken = receiver.n_refused < 0
        if is_taken:
            receiver.taken.append((self.headers["X-Search-Signature"], body))
        self.send_response(204 if is_taken else 503)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver(n_refused=2)
    with serving(receiver):
        yield receiver


def test_a_url_is_told_once_of_each_end_and_each_better_network(
    tmp_path: Path, receiver: Receiver
) -> None:
    url = f"http://127.0.0.1:{receiver.server_port}/searches"
    with opened_database(f"sqlite:///{tmp_path / 'own.db'}", create=True) as database:
        queue, claims = JobQueue(database), Claims(database, "server")
        for name in "abc":
            queue.submit({"budget": 800, "epochs": 2}, study=name)
        queue.cancel("c")  # before anybody was to be told

        first = Notifier(queue, url, tmp_path, print)
        first.start()
        assert claims.take_next([]) is not None
        for value in (0.5, 0.9, 0.9):
            claims.note_progress(1, JobProgress(best_value=value), "a")
        claims.end(1, JobEnd(0, None), has_trained=True)
        wait_until(lambda: len(receiver.taken) == 3)
        first.close()

        assert claims.take_next([]) is not None
        claims.end(2, JobEnd(1, "the disk is full"), has_trained=False)  # while no server runs
        second = Notifier(queue, url, tmp_path, print)
        second.start()
        wait_until(lambda: len(receiver.taken) == 4)
        second.close()

    # Another database by that name, whose numbers begin anew.
    with opened_database(f"sqlite:///{tmp_path / 'new.db'}", create=True) as database:
        queue = JobQueue(database)
        third = Notifier(queue, url, tmp_path, print)
        third.start()
        queue.submit({"budget": 800, "epochs": 2}, study="d")
        queue.cancel("d")
        wait_until(lambda: len(receiver.taken) == 5)
        third.close()
    assert receiver.told == [
        ("better", 1),
        ("better", 1),
        ("done", 1),
        ("failed", 2),
        ("cancelled", 1),
    ]
    assert json.loads(receiver.taken[3][1])["job"]["reason"] == "the disk is full"
    path = tmp_path / "notify-key"
    assert path.stat().st_mode & 0o777 == 0o600
    for signature, body in receiver.taken:
        assert signature == f"sha256={sign(path.read_text().strip(), body)}"


def test_what_was_told_is_told_once_though_it_cannot_be_noted(
    tmp_path: Path, receiver: Receiver
) -> None:
    receiver.n_refused = 0
    notices: list[str] = []
    with opened_database(f"sqlite:///{tmp_path / 'own.db'}", create=True) as database:
        queue = JobQueue(database)
        notifier = Notifier(
            queue, f"http://127.0.0.1:{receiver.server_port}", tmp_path, notices.append
        )
        notifier.start()

        def noted() -> list[Path]:
            return [path for path in tmp_path.glob("notified-*") if path.is_file()]

        wait_until(lambda: bool(noted()))
        (path,) = noted()
        path.unlink()
        path.mkdir()  # which no file replaces
        for number in (1, 2):
            queue.submit({"budget": 800, "epochs": 2})
            queue.cancel(str(number))
            wait_until(lambda n=number: len(receiver.taken) == n)  # type: ignore[misc]
        path.rmdir()
        wait_until(lambda: bool(noted()))
        notifier.close()
        assert int(path.read_text()) == queue.last_event()
    assert receiver.told == [("cancelled", 1), ("cancelled", 2)]
    (notice,) = notices
    assert "What was told cannot be noted" in notice


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.org",
        "file:///etc/passwd",
        "https://",
        "http://[",
        "http://a:b",
        "http://a:99999",
    ],
)
def test_what_cannot_be_posted_to_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="--notify must be a URL"):
        check_notify_url(url)
