"""Who may do what: tokens, one-time links, and the cookies that these set.

A token is a secret of the user's alone, in a file that nobody else can read, made at the first
start. There are two: with one a client may do everything, with the other only look. To take them
back, delete their files and start the server again; their cookies go with them.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import threading
import time
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from search.exceptions import InputError

_N_BYTES = 32
_LINK_SECONDS = 600.0  # in which a link must be opened
COOKIE_SECONDS = 30 * 86400
_N_LINKS = 100  # that are open at a time


class Role(StrEnum):
    """What who calls may do."""

    WRITER = "writer"  # everything
    READER = "reader"  # look: no method but GET


_FILES = {Role.WRITER: "token", Role.READER: "read-token"}


def read_token(folder: Path, role: Role = Role.WRITER) -> str | None:
    """The token that a server of this user has made; None where it made none."""
    with suppress(OSError):
        return (folder / _FILES[role]).read_text().strip() or None
    return None


def kept_secret(path: Path) -> str:
    """The secret in a file, made where it is missing; for this user alone.

    Raises:
        InputError: if others can read the file.
    """
    found = ""
    with suppress(OSError):
        found = path.read_text().strip()
    if not found:
        found = secrets.token_urlsafe(_N_BYTES)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(f"{found}\n")
    elif path.stat().st_mode & 0o077:
        raise InputError(
            f"The file of a token or a key must be readable by its user alone, but {path} is open "
            "to others; delete it, and the server makes a new one."
        )
    return found


class Access:
    """Tells the role of who calls. May be used by several threads.

    Args:
        folder: of the files of the tokens.

    Raises:
        InputError: if others can read a token.
    """

    def __init__(self, folder: Path) -> None:
        self._tokens = {role: kept_secret(folder / _FILES[role]) for role in Role}
        self._links: dict[bytes, tuple[Role, float]] = {}  # by their code's digest; until when
        self._lock = threading.Lock()

    def role_of_token(self, token: str) -> Role | None:
        """The role that a token gives; None where it is none. Takes as long whatever it is."""
        given = token.encode(errors="replace")
        found = None
        for role, known in self._tokens.items():
            if hmac.compare_digest(given, known.encode()):
                found = role
        return found

    def make_link_code(self, role: Role) -> str:
        """A code that gives a browser a role, once, within ten minutes."""
        code = secrets.token_urlsafe(_N_BYTES)
        now = time.monotonic()
        with self._lock:
            open_links = [item for item in self._links.items() if item[1][1] > now]
            self._links = dict(open_links[-_N_LINKS + 1 :])
            self._links[_digest(code)] = (role, now + _LINK_SECONDS)
        return code

    def use_link_code(self, code: str) -> Role | None:
        """The role that a code gives; None where it is none, was used before, or is too old."""
        with self._lock:
            role, until = self._links.pop(_digest(code), (None, 0.0))
        return role if time.monotonic() < until else None

    def make_cookie(self, role: Role) -> str:
        """What a browser shows in the place of a token; it ends with the token."""
        until = int(time.time()) + COOKIE_SECONDS
        return f"{role}.{until}.{self._sign(role, until)}"

    def role_of_cookie(self, cookie: str) -> Role | None:
        """The role that a cookie gives; None where it is none, or too old."""
        name, _, rest = cookie.partition(".")
        until, _, signature = rest.partition(".")
        if name not in set(Role) or not (until.isascii() and until.isdecimal()) or len(until) > 12:
            return None
        role = Role(name)
        expected = self._sign(role, int(until))
        if not hmac.compare_digest(signature.encode(errors="replace"), expected.encode()):
            return None
        return role if time.time() < int(until) else None

    def _sign(self, role: Role, until: int) -> str:
        text = f"cookie {role} {until}"
        return hmac.new(self._tokens[role].encode(), text.encode(), hashlib.sha256).hexdigest()


def _digest(code: str) -> bytes:
    """Codes are found by what tells nothing of them, so that the time it takes does not either."""
    return hashlib.sha256(code.encode(errors="replace")).digest()
