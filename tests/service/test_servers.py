"""Two servers of one queue on PostgreSQL: each job is run once, by one of them."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import httpx2
import pytest

from search.service.database import opened_database
from search.service.queue import JobQueue
from tests.conftest import Command, wait_until
from tests.support.prepared import HANG_SECONDS
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


def test_a_server_and_its_searches_wait_for_a_database_that_is_away(
    machines: list[Command], postgres: Postgres
) -> None:
    machine = machines[0]
    options = {"budget": 3000, "epochs": 1, "dataset": "digits", "study": "a"}
    with opened_database(machine.environment["SEARCH_STORAGE"], create=True) as database:
        JobQueue(database).submit({**options, "n_trials": 1, "confirm": False}, study="a")
    postgres.stop()
    server = machine.start("serve", "--port", "0")

    def read_until(words: str) -> str:
        lines = iter(server.stdout.readline, "")
        return next(line for line in lines if words in line)

    assert "waiting for it" in read_until("does not answer")
    postgres.start()
    read_until("Serving the queue of")
    read_until("Started job 1")
    # Held before it has loaded what it needs to open the database.
    wait_until(lambda: any(path.read_text() for path in machine.folder.glob("**/1.pid")))
    (pid,) = machine.folder.glob("**/1.pid")
    os.kill(int(pid.read_text()), signal.SIGSTOP)
    postgres.stop()
    os.kill(int(pid.read_text()), signal.SIGCONT)
    (address,) = machine.folder.glob("**/address")
    token = address.with_name("token").read_text().strip()
    asked = httpx2.post(
        f"{address.read_text()}/api/v1/jobs",
        json={"budget": 3000, "epochs": 1, "dataset": "digits"},
        headers={"Authorization": f"Bearer {token}"},
        timeout=HANG_SECONDS,
    )
    assert (asked.status_code, asked.json()["error"]["type"]) == (503, "StorageUnreachableError")
    (events,) = machine.folder.glob("**/1.events")
    wait_until(lambda: '"temporary": true' in events.read_text())
    postgres.start()
    assert "Job 1 (a) waits again: The storage " in read_until("Job 1")
    read_until("Started job 1")
    assert read_until("Job 1") == "Job 1 (a) is done\n"
    machine.stop()
