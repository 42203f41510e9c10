"""The web server with TLS before it that docs/service.md has: a real nginx, with those lines."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import httpx2
import pytest

import search
from tests.conftest import Command, wait_until
from tests.service.test_serve import SEARCH
from tests.support.servers import free_port

NAME = "searches.example.org"
API = "/api/v1"
# What those lines stand in: all that nginx writes lies in a folder of the test's.
CONFIGURATION = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    {temporary}
    {server}
}}
"""
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def make_certificate(folder: Path) -> None:
    subject = ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"]
    files = ["-keyout", f"{folder}/searches.key", "-out", f"{folder}/searches.pem"]
    words = ["openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "1"]
    subprocess.run([*words, *subject, *files], check=True, capture_output=True)


def test_a_browser_reaches_the_server_through_nginx_as_the_page_says(command: Command) -> None:
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if nginx is None:
        pytest.skip("there is no nginx: apt-get install nginx-light")
    page = (Path(__file__).parents[2] / "docs" / "service.md").read_text()
    (server,) = re.findall(r"^```nginx\n(.*?)^```", page, re.M | re.S)
    inner, outer = free_port(), free_port()
    folder = command.folder / "nginx"
    folder.mkdir()
    make_certificate(folder)
    for before, after in (
        ("listen 443 ssl", f"listen 127.0.0.1:{outer} ssl"),
        ("/etc/ssl/", f"{folder}/"),
        ("127.0.0.1:8765", f"127.0.0.1:{inner}"),
    ):
        assert before in server
        server = server.replace(before, after)
    temporary = " ".join(f"{name}_temp_path {folder}/{name};" for name in TEMPORARY)
    text = CONFIGURATION.format(folder=folder, temporary=temporary, server=server)
    (folder / "nginx.conf").write_text(text)
    words = ["--allow-host", NAME, "--proxy", "127.0.0.1"]
    serving = command.start("serve", "--slots", "0", "--port", str(inner), *words)
    proxy = command.start_words([nginx, "-p", str(folder), "-c", str(folder / "nginx.conf")])
    serving.stdout.readline()
    job = command("submit", *SEARCH, "--epochs", "1", "--study", "seen", "--json").json
    wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", outer)) == 0)
    # A name that no resolver knows, at the address where it is.
    with (
        search.Client(f"http://127.0.0.1:{inner}", token=token_of(command)) as client,
        httpx2.Client(
            base_url=f"https://127.0.0.1:{outer}", verify=False, trust_env=False
        ) as browser,
    ):
        browser.headers["Host"] = f"{NAME}:{outer}"
        code = client.link(read_only=False).rpartition("/")[2]
        assert browser.get("/").status_code == 401
        assert "Open the page" in browser.get(code).text
        origin = {"Origin": f"https://{NAME}:{outer}", "Sec-Fetch-Site": "same-origin"}
        assert browser.post(code, headers={"Origin": "https://evil.example"}).status_code == 403
        opened = browser.post(code, headers=origin)
        assert (opened.status_code, opened.headers["location"]) == (303, "/")
        cookie = opened.headers["set-cookie"]
        assert "Secure" in cookie  # as the browser speaks TLS, though the server does not
        browser.headers["Cookie"] = cookie.partition(";")[0]
        assert "seen" in browser.get("/").text
        assert browser.get("/page.js").status_code == 200
        assert "Optuna Dashboard" in browser.get("/dashboard/").text
        assert browser.get("/api/studies").json()["study_summaries"] == []
        made = browser.post(f"{API}/links", json={}, headers=origin)
        assert made.json()["url"].startswith(f"https://{NAME}:{outer}/login?code=")
        with browser.stream("GET", f"{API}/jobs/{job['number']}/events") as stream:
            lines = stream.iter_lines()
            assert next(line for line in lines if "waiting" in line)  # at once, not at its end
            path = f"{API}/jobs/{job['number']}/cancel"
            assert browser.post(path, headers=origin).status_code == 200
            assert [line for line in lines if line.startswith("event:")][-1] == "event: over"
    for process in (proxy, serving):
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
    assert not (folder / "error.log").read_text()


def token_of(command: Command) -> str:
    return (command.folder / "studies.db-service" / "token").read_text().strip()
