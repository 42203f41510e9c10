"""Two servers of one queue on PostgreSQL: each job is run once, by one of them."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from search.service.database import opened_database
from search.service.queue import JobQueue
from tests.conftest import Command, wait_until
from tests.support.servers import PASSWORD, Postgres, shown


@pytest.fixture
def machines(postgres: Postgres, tmp_path: Path) -> list[Command]:
    """Two folders with one database, as two machines have them."""
    url = shown(postgres.guarded_url(postgres.new_database()))
    found = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        command = Command(tmp_path / name)
        command.environment.update(SEARCH_STORAGE=url, XDG_STATE_HOME=str(tmp_path / name))
        found.append(command)
    return found


def test_two_servers_share_a_queue_on_postgresql(machines: list[Command], tmp_path: Path) -> None:
    first = machines[0]
    servers = [command.start("serve", "--port", "0") for command in machines]
    for server in servers:
        lines = [server.stdout.readline() for _ in range(3)]
        assert PASSWORD not in "".join(lines)
    options = {"budget": 3000, "epochs": 1, "dataset": "digits", "space": str(tmp_path / "none")}
    with opened_database(first.environment["SEARCH_STORAGE"], create=False) as database:
        for name in "abcdef":  # searches that end at once, as their space is gone
            JobQueue(database).submit(options, study=name)
    wait_until(
        lambda: {job["state"] for job in first("queue", "--all", "--json").json} == {"failed"}
    )
    jobs = first("queue", "--all", "--json").json
    assert [(job["number"], job["n_starts"]) for job in jobs] == [(n, 1) for n in range(6, 0, -1)]
    assert "there is no file" in jobs[0]["reason"]
    refused = first.start("serve", "--port", "0").communicate()[0]
    assert "One server at a time must serve a queue" in refused
    started = []
    for server in servers:
        server.send_signal(signal.SIGTERM)
        out, _ = server.communicate()
        assert server.returncode == 0
        assert PASSWORD not in out
        started.append(re.findall(r"^Started job (\d)", out, re.M))
    assert all(started)  # each ran some
    assert sorted(number for each in started for number in each) == list("123456")
    for command in machines:
        command.stop()
