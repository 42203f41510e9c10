"""optuna-dashboard in a real browser: pages are opened, found by clicking, and read."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from search.plain_text import printable
from search.report.dashboard_sync import DashboardSync
from search.storage.open import opened_storage
from search.study.open import open_study, rebuild
from search.study.summary import ABLATES, CONFIRMS, repeats_name
from tests.conftest import Command
from tests.report.test_dashboard import start_dashboard
from tests.support.made_studies import MadeTrial, confirmation, make_study

STUDY = "digits-3000x3"
STRANGE = "folder:/<h1>**photos**</h1>|`www.example.org`\n\n# ![x](y)\x1b[2J ``` <script>"
LARGE = "of-twenty"  # enough trials to tell importance from chance


@pytest.fixture(scope="module")
def chromium() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        path = shutil.which(name)
        if path is not None:
            return path
    pytest.skip("there is no Chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def served(
    finished_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Command]]:
    """The address of a dashboard, and the folder of its database."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(finished_folder, folder, dirs_exist_ok=True)
    command = Command(folder)
    url = f"sqlite:///{command.database}"
    rates = [0.02 * 1.05**number for number in range(20)]
    made = [
        MadeTrial([0.8, 0.9, 0.9 + 0.001 * number], values={"learning_rate": rate})
        for number, rate in enumerate(rates)
    ]
    make_study(url, LARGE, made)
    make_study(url, "strange", made[:1], dataset=STRANGE)
    with opened_storage(url, write=True) as storage:
        raced = confirmation(19, {4: (0.94, 0.95, 0.96), 19: (0.91, 0.92, 0.92)})
        make_study(url, "raced", made, attributes={"confirmation": raced})
        for purpose in (CONFIRMS, ABLATES):
            make_study(url, repeats_name("raced", purpose), [], attributes={purpose: "raced"})
        for name in (LARGE, "strange", "raced"):
            study = open_study(storage, name)
            DashboardSync(storage, study, folder / "studies.db-artifacts").update()
    process, address = start_dashboard(command)
    yield address, command
    command.stop()
    assert process.poll() is not None


