"""The server's page in a real browser: a search submitted, watched and stopped by its buttons."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import httpx2
import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

import search
from search.service.database import opened_database
from search.service.folder import is_locked
from search.service.jobs import JobState, now
from search.service.tables import jobs
from tests.conftest import Command
from tests.support.prepared import HANG_SECONDS

STUDY = "digits-3000x3"
Served: TypeAlias = tuple[search.Client, str, str]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        path = shutil.which(name)
        if path is not None:
            break
    else:
        pytest.skip("there is no Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--no-proxy-server"]
        )
        expect.set_options(timeout=1000 * HANG_SECONDS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def served(finished_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A client of a server, a link that opens its page to change, and its database."""
    folder = tmp_path_factory.mktemp("page")
    shutil.copytree(finished_folder, folder, dirs_exist_ok=True)
    command = Command(folder)
    process = command.start("serve", "--port", "0")
    first, _, _ = (process.stdout.readline() for _ in range(3))
    (address,) = re.findall(r"http://127\.0\.0\.1:\d+", first)
    token = (folder / "studies.db-service" / "token").read_text().strip()
    with search.Client(address, token=token) as client:
        yield client, client.link(read_only=False), f"sqlite:///{command.database}"
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0
    for path in (folder / "studies.db-service" / "jobs").glob("*.pid"):
        if is_locked(path.with_suffix(".lock")):  # of a test that failed
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(path.read_text()), signal.SIGKILL)


@contextlib.contextmanager
def opened(browser: Browser, link: str, **options: object) -> Iterator[Page]:
    """A page in a browser of its own; at the end, nothing has gone wrong in it."""
    context = browser.new_context(**options)  # type: ignore[arg-type]
    page = context.new_page()
    page.set_default_timeout(1000 * HANG_SECONDS)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    # What is refused is shown on the page; the browser notes it as well.
    page.on(
        "console",
        lambda line: (
            errors.append(line.text)
            if line.type == "error" and "status of 422" not in line.text
            else None
        ),
    )
    page.goto(link)
    page.get_by_role("button", name="Open the page").click()
    yield page
    context.close()
    assert not errors


def add_ended_job(url: str) -> None:
    """A job of the study that was searched before."""
    ended = jobs.insert().values(
        state=str(JobState.DONE),
        place=0,
        options='{"budget": 3000, "epochs": 3, "dataset": "digits"}',
        study=STUDY,
        submitted=now(),
        n_starts=1,
        n_deaths=0,
        progress='{"n_trials": 4, "n_trained": 4, "best_value": 0.9}',
    )
    with opened_database(url, create=False) as database:
        database.write(lambda connection: connection.execute(ended))


def row(page: Page, name: str) -> Locator:
    return page.locator(".row", has_text=name)


def test_a_search_is_submitted_watched_and_stopped_by_its_buttons(
    browser: Browser, served: Served
) -> None:
    client, link, _ = served
    with opened(browser, link) as page:
        expect(page.get_by_text("Nothing runs.")).to_be_visible()
        page.get_by_text("Submit a search").click()
        for label, value in (("Fewer parameters", "3000"), ("Epochs", "400"), ("Images", "digits")):
            page.get_by_label(label).fill(value)
        page.get_by_label("Trials").fill("2")
        page.get_by_label("Workers").fill("1")
        page.get_by_label("Time limit").fill("90")
        for name in ("long", "<b>other</b>", "third"):
            page.get_by_label("Name of the study").fill(name)
            page.get_by_label("before all that waits").set_checked(name == "third")
            page.get_by_role("button", name="Submit").click()
            expect(page.get_by_text(name).first).to_be_visible()
        assert client.job(1).options["timeout_seconds"] == 5400
        page.get_by_label("Name of the study").fill(" x ")
        page.get_by_role("button", name="Submit").click()
        expect(page.get_by_role("alert")).to_contain_text("The name of a study must be")

        running = page.locator("article[data-running='1']")
        expect(running.locator("polyline.running")).to_be_visible()
        expect(running.get_by_text("0 of 2 trials")).to_be_visible()
        expect(page.locator(".row").first).to_contain_text("third")
        row(page, "<b>other</b>").get_by_role("button", name="Run next").click()
        expect(page.locator(".row").first).to_contain_text("<b>other</b>")
        row(page, "third").get_by_role("button", name="Hold").click()
        expect(row(page, "third")).to_contain_text("is stopped")
        row(page, "<b>other</b>").get_by_role("button", name="Cancel").click()
        expect(row(page, "<b>other</b>")).to_contain_text("is cancelled")
        row(page, "third").get_by_role("button", name="Cancel").click()
        expect(row(page, "third")).to_contain_text("is cancelled")
        row(page, "third").get_by_role("button", name="Resume").click()
        expect(row(page, "third").get_by_role("button", name="Hold")).to_be_visible()
        row(page, "third").get_by_role("button", name="Cancel").click()
        expect(row(page, "third")).to_contain_text("is cancelled")
        running.get_by_role("button", name="Stop").click()
        expect(row(page, "long")).to_contain_text("is stopped")
        assert client.job(1).state == "stopped"
        row(page, "long").get_by_role("button", name="Resume").click()
        running.get_by_role("button", name="Cancel").click()
        expect(row(page, "long")).to_contain_text("is cancelled")
        row(page, "long").get_by_role("link", name="log").click()
        expect(page.get_by_text("Interrupted.")).to_be_visible()


def test_a_telephone_looks_and_cannot_change_anything(browser: Browser, served: Served) -> None:
    client = served[0]
    telephone = {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark"}
    held = client.submit(3000, 1, dataset="digits", study="a-long-name-" * 6)
    client.stop(held.number)
    add_ended_job(served[2])
    with opened(browser, client.link(), **telephone) as page:
        expect(row(page, "a-long-name")).to_contain_text("is stopped")
        assert page.locator("button").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        background = page.evaluate("getComputedStyle(document.body).color")
        assert background == "rgb(255, 255, 255)"  # light letters: it is dark
        page.get_by_role("link", name="HTTP").click()
        expect(page.get_by_text("POST /api/v1/jobs", exact=True)).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.get_by_role("link", name="Searches").click()
        row(page, STUDY).get_by_role("link", name="report").click()
        expect(page.get_by_role("heading", name=STUDY).first).to_be_visible()


def test_the_dashboard_stands_behind_the_same_token(browser: Browser, served: Served) -> None:
    client = served[0]
    with httpx2.Client(trust_env=False) as nobody:
        for path in ("/dashboard/", "/api/studies", "/static/bundle.js", "/csv/1"):
            assert nobody.get(f"{client.url}{path}").status_code == 401
    with opened(browser, client.link()) as page:
        page.get_by_role("link", name="All trials").click()
        expect(page.get_by_text(STUDY).first).to_be_visible()
        for method, path in (("DELETE", "/api/studies/1"), ("POST", "/api/studies/1/rename")):
            answer = page.request.fetch(f"{client.url}{path}", method=method, data={"a": "b"})
            assert answer.status == 403
    assert [study["name"] for study in client.studies() if study["name"] == STUDY]
