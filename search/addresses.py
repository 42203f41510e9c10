"""Addresses of machines, and what cannot listen on them."""

from __future__ import annotations

import errno
import ipaddress

from search.exceptions import InputError


def is_this_machine(host: str) -> bool:
    """Whether an address is one that no other machine reaches."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def refused_address(host: str, port: int, error: OSError | UnicodeError) -> InputError:
    """What is told where a server cannot listen on an address, for want of the port or of it."""
    if getattr(error, "errno", None) in (errno.EADDRINUSE, errno.EACCES):
        return InputError(
            f"The port must be free, but {port} is not ({error}); take another with --port, or any "
            "free one with --port 0."
        )
    return InputError(
        f"--host must be an address of this machine, but got {host!r}; leave it out for 127.0.0.1, "
        "which this machine alone reaches."
    )
