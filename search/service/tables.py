"""The tables of the queue, beside Optuna's in the same database.

They have a version. A database whose queue another version of this package has made, which this one
does not know, is refused: nothing is read or written by guess.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    inspect,
    select,
)
from sqlalchemy.engine import URL

from search.exceptions import StorageError
from search.storage.urls import without_secrets

VERSION = 1  # of the tables below: whoever changes them counts it up, and says how to go on
_NUMBER = BigInteger().with_variant(Integer, "sqlite")  # which counts up by itself

metadata = MetaData()

version = Table("service_version", metadata, Column("version", Integer, primary_key=True))

# Moments are in UTC, as ISO 8601 has them: text that sorts.
jobs = Table(
    "service_jobs",
    metadata,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    Column("state", String(16), nullable=False),
    Column("place", BigInteger, nullable=False),  # the lowest of those that wait comes first
    Column("options", Text, nullable=False),  # as JSON
    Column("study", String(512)),  # None until it is known: the data may decide it
    Column("wanted", String(16)),  # what a user asked of a job that runs: stop or cancel
    Column("server", String(64)),  # that runs it, or ran it last
    Column("owner", Text),  # the process that runs it, as JSON
    Column("submitted", String(32), nullable=False),
    Column("started", String(32)),
    Column("ended", String(32)),
    Column("exit_code", Integer),
    Column("reason", Text),
    Column("n_starts", Integer, nullable=False, default=0),
    Column("n_deaths", Integer, nullable=False, default=0),  # without a trial trained in between
    Column("progress", Text),  # as JSON
    Column("key", String(200), unique=True),  # of who submits, so that twice is once
    Index("service_jobs_waiting", "state", "place"),
    Index("service_jobs_study", "study"),
    sqlite_autoincrement=True,  # the number of a job is never another's
)

# What became of jobs, in the order in which it happened; the oldest go.
events = Table(
    "service_events",
    metadata,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    Column("at", String(32), nullable=False),
    Column("job", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    sqlite_autoincrement=True,
)

servers = Table(
    "service_servers",
    metadata,
    Column("identity", String(64), primary_key=True),
    Column("host", Text, nullable=False),
    Column("heard", Float, nullable=False),  # seconds since 1970, by the clock of the database
)


def check_tables(connection: Connection, url: URL) -> bool:
    """Whether the tables are there.

    Raises:
        StorageError: if those of another version are.
    """
    if not inspect(connection).has_table(version.name):
        return False
    found = connection.execute(select(version.c.version)).scalars().all()
    if found == [VERSION]:
        return True
    if not found:  # whoever makes them is not done
        return False
    raise StorageError(
        f"The queue of a database must be of version {VERSION}, but that of "
        f"{without_secrets(url)} is of version {max(found)}, which another version of this package "
        "made; install that version, or name another database with --storage."
    )


def make_tables(connection: Connection) -> None:
    """Makes the tables, in the transaction of the connection."""
    metadata.create_all(connection)
    if connection.execute(select(version.c.version)).first() is None:
        connection.execute(version.insert().values(version=VERSION))
