"""What a real server answers over HTTP: to its client, to browsers, and to who may not ask."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import httpx2
import pytest

import search
from search.exceptions import InputError, JobError, UnknownJobError, UnknownStudyError
from search.service.access import Access, Role
from search.service.database import opened_database
from search.service.guard import Guard
from search.service.jobs import JobState
from search.service.queue import JobQueue
from search.service.reports import Reports
from tests.conftest import Command
from tests.support.prepared import HANG_SECONDS, PreparedProcess

API = "/api/v1"
SMALL: dict[str, Any] = {"dataset": "digits", "space": "standard", "n_workers": 1}


class Served:
    """A server that runs no search, and what reaches it."""

    def __init__(self, command: Command, process: PreparedProcess, first_lines: list[str]) -> None:
        self.command = command
        self.process = process
        (self.address,) = re.findall(r" on (http://127\.0\.0\.1:\d+), 0 at a time", first_lines[0])
        assert "search link --write'" in first_lines[1]
        assert "login" not in "".join(first_lines)  # which may be a journal that others read
        self.folder = command.folder / "studies.db-service"
        self.token, self.read_token = (
            (self.folder / name).read_text().strip() for name in ("token", "read-token")
        )

    def call(self, method: str, path: str, token: str | None = "", **more: Any) -> httpx2.Response:
        headers = more.pop("headers", {})
        if token is not None:
            headers["Authorization"] = f"Bearer {token or self.token}"
        with httpx2.Client(trust_env=False) as client:
            return client.request(method, f"{self.address}{path}", headers=headers, **more)


@pytest.fixture(scope="module")
def served(finished_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("http")
    shutil.copytree(finished_folder, folder, dirs_exist_ok=True)
    command = Command(folder)
    process = command.start("serve", "--port", "0", "--slots", "0", "--artifacts", "shown")
    yield Served(command, process, [process.stdout.readline() for _ in range(3)])
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0
    assert not (folder / "studies.db-service" / "address").exists()
    command.stop()


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[search.Client]:
    with search.Client(served.address, token=served.token) as client:
        yield client


def test_a_client_does_with_jobs_what_the_commands_do(client: search.Client) -> None:
    first = client.submit(3000, 1, study="first", **SMALL)
    second = client.submit(3000, 1, study="second", **SMALL, key="once", timeout_seconds=60)
    assert client.submit(3000, 1, study="second", **SMALL, key="once", timeout_seconds=60) == second
    with pytest.raises(JobError, match="A key must be given again with the same options"):
        client.submit(3000, 2, study="second", **SMALL, key="once")
    third = client.submit(3000, 1, study="third", **SMALL, first=True)
    waiting = [job.number for job in client.jobs([JobState.WAITING])]
    assert waiting == [third.number, first.number, second.number]
    client.move("third", first=False)
    assert client.stop(first.number).state is JobState.STOPPED
    assert client.resume("first").state is JobState.WAITING
    assert [job.study for job in client.jobs([JobState.WAITING])] == ["second", "third", "first"]
    assert client.cancel("second").state is JobState.CANCELLED
    assert client.wait("second").state is JobState.CANCELLED  # it has ended: there is no wait
    assert client.count()[JobState.WAITING] == 2
    assert client.log("first") == b""  # before it was started
    assert second.options == {
        **{"budget": 3000, "epochs": 1, "study": "second", "timeout_seconds": 60.0},
        **SMALL,
    }
    with pytest.raises(UnknownJobError, match="there is no 'nothing'"):
        client.stop("nothing")
    with pytest.raises(JobError, match=r"must be stopped or have failed, but job .* waits already"):
        client.resume("third")
    with pytest.raises(InputError, match="A sampler must be one of"):
        client.submit(3000, 1, sampler="guess", **SMALL)
    with pytest.raises(InputError, match=r"budget: Input should be greater than or equal to 1"):
        client.submit(0, 1)
    for seconds in (True, "5"):  # which are numbers to Python, and to JSON none
        with pytest.raises(InputError, match=r"timeout_seconds: Input should be a valid number"):
            client.submit(3000, 1, **SMALL, timeout_seconds=cast(Any, seconds))
    with pytest.raises(InputError, match=r"storage: Extra inputs are not permitted"):
        client.submit(3000, 1, storage="sqlite:///other.db")


def test_a_job_that_cannot_be_read_is_shown_all_the_same(served: Served) -> None:
    with opened_database(f"sqlite:///{served.command.database}", create=False) as database:
        job, _ = JobQueue(database).submit({"colour": "red"})
        shown = served.call("GET", "/")
        listed = served.command("queue")
        JobQueue(database).cancel(str(job.number))

    assert shown.status_code == 200
    assert "options that cannot be read" in shown.text
    assert "options that cannot be" in " ".join(listed.out.split()), listed.err


def test_studies_and_their_trials_come_as_commands_print_them(
    served: Served, client: search.Client
) -> None:
    (study,) = client.studies()
    assert [study] == served.command("studies", "--json").json
    assert client.study(study["name"]) == study
    trials = client.trials(study["name"])
    assert [trial["trial"] for trial in trials] == [0, 1, 2, 3]
    assert len(trials[0]["epochs"]) == 3
    with pytest.raises(UnknownStudyError, match="there is no 'other'"):
        client.trials("other")
    one = {"name": study["name"], "number": 2}
    assert served.call("GET", f"{API}/study/trial", params=one).json() == trials[2]
    assert served.call("GET", f"{API}/study/trial", params={**one, "number": 9}).status_code == 404


def test_lists_come_in_pages(served: Served, client: search.Client) -> None:
    numbers = [client.submit(3000, 1, study=f"p{n}", **SMALL).number for n in range(5)]
    found: list[int] = []
    cursor: dict[str, str] = {}
    while True:
        answer = served.call("GET", f"{API}/jobs", params={"limit": 2, **cursor}).json()
        found += [job["number"] for job in answer["jobs"]]
        if answer["next_cursor"] is None:
            break
        cursor = {"cursor": answer["next_cursor"]}
    assert found[:5] == numbers[::-1]
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == len(found)
    for cursor in ({"cursor": "?"}, {"cursor": "AAAA"}, {"cursor": "4pi6"}, {"limit": "0"}):
        assert served.call("GET", f"{API}/jobs", params=cursor).status_code in (404, 422)
    trials = {"name": "digits-3000x3", "limit": "3"}
    page = served.call("GET", f"{API}/study/trials", params=trials).json()
    more = {**trials, "cursor": page["next_cursor"]}
    rest = served.call("GET", f"{API}/study/trials", params=more).json()
    assert [t["trial"] for t in rest["trials"]] == [3]
    assert rest["next_cursor"] is None
    deleted = served.call("GET", f"{API}/studies", params={"cursor": "Z29uZQ=="})
    assert (deleted.status_code, "is not, or not any more" in deleted.text) == (422, True)


def test_a_log_is_read_from_any_offset(served: Served, client: search.Client) -> None:
    number = client.submit(3000, 1, study="logged", **SMALL).number
    (served.folder / "jobs" / f"{number}.log").write_text("printed\n")
    for offset, rest in ((0, b"printed\n"), (3, b"nted\n"), (8, b""), (2**63 - 1, b"")):
        assert client.log(number, offset) == rest


def routes(served: Served) -> list[tuple[str, str]]:
    """Every route there is, with a number and a name that may be there."""
    paths = served.call("GET", f"{API}/openapi.json").json()["paths"]
    found = [
        (method.upper(), path.replace("{number}", "1"))
        for path, methods in paths.items()
        for method in methods
    ]
    return [*found, ("GET", f"{API}/docs"), ("GET", f"{API}/openapi.json"), ("GET", "/")]


def test_nobody_without_a_token_is_told_anything(served: Served) -> None:
    assert len(routes(served)) > 15
    for method, path in routes(served):
        for token in (None, "wrong"):
            if token is not None and path != f"{API}/jobs":
                continue  # few: they are limited
            answer = served.call(method, path, token)
            assert answer.status_code == 401, path
            assert "Authorization: Bearer TOKEN" in answer.json()["error"]["message"]


def test_who_may_look_has_no_method_but_get(served: Served, client: search.Client) -> None:
    before = [job.to_json() for job in client.jobs()]
    others = {"POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
    for _, path in routes(served):
        for method in others:
            assert served.call(method, path, served.read_token).status_code == 403, (method, path)
    assert [job.to_json() for job in client.jobs()] == before
    assert served.call("GET", f"{API}/jobs", served.read_token).status_code == 200
    looker = search.Client(served.address, token=served.read_token)
    with pytest.raises(search.SearchError, match="no method but GET is allowed"):
        looker.link()
    looker.close()


def test_a_link_gives_one_browser_a_cookie_once(served: Served, client: search.Client) -> None:
    for link, may_write in ((client.link(read_only=False), True), (client.link(), False)):
        with httpx2.Client(trust_env=False) as browser:
            assert "code=" in link
            for _ in range(2):  # as what previews links does, which spends none
                shown = browser.get(link)
                assert (shown.status_code, 'method="post"' in shown.text) == (200, True)
                assert browser.get(f"{served.address}{API}/jobs").status_code == 401
            foreign = browser.post(link, headers={"Origin": "http://evil.example"})
            assert foreign.status_code == 403
            opened = browser.post(link, headers={"Origin": served.address})
            assert (opened.status_code, opened.headers["location"]) == (303, "/")
            cookie = opened.headers["set-cookie"]
            assert "HttpOnly" in cookie
            assert "SameSite=lax" in cookie
            assert browser.get(f"{served.address}{API}/jobs").status_code == 200
            path = f"{served.address}{API}/links"
            wrote = browser.post(path, json={}, headers={"Origin": served.address})
            assert wrote.status_code == (201 if may_write else 403)
            # Another site's page has the browser send the cookie along.
            for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
                assert browser.post(path, json={}, headers=headers).status_code == 403
        with httpx2.Client(trust_env=False) as other:
            spent = other.post(link)
            assert (spent.status_code, "<p>A link opens once" in spent.text) == (401, True)
            other.cookies.set(f"search-{served.address.rpartition(':')[2]}", "writer.9999999999.0")
            assert other.get(f"{served.address}{API}/jobs").status_code == 401


def test_a_name_that_another_site_gave_this_machine_is_refused(served: Served) -> None:
    for host, status in (("evil.example", 421), ("localhost", 200), ("127.0.0.1:1", 200)):
        answer = served.call("GET", f"{API}/jobs", headers={"Host": host})
        assert answer.status_code == status, host


def test_a_request_of_any_size_is_refused(served: Served) -> None:
    large = b"[" + b"1," * 200_000
    assert served.call("POST", f"{API}/jobs", content=large).status_code == 413
    parts = (large[:50_000] for _ in range(20))
    assert served.call("POST", f"{API}/jobs", content=parts).status_code == 413
    for body in (b"[", b'{"budget": Infinity, "epochs": 1}', b'{"budget": NaN}', b"\xff", b"null"):
        answer = served.call(
            "POST", f"{API}/jobs", content=body, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code in (400, 422), body
        assert set(answer.json()["error"]) == {"type", "message"}


def test_a_client_names_no_file_outside_the_folders_that_are_served(
    served: Served, client: search.Client, tmp_path: Path
) -> None:
    folder = served.command.folder
    text = served.command("space", "standard").out
    (tmp_path / "secret.toml").write_text(text)
    (folder / "own.toml").write_text(text)
    (folder / "link.toml").symlink_to(tmp_path / "secret.toml")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "own").symlink_to(served.folder)
    (folder / "same.toml").hardlink_to(folder / "studies.db")
    job = client.submit(3000, 1, dataset="digits", study="own", space="own.toml")
    assert job.options["space"] == str(folder / "own.toml")
    outside = (
        *({"space": name} for name in (str(tmp_path / "secret.toml"), "../secret.toml")),
        *({"space": name} for name in ("link.toml", "/etc/passwd", "a\0b", "loop", "x" * 999)),
        *({"dataset": f"folder:{name}"} for name in ("/", "..", str(tmp_path), "")),
        *({name: "/tmp"} for name in ("data_dir", "artifacts", "worker_log")),
        *({"worker_log": f"{folder}/{name}/jobs/w"} for name in ("studies.db-service", "own")),
        *({"artifacts": f"{folder}/{name}"} for name in ("studies.db-service", "studies.db-wal")),
        *({"space": f"{folder}/{name}"} for name in ("studies.db-service/token", "own/token")),
        *({"space": f"{folder}/{name}"} for name in ("studies.db", "same.toml")),
        {"dataset": f"folder:{folder}/studies.db-service"},
        {"dataset": "tensors:x"},
    )
    for options in outside:
        given: dict[str, Any] = {"dataset": "digits", "study": "own", **options}
        with pytest.raises(InputError) as refused:
            client.submit(3000, 1, **given)
        assert "secret" not in str(refused.value).replace("secret.toml", "")
        assert re.search(
            "must lie below a folder|must be there|are known to the program|"
            "must have a name|there is no file|"
            "cannot be read|must be readable",
            str(refused.value),
        ), options


def test_many_reports_at_once_are_one_and_keep_nobody_else_waiting(
    served: Served, client: search.Client
) -> None:
    def ask() -> tuple[int, str]:
        name = {"name": "digits-3000x3"}
        answer = served.call("GET", "/report", served.read_token, params=name, timeout=None)
        return answer.status_code, answer.text

    with ThreadPoolExecutor(60) as threads:  # more than the server has for all other calls
        answers = [threads.submit(ask) for _ in range(60)]
        assert client.jobs() is not None
    ((status, page),) = {answer.result() for answer in answers}
    assert (status, "<h1" in page) == (200, True)
    assert ask() == (200, page)
    other = served.call("GET", "/report", params={"name": "other"})
    assert (other.status_code, other.json()["error"]["type"]) == (404, "UnknownStudyError")


def test_reports_of_several_studies_are_drawn_one_at_a_time(finished_folder: Path) -> None:
    with opened_database(f"sqlite:///{finished_folder / 'studies.db'}", create=False) as database:
        reports = Reports(database.storage)
        first = reports.ask("digits-3000x3")
        assert first is not None
        assert reports.ask("digits-3000x3") is first
        assert reports.ask("other") is None  # while the first is drawn
        page = first.result()
        again = reports.ask("digits-3000x3")
        assert again is not None
        assert again.result() is page  # as the study stands as it stood


def test_half_requests_take_nobodys_room(served: Served, client: search.Client) -> None:
    job = client.submit(3000, 1, study="room", **SMALL)
    port = int(served.address.rpartition(":")[2])
    with contextlib.ExitStack() as stack:
        watching = client.watch(job.number)
        assert next(watching)["state"] == "waiting"
        halves = []
        for n in range(450):
            half = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            half.settimeout(HANG_SECONDS)
            body = "GET / HTTP/1.1\r\nHost: localhost\r\nX-A: "
            if n % 2:
                body = "POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
            half.sendall(body.encode())
            halves.append(half)
        assert served.call("GET", f"{API}/jobs").status_code == 200
        for half in halves:  # which the server closes
            with contextlib.suppress(ConnectionResetError):
                while half.recv(4096):
                    pass
        client.cancel(job.number)
        assert "cancelled" in [event.get("state") for event in watching]


def test_nobody_says_from_where_it_calls(served: Served) -> None:
    with httpx2.Client(trust_env=False, base_url=served.address) as caller:
        statuses = (  # until it is refused, however slowly this machine calls
            caller.get(f"{API}/jobs", headers={"X-Forwarded-For": f"9.9.9.{n}"}).status_code
            for n in range(1000)
        )
        assert 429 in statuses
    assert served.call("GET", f"{API}/jobs").status_code == 200
    for headers in ({"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = served.call("GET", f"{API}/jobs", headers=headers)
        assert answer.status_code == 403
        assert "must be one of its own" in answer.json()["error"]["message"]
        led = {**headers, "Sec-Fetch-Dest": "document"}
        assert served.call("GET", "/", headers=led).status_code == 200
    refused = served.command("serve", "--proxy", "here")
    assert (refused.code, "must be an address as numbers" in refused.err) == (2, True)


def test_an_artifact_may_do_nothing_in_the_servers_name(served: Served) -> None:
    (study,) = served.call("GET", "/api/studies").json()["study_summaries"]
    page = {"file": "data:text/html;base64,PGI+aGk8L2I+", "filename": "a.html"}
    made = served.call("POST", f"/api/artifacts/{study['study_id']}", json=page)
    assert made.status_code == 201, made.text
    path = f"/artifacts/{study['study_id']}/{made.json()['artifact_id']}"
    for each in (path, f"/{path}"):
        shown = served.call("GET", each)
        assert shown.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    shown = served.call("GET", path)
    assert (shown.text, shown.headers["content-type"]) == ("<b>hi</b>", "text/html")
    dashboard = served.call("GET", "/dashboard/").headers["content-security-policy"]
    # Also for a program that says nothing of what it takes.
    url = urlsplit(served.address)
    connection = HTTPConnection(url.hostname or "", url.port)
    connection.putrequest("GET", "/static/none.js", skip_accept_encoding=True)
    connection.putheader("Authorization", f"Bearer {served.token}")
    connection.endheaders()
    assert connection.getresponse().status == 404
    connection.close()
    assert "sandbox" not in dashboard


def test_a_link_is_printed_on_a_terminal(command: Command) -> None:
    ours, theirs = pty.openpty()
    words = command.words("serve", "--port", "0", "--slots", "0")
    with subprocess.Popen(
        words, cwd=command.folder, env=command.environment, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        printed = ""
        while "Ctrl-C" not in printed:
            printed += os.read(ours, 4096).decode()
        process.send_signal(signal.SIGTERM)
    os.close(ours)
    assert "/login?code=" in printed


def test_what_becomes_of_jobs_is_told_from_where_a_client_left(
    served: Served, client: search.Client
) -> None:
    job = client.submit(3000, 1, study="told", **SMALL)
    client.cancel(job.number)
    events = list(client.watch(job.number))
    assert [event["event"] for event in events] == ["job"]
    assert events[0]["state"] == "cancelled"
    # From the first one; and where the last one was of a database that was deleted since.
    for last in ("0", f"{10**15}"):
        assert states_until_cancelled(served, job.number, last) == ["waiting", "cancelled"]


def states_until_cancelled(served: Served, number: int, last: str) -> list[str]:
    """What the events tell of a job behind the last one that a client had."""
    headers = {"Authorization": f"Bearer {served.token}", "Last-Event-ID": last}
    states: list[str] = []
    with (
        httpx2.Client(trust_env=False, headers=headers) as http,
        http.stream("GET", f"{served.address}{API}/events") as stream,
    ):
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.iter_lines()
        while "cancelled" not in states:
            line = next(lines)
            if line.startswith("data:"):
                values = json.loads(line.removeprefix("data:"))
                if values["job"] == number:
                    states.append(values["kind"])
    return states


def test_the_files_of_tokens_are_the_users_alone(served: Served, tmp_path: Path) -> None:
    for name in ("token", "read-token"):
        path = served.folder / name
        assert path.stat().st_mode & 0o777 == 0o600
    assert served.folder.stat().st_mode & 0o777 == 0o700
    Access(tmp_path)
    (tmp_path / "token").chmod(0o640)
    with pytest.raises(InputError, match="must be readable by its user alone"):
        Access(tmp_path)


def test_an_address_that_asks_too_often_waits(tmp_path: Path) -> None:
    """Of the guard itself: a server in a test would refuse the next one, too."""
    statuses: list[int] = []
    access = Access(tmp_path)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def ask(n: int, token: str) -> None:
        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        headers = [(b"host", b"localhost"), (b"authorization", f"Bearer {token}".encode())]
        scope = {"type": "http", "method": "GET", "path": "/", "headers": headers}
        for _ in range(n):
            await guard({**scope, "client": ("10.0.0.1", 1)}, None, send)  # type: ignore[arg-type]

    guard = Guard(application, access, hosts=(), cookie="search")
    asyncio.run(ask(31, "wrong"))
    assert statuses == [401] * 30 + [429]
    statuses.clear()
    token = (tmp_path / "token").read_text().strip()
    assert access.role_of_token(token) is Role.WRITER
    asyncio.run(ask(1300, token))
    assert statuses == [200] * 1200 + [429] * 100


def answered(access: Access, headers: dict[bytes, bytes], *, ends: bool = False) -> list[Any]:
    """What a guard sends of an application that answers nothing, to who asks it with headers."""
    sent: list[Any] = []

    async def application(_scope: Any, _receive: Any, _send: Any) -> None:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    async def ask() -> None:
        guard = Guard(application, access, hosts=(), cookie="search")
        every = {b"host": b"localhost", **headers}.items()
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [*every]}
        call: Any = guard({**scope, "client": ("10.0.0.1", 1)}, None, send)  # type: ignore[arg-type]
        answer = asyncio.create_task(call)
        await asyncio.sleep(0.1)
        if ends:
            answer.cancel()  # as Uvicorn does
        await answer

    asyncio.run(ask())
    return sent


def test_a_browser_is_refused_by_a_page(tmp_path: Path) -> None:
    start, body = answered(Access(tmp_path), {b"accept": b"text/html,*/*"})
    assert start["status"] == 401
    assert (b"content-type", b"text/html; charset=utf-8") in start["headers"]
    assert b"<p>A call must have" in body["body"]


def test_whoever_waits_for_an_answer_is_told_that_the_server_ends(tmp_path: Path) -> None:
    access = Access(tmp_path)
    token = (tmp_path / "token").read_text().strip()
    start, body = answered(access, {b"authorization": f"Bearer {token}".encode()}, ends=True)
    assert (start["status"], b"The server ends" in body["body"]) == (503, True)


def test_commands_find_a_server_elsewhere_by_its_address(
    served: Served, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEARCH_SERVER", served.address)
    monkeypatch.setenv("SEARCH_TOKEN", served.token)
    with search.Client() as client:
        assert client.url == served.address
    monkeypatch.undo()
    command.environment["SEARCH_TOKEN"] = served.token
    words = ("--dataset", "digits", "--budget", "3000", "--epochs", "1", "--study", "far")
    done = command("submit", *words, "--server", served.address, "--json")
    assert done.code == 0, done.err
    assert not list(command.folder.iterdir())
    command.environment["SEARCH_SERVER"] = served.address
    assert done.json["number"] in [job["number"] for job in command("queue", "--json").json]
    assert command("cancel", "far").code == 0
    assert "far is held" not in command("stop", "far").out
    assert command("link").out.startswith(f"{served.address}/login?code=")
    del command.environment["SEARCH_TOKEN"]
    nameless = command("queue")
    assert (nameless.code, "must be given a token" in nameless.err) == (2, True)
    command.environment.update(SEARCH_TOKEN="wrong")
    assert command("queue").code == 1
    gone = command("queue", "--server", "http://127.0.0.1:9")
    assert (gone.code, "A server must answer, but" in gone.err) == (1, True)
