"""`search.Client` before what is no server of searches: addresses, tokens, answers."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import search
from search.exceptions import InputError, ServiceError
from tests.support.servers import serving


class Stranger(ThreadingHTTPServer):
    """Another program that answers whatever it is asked, and always the same."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.kind, self.body = "text/html", b""


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        stranger = self.server
        assert isinstance(stranger, Stranger)
        self.send_response(200)
        self.send_header("Content-Type", stranger.kind)
        self.send_header("Content-Length", str(len(stranger.body)))
        self.end_headers()
        self.wfile.write(stranger.body)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def stranger() -> Iterator[Stranger]:
    stranger = Stranger()
    with serving(stranger):
        yield stranger


@pytest.mark.parametrize(
    "body",
    [b"<html>", b"", b"\xff", b"{}", b"[]", b"3", b'{"jobs": [{}], "next_cursor": null}'],
)
def test_another_program_that_listens_there_is_told(stranger: Stranger, body: bytes) -> None:
    stranger.body, stranger.kind = body, "application/json"
    with search.Client(f"http://127.0.0.1:{stranger.server_port}", token="t") as client:
        for ask in (client.jobs, client.count, client.studies, client.link, lambda: client.job(1)):
            with pytest.raises(ServiceError, match=r"answered otherwise; see whether another"):
                ask()


@pytest.mark.parametrize(
    ("kind", "body", "told"),
    [
        ("text/html", b"<html>", "answered otherwise"),
        ("text/event-stream", b"data: x\n\n", "answered otherwise"),
        ("text/event-stream", b"data: 3\n\n", "answered otherwise"),
        ("text/event-stream", b"", "does not .it has ended"),
    ],
)
def test_so_is_one_whose_events_are_none(
    stranger: Stranger, kind: str, body: bytes, told: str
) -> None:
    stranger.kind, stranger.body = kind, body
    url = f"http://127.0.0.1:{stranger.server_port}"
    client = search.Client(url, token="t", away_seconds=0)
    with client, pytest.raises(ServiceError, match=told):
        list(client._events("/jobs/1/events", {}))


@pytest.mark.parametrize(
    ("url", "token", "message"),
    [
        ("http://[", "t", r"must be named by its URL.*'http://\['"),
        ("localhost:8765", "t", "must be named by its URL"),
        ("http://127.0.0.1:99999", "t", "must be named by its URL"),
        ("http://\u2603.invalid", "t", "must be named by its URL"),
        ("http://127.0.0.1:1", "tok\u00e9n", "one line of ASCII"),
        ("http://127.0.0.1:1", "a\nb", "one line of ASCII"),
    ],
)
def test_an_address_and_a_token_that_can_be_none_are_refused(
    url: str, token: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        search.Client(url, token=token)


def test_a_name_that_no_host_can_have_is_told() -> None:
    url = f"http://{300 * 'a'}.example"
    with search.Client(url, token="t") as client, pytest.raises(ServiceError, match="must answer"):
        client.jobs()
