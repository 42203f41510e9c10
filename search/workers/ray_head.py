"""The head of a Ray cluster: whether it answers, and what Ray prints of it. Needs no Ray."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# What an HTTP/2 client begins with, and an empty SETTINGS frame (RFC 9113, 3.4).
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_STDERR = 2


def check_answers(address: str, *, timeout: float = 5.0) -> None:
    """Sees to it that the head of a Ray cluster answers.

    One that was stopped, or that hangs, still accepts connections. But a head speaks gRPC, and so
    HTTP/2, whose server begins by sending its settings.

    Args:
        address: HOST:PORT.
        timeout: in seconds, for the connection and for the answer.

    Raises:
        OSError: if it does not answer.
    """
    host, _, port = address.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout) as connection:
        if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
            return  # it would answer an encrypted greeting only
        connection.sendall(_PREFACE)
        if not connection.recv(1):
            raise ConnectionError("what listens there is no Ray")


def answers(address: str) -> bool:
    """Whether the head of a Ray cluster answers, at HOST:PORT, within a second."""
    try:
        check_answers(address, timeout=1.0)
    except OSError:
        return False
    return True


@contextmanager
def hushed_errors() -> Iterator[None]:
    """Keeps from the screen what is printed as errors by number, as Ray's own libraries do."""
    sys.stderr.flush()
    screen = os.dup(_STDERR)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), _STDERR)
            try:
                yield
            finally:
                sys.stderr.flush()
                os.dup2(screen, _STDERR)
    finally:
        os.close(screen)
