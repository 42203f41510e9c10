"""Addresses of machines."""

from __future__ import annotations

import ipaddress


def is_this_machine(host: str) -> bool:
    """Whether an address is one that no other machine reaches."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
