"""The head of a Ray cluster: whether it answers, and what Ray prints of it. Needs no Ray."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from search.exceptions import InputError

AUTO = "auto"  # the address of the cluster that was started on this machine; Ray knows it

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


def check_reachable(address: str) -> None:
    """Sees to it that a cluster answers at an address, other than `AUTO`, that a user names.

    Raises:
        InputError: if none does, or if that is no address.
    """
    host, _, port = address.rpartition(":")
    if "/" in host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise unreachable(address, "an address is HOST:PORT, or auto")
    try:
        check_answers(address)
    except (OSError, ValueError) as error:  # a host's name can be none
        raise unreachable(address, str(error)) from error


def check_cluster(address: str | None) -> None:
    """Sees, before Ray is imported, which takes seconds, that a cluster answers at an address.

    Raises:
        InputError: if none does.
    """
    # Where Ray is not installed, whoever imports it says so.
    if address is not None and address != AUTO and importlib.util.find_spec("ray") is not None:
        check_reachable(address)


def unreachable(address: str, why: str) -> InputError:
    """What to raise where no cluster answers at an address."""
    return InputError(
        "A Ray cluster must answer at the address, on a machine that belongs to it, but "
        f"{address!r} does not ({why}); start one with 'ray start --head', or leave --ray-address "
        "out for one on this machine alone."
    )


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
