"""A real server, which runs real searches on the digits; stopped, killed, and started again."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import Connection

from search.service import tables
from search.service.database import opened_database
from search.service.folder import ServiceFolder, is_locked
from search.service.queue import JobQueue
from search.service.supervisor import Supervisor
from tests.conftest import Command, alive, n_reported, wait_until
from tests.support.prepared import PreparedProcess

# The smallest searches that are some: each is a process that imports PyTorch.
SEARCH = (
    *("--dataset", "digits", "--budget", "3000", "--space", "standard", "--workers", "1"),
    *("--pruner", "none"),
)
# Long enough for who watches from its start to see a trial end.
SHORT = (*SEARCH, "--epochs", "60", "--trials", "2", "--study", "short")
LONG = (*SEARCH, "--epochs", "400", "--trials", "2", "--study", "long")


def jobs(command: Command) -> dict[int, dict[str, Any]]:
    return {job["number"]: job for job in command("queue", "--all", "--json").json}


def is_in(command: Command, number: int, state: str) -> bool:
    return bool(jobs(command)[number]["state"] == state)


def start_server(command: Command, *options: str) -> PreparedProcess:
    process = command.start("serve", "--port", "0", *options)
    first, link, last = (process.stdout.readline() for _ in range(3))
    assert first.startswith("Serving the queue of sqlite:///studies.db on http://127.0.0.1:")
    assert "search link --write'" in link
    assert last == "Ctrl-C ends the server; what it runs goes on.\n"
    return process


def search_of(command: Command, number: int) -> psutil.Process:
    """The process that runs a job."""
    path = command.folder / "studies.db-service" / "jobs" / f"{number}.pid"
    wait_until(path.is_file)
    return psutil.Process(int(path.read_text()))


@pytest.fixture
def command(command: Command) -> Iterator[Command]:
    """Ends at last the searches that a failed test has left, in sessions of their own."""
    yield command
    for path in (command.folder / "studies.db-service" / "jobs").glob("*.pid"):
        if is_locked(path.with_suffix(".lock")):
            with contextlib.suppress(ValueError, ProcessLookupError):
                os.killpg(int(path.read_text()), signal.SIGKILL)


def test_a_server_that_others_reach_tells_of_a_tunnel_to_its_own_port(command: Command) -> None:
    process = command.start("serve", "--host", "0.0.0.0", "--port", "0", "--slots", "0")
    first, *_, warning = (process.stdout.readline() for _ in range(4))
    port = re.findall(r"http://0\.0\.0\.0:(\d+)", first)[0]
    assert f"ssh -L {port}:127.0.0.1:{port} THIS-HOST" in warning
    os.killpg(process.pid, signal.SIGINT)
    process.wait()


def test_what_is_submitted_runs_is_stopped_goes_on_and_survives_its_server(
    command: Command,
) -> None:
    left = ServiceFolder(f"sqlite:///{command.database}")  # of a database that was deleted since
    left.make()
    for path in (left.log(1), left.events(1)):
        path.write_text('{"event": "end", "exit_code": 1, "error": "of another database"}\n')
    done = command("submit", *SHORT)
    assert done.code == 0, done.err
    # Under another command, as `uv run`, that stands before what is told to give.
    told = done.out.replace("'uv run search", "'search")
    assert told.startswith("Job 1 waits: short. 'search watch 1' shows it.")
    assert "No server runs that would start it; 'search serve' is one." in told
    watching = command.start("watch", "1")  # from before it runs until it is over
    assert watching.stdout.readline().startswith("Job 1 is waiting")
    server = start_server(command)
    assert command("submit", *LONG, "--json").json["state"] == "waiting"
    watched, _ = watching.communicate()
    assert watching.returncode == 0
    assert "[2/2] trial 1" in watched
    *_, standing, result = watched.splitlines()
    assert standing == "Job 1 is done, short"
    assert result.startswith("2 trained trials, the best ")
    logged = command("logs", "1").out
    assert "another database" not in logged
    assert logged.count("The study has its 2 trained trials.") == 1
    short = jobs(command)[1]
    assert (short["exit_code"], short["progress"]["n_trained"]) == (0, 2)
    assert short["progress"]["best_value"] == command.study("short").best_value

    # The next one runs; it is stopped from another terminal, and goes on.
    wait_until(lambda: n_reported(command, "long") >= 2)
    search = search_of(command, 2)
    assert os.getsid(search.pid) == search.pid  # no terminal's
    assert command("stop", "long").out.startswith("Job 2 (long) is being stopped")
    wait_until(lambda: is_in(command, 2, "stopped"))
    assert not alive([search])
    logged = command("logs", "long").out
    assert re.search(r"Its queue goes on:\n  (uv run )?search resume 2\n", logged), logged
    assert "resume 2" in command("stop", "2").err or command("stop", "2").code == 2
    assert command("resume", "long").code == 0
    wait_until(lambda: n_reported(command, "long", first=1) >= 2)

    # The server is killed; what runs goes on, and the next server adopts it.
    search = search_of(command, 2)
    server.kill()
    server.wait()
    n_before = n_reported(command, "long", first=1)
    wait_until(lambda: n_reported(command, "long", first=1) > n_before + 1)
    second = start_server(command)
    assert second.stdout.readline() == "Adopted job 2 (long), which runs.\n"
    refused = command.start("serve")
    out, _ = refused.communicate()
    assert refused.returncode == 1
    assert f"One server at a time must serve a queue, but process {second.pid} serves" in " ".join(
        out.split()
    )

    # The search is killed, which is seen; it goes on. At last it is cancelled.
    search.kill()
    line = second.stdout.readline()
    assert line == "Job 2 (long) waits again: its process ended without a word\n"
    assert second.stdout.readline() == "Started job 2 (long).\n"
    assert command("cancel", "2").out == "Job 2 (long) is being stopped, then cancelled.\n"
    wait_until(lambda: is_in(command, 2, "cancelled"))
    second.send_signal(signal.SIGTERM)
    assert second.wait() == 0
    *_, last = second.stdout.read().splitlines()
    assert re.fullmatch(
        r"The server has ended\. What it runs goes on; '(uv run )?search serve' looks after it\.",
        last,
    )
    assert not alive([search])


def test_what_cannot_be_searched_is_refused_at_once_or_seen_to_fail(command: Command) -> None:
    refused = command("submit", *SEARCH, "--epochs", "1", "--sampler", "guess")
    assert (refused.code, "must be one of tpe" in refused.err) == (2, True)
    assert not command.database.exists()
    assert "There is no database" in command("queue").err
    space = command.folder / "own.toml"
    space.write_text(command("space", "standard").out)
    own = (*SEARCH, "--epochs", "1", "--study", "own", "--space", "own.toml")
    assert command("submit", *own).code == 0
    space.unlink()
    assert command("submit", *own).code == 2
    server = start_server(command)
    wait_until(lambda: is_in(command, 1, "failed"))
    failed = jobs(command)[1]
    assert (failed["exit_code"], f"there is no file '{space}'" in failed["reason"]) == (2, True)
    assert "Error: " in command("logs", "1").out
    shown = command("queue").out
    assert "failed" in shown
    assert "there is no file" in shown
    # A server that died before it could start a job, perhaps with its machine, has it run again.
    server.kill()
    server.wait()
    assert command("resume", "1").code == 0
    events = command.folder / "studies.db-service" / "jobs" / "1.events"
    n_starts = events.read_text().count('"start"')
    take_as_a_server_that_dies(command)
    third = start_server(command)
    assert third.stdout.readline() == "Job 1 (own) waits again: it was not started\n"
    wait_until(lambda: is_in(command, 1, "failed"))
    assert events.read_text().count('"start"') == n_starts + 1


def test_a_job_that_cannot_be_read_fails_alone(command: Command) -> None:
    url = f"sqlite:///{command.database}"
    with opened_database(url, create=True) as database:
        queue = JobQueue(database)
        queue.submit({"budget": 800, "epochs": 1, "colour": "red"}, study="newer")
        queue.submit({"budget": 800, "epochs": 1}, study="spoilt")
        queue.submit({"budget": 800, "epochs": 1, "dataset": 7, "target": {}})
        endless = '{"budget": 800, "epochs": 1, "timeout_seconds": Infinity}'
        for number, text in ((2, "["), (4, endless), (5, "[" * 100_000)):
            if number > 3:
                queue.submit({"budget": 800, "epochs": 1}, study=f"spoilt-{number}")
            spoilt = tables.jobs.update().where(tables.jobs.c.number == number).values(options=text)
            database.write(Connection.execute, spoilt)
    server = start_server(command)
    wait_until(lambda: all(is_in(command, number, "failed") for number in range(1, 6)))
    assert "got 'colour'" in jobs(command)[1]["reason"]
    assert command("queue").code == 0
    server.send_signal(signal.SIGTERM)
    assert server.wait() == 0


def test_a_job_that_the_machine_cannot_start_waits_until_it_can(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    folder, told, ending = ServiceFolder(url), list[str](), threading.Event()
    folder.make()
    folder.jobs.rmdir()
    folder.jobs.write_text("no folder")
    with opened_database(url, create=True) as database:
        queue = JobQueue(database)
        options = {"budget": 800, "epochs": 1, "dataset": "digits", "space": str(tmp_path / "none")}
        for name in ("one", "other"):
            queue.submit(options, study=name)
        supervisor = Supervisor(database, folder, url=url, n_slots=2, notice=told.append)
        thread = threading.Thread(target=supervisor.run, args=(ending.is_set,))
        thread.start()
        try:
            wait_until(lambda: "could not be started yet" in str(queue.job(1).reason))
            assert queue.job(2).state == "waiting"
            folder.jobs.unlink()
            wait_until(lambda: queue.job(1).state == queue.job(2).state == "failed")
            assert "there is no file" in str(queue.job(2).reason)
            assert sum("The server tries again" in text for text in told) == 1
        finally:
            ending.set()
            thread.join()


def test_many_that_must_wait_keep_nobody_from_running(command: Command) -> None:
    assert command("submit", *LONG).code == 0
    space = str(command.folder / "none")
    options = {"budget": 800, "epochs": 1, "dataset": "digits", "space": space}
    with opened_database(f"sqlite:///{command.database}", create=False) as database:
        queue = JobQueue(database)
        for name in [*["long"] * 60, "last"]:
            queue.submit({**options, "study": name}, study=name)
        start_server(command, "--slots", "2")
        wait_until(lambda: queue.find("last").state == "failed")
        assert queue.job(2).state == "waiting"


def test_a_server_ends_while_another_program_has_locked_the_database(command: Command) -> None:
    server = start_server(command)
    with contextlib.closing(sqlite3.connect(command.database, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=40) == 0  # it would wait for a minute twice
        connection.execute("ROLLBACK")


def test_without_a_server_what_it_left_is_stopped_watched_and_resumed(command: Command) -> None:
    assert command("submit", *LONG).code == 0
    server = start_server(command)
    wait_until(lambda: n_reported(command, "long") >= 1)
    watcher = command.start("watch", "1", "--json")  # of the server, which then ends
    assert json.loads(watcher.stdout.readline())["event"] == "job"
    reader = command.start("watch", "1")  # in words
    assert reader.stdout.readline().startswith("Job 1 is running")
    server.send_signal(signal.SIGTERM)
    assert server.wait() == 0
    search = search_of(command, 1)
    assert alive([search])
    assert watcher.poll() is None
    assert command("stop", "long").out.startswith("Job 1 (long) is being stopped")
    assert watcher.wait() == reader.wait() == 0
    assert not alive([search])
    *_, standing, result = reader.stdout.read().splitlines()
    assert standing == "Job 1 is stopped, long"
    assert result == "0 trained trials, none complete."
    told = [json.loads(line) for line in watcher.stdout.read().splitlines()]
    assert [each["state"] for each in told if each["event"] == "job"][-1] == "stopped"
    assert is_in(command, 1, "stopped")
    assert command("resume", "1").out.startswith("Job 1 (long) waits again.")


def take_as_a_server_that_dies(command: Command) -> None:
    from search.service.claims import Claims, server_identity
    from search.service.database import opened_database
    from search.service.folder import ServiceFolder

    url = f"sqlite:///{command.database}"
    with opened_database(url, create=False) as database:
        assert (
            Claims(database, server_identity(database, ServiceFolder(url))).take_next([])
            is not None
        )


def test_a_search_of_a_terminal_is_watched_and_stopped_from_another(command: Command) -> None:
    process = command.start("run", *LONG)
    wait_until(lambda: n_reported(command, "long") >= 2)
    watcher = command.start("watch", "long", "--json")
    assert json.loads(watcher.stdout.readline())["study"] == "long"
    started, epoch = (json.loads(watcher.stdout.readline()) for _ in range(2))
    assert (started["event"], started["trial"]) == ("trial", 0)
    assert (epoch["event"], epoch["epoch"]) == ("epoch", 1)
    watcher.send_signal(signal.SIGINT)
    assert watcher.wait() == 0
    stopped = command("stop", "long")
    assert stopped.out == f"Told process {process.pid}, which searches long, to stop.\n"
    assert process.wait() == 130
    for name in ("one", "other", "third"):
        assert command("submit", *SEARCH, "--epochs", "1", "--study", name).code == 0
    assert command("move", "3", "--first").out == "Job 3 (third) runs next.\n"
    assert list(jobs(command)) == [3, 1, 2]
    assert "got neither of --first and --last" in " ".join(command("move", "1").err.split())
    unknown = command("stop", "nothing")
    assert (unknown.code, "there is no 'nothing'" in unknown.err) == (2, True)


def test_systemd_takes_the_unit_of_the_page(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("there is no systemd-analyze")
    page = (Path(__file__).parents[2] / "docs" / "service.md").read_text()
    (unit,) = re.findall(r"^```ini\n(.*?)^```", page, re.M | re.S)
    assert "ExecStart=/srv/searches/.venv/bin/search serve\n" in unit
    path = tmp_path / "search.service"
    unit = unit.replace("/srv/searches/.venv/bin/search", sys.executable)
    path.write_text(unit.replace("=/srv/searches", f"={tmp_path}").replace("=searcher", "=root"))
    done = subprocess.run([analyze, "verify", path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_commands_on_jobs_never_meet_torch_nor_a_web_server(command: Command) -> None:
    several = [
        ["submit", *SHORT],
        *(["queue"], ["move", "1", "--first"], ["stop", "1"], ["resume", "1"], ["logs", "1"]),
        *(["cancel", "1"], ["watch", "1"], ["serve", "--help"], ["run", "--help"]),
    ]
    code = (
        "import contextlib, sys\n"
        "from search.cli import main\n"
        f"for words in {several}:\n"
        "    with contextlib.suppress(SystemExit): main(words)\n"
        "print('imported:', *({'torch', 'fastapi', 'uvicorn', 'httpx2'} & set(sys.modules)))"
    )
    done = command.run_words([*command.words()[:1], "-c", code])
    assert done.out.endswith("imported:\n"), done.out
    assert done.err == ""
