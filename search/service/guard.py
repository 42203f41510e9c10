"""What stands before every page and call: host, origin, size, rate, and who may do what.

As a layer around the whole application, so that nothing in it, the dashboard neither, can be
reached past it.
"""

from __future__ import annotations

import asyncio
import html
import ipaddress
import json
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from contextlib import suppress
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import urlsplit

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage  # the other one starts a thread for each call
from limits.aio.strategies import FixedWindowRateLimiter

from search.service.access import Access, Role

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

LOGIN, STYLE = "/login", "/page.css"
_LARGEST_BODY = 256 * 1024  # bytes
_TOO_LARGE = f"A request must be of at most {_LARGEST_BODY:,} bytes."
_PER_MINUTE = RateLimitItemPerMinute(1200)  # requests of an address, with a token
_MOST_ANSWERED = 500  # requests at a time, those that watch among them
_REFUSED_PER_MINUTE = RateLimitItemPerMinute(30)  # of those without a token that is one
_READING = ("GET", "HEAD")
_OPEN = {LOGIN: (*_READING, "POST"), STYLE: _READING}  # to whoever has no token yet
_FOREIGN_PAGE = (
    "A page that has a browser call this server must be one of its own, but this one is of another "
    "site; open the server's own page, or call it from a program."
)
_ENDING = "The server ends, so that it does not answer; ask again once it has started again."
_SAFE_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"SAMEORIGIN"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]


class _TooLargeError(Exception):
    """A body is larger than is taken."""


class Guard:
    """Lets through what may pass, with the role of who calls as `scope["state"]["role"]`.

    Args:
        hosts: names that this server goes by, besides localhost and addresses as numbers: a page
            of another site that gives its name this machine's address (DNS rebinding) has none.
        cookie: its name.
    """

    def __init__(
        self, application: Application, access: Access, *, hosts: Collection[str], cookie: str
    ) -> None:
        self._application = application
        self._access = access
        self._hosts = {"localhost", *(host.lower() for host in hosts)}
        self._cookie = cookie
        self._n_answered = 0
        self._limiter = FixedWindowRateLimiter(MemoryStorage())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._application(scope, receive, send)
            return
        if scope["type"] != "http":  # no web sockets are spoken here
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        role = self._role(headers)
        refusal = await self._refusal(scope, headers, role)
        if refusal is not None:
            await _refuse(send, *refusal, as_page=b"text/html" in headers.get(b"accept", b""))
            return
        scope.setdefault("state", {})["role"] = role
        self._n_answered += 1
        try:
            await self._pass(scope, receive, send)
        finally:
            self._n_answered -= 1

    async def _refusal(
        self, scope: Scope, headers: dict[bytes, bytes], role: Role | None
    ) -> tuple[int, str] | tuple[int, str, str] | None:
        """Why a request may not pass: status, words, and a header; None where it may."""
        host = headers.get(b"host", b"").decode("latin-1")
        if not self._is_ours(host):
            return 421, (
                f"A request must name this server as its host, but got {host[:100]!r}; start the "
                "server with --allow-host NAME where it goes by that."
            )
        method = scope["method"]
        if not _is_own_page(headers, host, method):
            return 403, _FOREIGN_PAGE
        if method in _OPEN.get(scope["path"], ()):
            return None
        address = str((scope.get("client") or ("?",))[0])
        # Each counted apart: whoever has no token uses up the room of nobody who has one.
        if role is None:
            if not await self._limiter.hit(_REFUSED_PER_MINUTE, "refused", address):
                words = (
                    f"An address may call {_REFUSED_PER_MINUTE.amount} times a minute without a "
                    "token that is one, but called more often; wait a minute, or give the token."
                )
                return 429, words, "60"
            return 401, (
                "A call must have the server's token, as 'Authorization: Bearer TOKEN', or a "
                "browser that opened its link ('search link' makes one)."
            )
        if not await self._limiter.hit(_PER_MINUTE, role, address):
            words = (
                f"An address may call {_PER_MINUTE.amount:,} times a minute, but called more "
                "often; wait a minute."
            )
            return 429, words, "60"
        if self._n_answered >= _MOST_ANSWERED:
            words = (
                f"At most {_MOST_ANSWERED} calls are answered at a time, and as many are; close "
                "pages that watch, or wait."
            )
            return 503, words, "10"
        if role is Role.READER and method not in _READING:
            return 403, "With a token for looking, no method but GET is allowed."
        size = headers.get(b"content-length", b"0")
        if not size.isdigit() or int(size) > _LARGEST_BODY:
            return 413, _TOO_LARGE
        return None

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name.lower() in self._hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _role(self, headers: dict[bytes, bytes]) -> Role | None:
        scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if scheme.lower() == "bearer":
            return self._access.role_of_token(token.strip())
        try:
            cookies = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1"))
        except CookieError:
            return None
        morsel = cookies.get(self._cookie)
        return None if morsel is None else self._access.role_of_cookie(morsel.value)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Calls the application, with headers that browsers heed, and a body of bounded size."""
        n_received, is_refused, is_begun = 0, False, False

        async def limited() -> Message:
            nonlocal n_received
            message = await receive()
            n_received += len(message.get("body", b""))
            if n_received > _LARGEST_BODY:
                raise _TooLargeError
            return message

        async def sending(message: Message) -> None:
            nonlocal is_refused, is_begun
            is_begun = True
            if n_received > _LARGEST_BODY:  # whatever the application makes of that
                if not is_refused:
                    is_refused = True
                    await _refuse(send, 413, _TOO_LARGE)
                return
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message.get("headers", [])}
                more = [header for header in _SAFE_HEADERS if header[0] not in given]
                message = {**message, "headers": [*message.get("headers", []), *more]}
            await send(message)

        try:
            with suppress(_TooLargeError):
                await self._application(scope, limited, sending)
        except asyncio.CancelledError:  # the server ends, and has waited for its answers
            if not is_begun:
                await _refuse(send, 503, _ENDING, "10")


def _is_own_page(headers: dict[bytes, bytes], host: str, method: str) -> bool:
    """Whether a request comes from a page of this server, or from none.

    From another one a browser may only be led here, to look.
    """
    if headers.get(b"sec-fetch-site", b"same-origin") not in (b"same-origin", b"none"):
        return method in _READING and headers.get(b"sec-fetch-dest") == b"document"
    origin = headers.get(b"origin")
    if origin is None or method in _READING:
        return True
    return urlsplit(origin.decode("latin-1")).netloc.lower() == host.lower()


def refusal_page(words: str) -> str:
    """What a browser shows of a refusal."""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Searches</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="stylesheet" href="{STYLE}"><p>{html.escape(words)}</p></html>'
    )


async def _refuse(
    send: Send, status: int, words: str, retry_after: str | None = None, *, as_page: bool = False
) -> None:
    answer = json.dumps({"error": {"type": "AccessError", "message": words}})
    body = (refusal_page(words) if as_page else answer).encode()
    headers = [
        (b"content-type", b"text/html; charset=utf-8" if as_page else b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *_SAFE_HEADERS,
    ]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if retry_after is not None:
        headers.append((b"retry-after", retry_after.encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