@pytest.fixture(scope="module")
def page(chromium: str) -> Iterator[Page]:
    """A browser's page; at the end, nothing has gone wrong in it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--no-proxy-server"]
        )
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
        yield page
        browser.close()
        assert not errors


def open_study_page(page: Page, address: str, name: str) -> None:
    """From the start page, as a person does."""
    page.goto(address)
    page.get_by_text(name).first.click()
    expect(page.locator("[id='user-defined-plot:size'] .main-svg").first).to_be_visible()


def test_the_note_the_artifacts_and_a_trial_are_found_by_clicking(
    page: Page, served: tuple[str, Command]
) -> None:
    address, command = served
    best = command.study(STUDY).best_trial
    count = best.user_attrs["parameter_count"]
    open_study_page(page, address, STUDY)

    page.locator("a[href$='/note']").click()
    expect(page.get_by_role("heading", name=f"Best: trial {best.number}")).to_be_visible()
    expect(page.get_by_text(f"--study {STUDY}").first).to_be_visible()
    layers = page.locator("table", has_text="receptive field")
    expect(layers).to_contain_text(f"{count:,}")

    page.locator("a[href$='/trials']").click()
    page.get_by_text(f"Trial {best.number}", exact=True).click()
    expect(page.get_by_role("heading", name=re.compile(f"Trial {best.number} "))).to_be_visible()
    expect(
        page.get_by_text(f"parameter_count {best.user_attrs['parameter_count']}")
    ).to_be_visible()
    picture = page.locator(f"img[alt='trial-{best.number}.png']")
    expect(picture).to_be_visible()
    page.wait_for_function("picture => picture.naturalWidth === 720", arg=picture.element_handle())
    expect(page.get_by_text(f"trial-{best.number}.safetensors")).to_be_visible()
    network = page.get_by_text(f"network {rebuild(command.study(STUDY), best).spec}")
    expect(network).to_be_visible()
    # The box of attributes shows six of them: what has to be scrolled to is not seen.
    assert network.evaluate("text => text.offsetTop - text.parentElement.firstChild.offsetTop") == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 1400


def test_the_name_of_a_data_set_is_no_markup(page: Page, served: tuple[str, Command]) -> None:
    page.goto(served[0])
    page.get_by_text("strange").first.click()
    page.locator("a[href$='/note']").click()
    cell = page.locator("td", has_text="folder:").first
    expect(cell).to_be_visible()
    name = printable(STRANGE)
    assert name in cell.inner_text()
    note = page.locator("table", has_text="folder:").locator("xpath=..")
    assert note.locator("h1, img, script, a, strong:has-text('photos')").count() == 0
    (command,) = note.locator("pre", has_text="search run").all()
    assert "$'folder:/<h1>" in command.inner_text()
    assert "```" in command.inner_text()


def test_the_best_trial_is_the_one_of_the_note_and_runs_of_races_are_not_listed(
    page: Page, served: tuple[str, Command]
) -> None:
    page.goto(served[0])
    expect(page.get_by_text("4. raced")).to_be_visible()
    assert page.get_by_text(re.compile("raced-|-confirmed|-ablated")).count() == 0
    page.get_by_text("4. raced").click()
    page.screenshot(path="/tmp/bt/p.png", full_page=True)
    expect(page.get_by_text(re.compile(r"Best Trial \(number=4\)"))).to_be_visible()
    page.locator("a[href$='/note']").click()
    expect(page.get_by_role("heading", name="Best: trial 4")).to_be_visible()


def test_trials_are_sorted_by_their_parameter_counts(
    page: Page, served: tuple[str, Command]
) -> None:
    address, command = served
    open_study_page(page, address, STUDY)
    page.locator("a[href$='/smartSelection']").click()
    headings = page.locator("th").all_text_contents()
    column = next(i for i, text in enumerate(headings) if "parameter_count" in text)
    cells = page.locator(f"tbody tr td:nth-child({column + 1})")
    expect(cells).to_have_count(4)
    counts = [t.user_attrs["parameter_count"] for t in command.study(STUDY).trials]
    assert [int(text) for text in cells.all_text_contents()] == counts
    label = page.locator("th").nth(column).locator(".MuiTableSortLabel-root")
    orders = []
    for _ in range(2):
        label.click()
        orders.append([int(text) for text in cells.all_text_contents()])
    assert sorted(orders) == [sorted(counts), sorted(counts, reverse=True)]
    heights = [cell.bounding_box() for cell in cells.all()]
    assert all(box is not None and box["height"] < 120 for box in heights)


def test_the_graphs_of_a_study_are_drawn(page: Page, served: tuple[str, Command]) -> None:
    open_study_page(page, served[0], LARGE)
    for name, n_traces, title in (
        ("size", 2, "Accuracy against size"),
        ("learning", 2, "How the trials learnt"),
        ("importance", 1, "What sets the best trials apart"),
    ):
        graph = page.locator(f"[id='user-defined-plot:{name}']")
        expect(graph).to_contain_text(title)
        expect(graph.locator(".trace")).to_have_count(n_traces)
    size = page.locator("[id='user-defined-plot:size']")
    expect(size).to_contain_text("cap 3,000")
    buttons = size.locator(".modebar-btn:not(.modebar-btn--logo) path")
    fills = buttons.evaluate_all("paths => paths.map(path => getComputedStyle(path).fill)")
    assert {"rgb(102, 114, 127)"} <= set(fills) <= {"rgb(102, 114, 127)", "rgb(31, 95, 168)"}


def test_a_report_fits_a_telephone(page: Page, served: tuple[str, Command]) -> None:
    """Nothing on it has to be scrolled sideways."""
    _, command = served
    done = command("report", "--study", STUDY)
    assert done.code == 0, done.err
    before = page.viewport_size
    assert before is not None
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto((command.folder / done.out.splitlines()[0]).as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    widths = page.eval_on_selector_all(
        ".scroll", "boxes => boxes.map(box => [box.scrollWidth, box.clientWidth])"
    )
    assert len(widths) >= 4
    assert all(content <= box for content, box in widths), widths
    page.set_viewport_size(before)
