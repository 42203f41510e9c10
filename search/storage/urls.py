"""Storage URLs: read, shown without their secrets, and what their database is called by."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from urllib.parse import quote, quote_plus

import sqlalchemy
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from search.exceptions import StorageError
from search.wording import install_words

_SECRET_KEYS = ("password", "passwd", "passfile", "sslpassword", "sslkey")  # of a URL's query


def parse_url(url: str) -> URL:
    """A URL whose database SQLAlchemy knows, and whose driver is installed.

    Raises:
        StorageError: if it is none.
    """
    given: object = url
    if not isinstance(given, str):  # a path, of a program
        raise StorageError(
            'A storage must be a URL, as a text (str), as "sqlite:///studies.db", but got '
            f"{given!r}."
        )
    try:
        url.encode()
    except UnicodeEncodeError as error:
        raise StorageError(
            "The address of a storage must be UTF-8 text, but this one has other bytes; name the "
            "file from within its folder, as sqlite:///studies.db."
        ) from error
    try:
        parsed = sqlalchemy.make_url(url)
        parsed.get_dialect()
    except NoSuchModuleError as error:  # an ArgumentError, too
        raise StorageError(
            f"A storage must be a database that SQLAlchemy knows, but got {parsed.drivername!r}; "
            "use sqlite:///FILE or postgresql+psycopg://user@host/database."
        ) from error
    except (ArgumentError, ValueError) as error:  # the latter for a port that is no number
        raise StorageError(
            "A storage must be a URL, as sqlite:///studies.db or "
            "postgresql+psycopg://user@host/database, but got another text."
        ) from error
    try:
        parsed.get_dialect().import_dbapi()
    except ImportError as error:
        raise StorageError(
            f"{parsed.drivername} needs a driver that is not installed ({error}); install it. For "
            f"PostgreSQL that is: {install_words('postgresql')}."
        ) from error
    return parsed


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file, in which its name means nothing else."""
    return URL.create("sqlite", database=str(path)).render_as_string()


def sqlite_path(url: str) -> Path | None:
    """The file of a SQLite storage; None for another database.

    Raises:
        StorageError: if `url` is not a URL.
    """
    parsed = parse_url(url)
    return Path(parsed.database or "") if parsed.get_backend_name() == "sqlite" else None


def database_label(url: str) -> str:
    """A name for a folder, which tells a database from others: its own name and a few digits.

    For a server they follow from host, port and database, whoever logs in by whatever driver, and
    for SQLite from the file's resolved path.

    Raises:
        StorageError: if `url` is not a URL.
    """
    parsed = parse_url(url)
    path = sqlite_path(url)
    if path is not None:
        path = path.resolve()
        name, address = path.name, str(path)
    else:
        # A socket's folder, or several hosts, stand in the query.
        host, port = (parsed.query.get(key, "") for key in ("host", "port"))
        name = parsed.database or ""
        values = (parsed.get_backend_name(), parsed.host or host, parsed.port or port, name)
        address = json.dumps(values)
    digits = hashlib.sha256(os.fsencode(address)).hexdigest()[:12]
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', name)[:100].strip('.')}-{digits}"


def shown_url(url: str) -> str:
    """The URL as it may be printed: without its password.

    Raises:
        StorageError: if it is not a URL.
    """
    return without_secrets(parse_url(url))


def without_secrets(url: URL) -> str:
    """A URL as it may be printed: without its password, wherever that stands."""
    hidden = {key: "***" for key in url.query if key.lower() in _SECRET_KEYS}
    text = url.update_query_dict(hidden).render_as_string(hide_password=True)
    return text.replace("=%2A%2A%2A", "=***")


def hide_secrets(text: str, url: URL) -> str:
    """A text that may repeat a URL's secrets, in whatever notation, without them."""
    secrets = [str(url.password)] if url.password else []
    for key, value in url.query.items():
        if key.lower() in _SECRET_KEYS:
            secrets += [value] if isinstance(value, str) else list(value)
    for secret in sorted(secrets, key=len, reverse=True):
        for written in {secret, quote(secret, safe=""), quote(secret), quote_plus(secret)} - {""}:
            text = text.replace(written, "***")
    return text
