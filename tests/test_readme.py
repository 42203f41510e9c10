"""What README and the pages of `docs/` say: each command is run, each link leads somewhere."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from PIL import Image

from tests.conftest import DIGITS_RUN, Command, Result
from tests.support.photographs import photograph

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]

# What trains is a small study that is there already, under the names that the pages use.
SMALL = (*DIGITS_RUN, "--study", "digits-3000x3", "--trials", "4", "--no-confirm")
SUBSTITUTES = {
    "search run --budget 8000 --epochs 15": SMALL,
    "search run --budget 8000 --epochs 15 --trials 100": SMALL,
    "search run --budget 8000 --epochs 15 --space my-space.toml --study my-study": (
        *(*DIGITS_RUN, "--epochs", "1", "--trials", "1"),
        *("--space", "my-space.toml", "--study", "my-study"),
    ),
    "search show 17": ("show", "2"),
    "search baseline three-step-3 --seeds 3": (
        *("baseline", "three-step-3", "--dataset", "digits", "--epochs", "1"),
    ),
    "search delete mnist-5000x15": ("delete", "mnist-5000x15", "--yes"),
    "search retrain --seeds 3 --out weights": ("retrain", "--seeds", "1", "--out", "weights"),
}

# What takes long, or needs more than a folder, runs in a test of its own, with these words.
RUN = '"run"'
OWN_NETWORK = (
    "tests/cli/test_own_network.py",
    (
        '("run", "--network", "net.py"',
        '"show", str(trial.number), "--network", "net.py"',
        '["confirm"]',
        '"retrain", "--seeds", "1", "--network", "net.py"',
        '"ablate", "--seeds", "1", "--network", "net.py"',
        '"report", "--train", "--network", "net.py"',
        '"pictures", "weights", "--network", "net.py"',
        '"predict", "weights", "p.png", "--network", "net.py"',
        '"export", "weights", "--out", "network.onnx", "--network", "net.py"',
        '"baseline", "whole.py", "--dataset", "digits"',
    ),
)
ELSEWHERE = {
    "search run --network net.py --budget 8000 --epochs 15": OWN_NETWORK,
    "search show 17 --network net.py": OWN_NETWORK,
    "search confirm --network net.py": OWN_NETWORK,
    "search retrain --network net.py": OWN_NETWORK,
    "search ablate --network net.py": OWN_NETWORK,
    "search report --train --network net.py": OWN_NETWORK,
    "search pictures WEIGHTS --network net.py": OWN_NETWORK,
    "search predict WEIGHTS photo.png --network net.py": OWN_NETWORK,
    "search export WEIGHTS --out net.onnx --network net.py": OWN_NETWORK,
    "search baseline net.py --dataset digits --epochs 15 --seeds 3": OWN_NETWORK,
    "pip install uv": (".ci/run", ("pip install --quiet uv",)),
    "uv run --group dev pytest": (".ci/run", ("uv run --group dev pytest",)),
    "uv sync --inexact --extra onnx": ("pyproject.toml", ("onnx = [", '"onnx>=', '"onnxruntime>=')),
    "uv sync --inexact --extra postgresql": (
        "pyproject.toml",
        ("postgresql = [", '"psycopg[binary]>='),
    ),
    "uv sync --inexact --extra ray": ("pyproject.toml", ("ray = [", '"ray>=')),
    "search run --budget 8000 --epochs 15 --engine ray --ray-address auto": (
        "tests/workers/test_ray.py",
        ('"--engine", "ray"', '"--ray-address", cluster.address'),
    ),
    "python best.py --data DIR": ("tests/export/test_export.py", ("load_data(str(mnist_dir))",)),
    "search run --budget 8000 --epochs 15 --storage postgresql+psycopg://user@host/database": (
        "tests/storage/test_databases.py",
        ('DIGITS_RUN, "--storage", url', "postgres"),
    ),
    "search run --budget 8000 --epochs 15 --trials 500": (
        "tests/tuner/test_hosts.py",
        ('"--storage", url', "hosts: tuple[Command, Command]"),
    ),
    "search run --dataset folder:photos --budget 8000 --epochs 15": (
        "tests/data/test_own_data.py",
        (RUN, '"--dataset"', "folder:"),
    ),
    "search run --dataset folder:photos --budget 8000 --epochs 15 --metric balanced-accuracy": (
        "tests/data/test_own_data.py",
        (RUN, '"--metric", "balanced-accuracy"'),
    ),
    "search run --budget 8000 --epochs 15 --objective accuracy,size": (
        "tests/cli/test_front.py",
        (RUN, '"--objective", "accuracy,size"'),
    ),
    "search run --budget 8000 --epochs 15 --target 99.4": (
        "tests/tuner/test_target.py",
        (RUN, '"--target"'),
    ),
    "search run --budget 5000 --epochs 15 --from-study mnist-8000x15": (
        "tests/tuner/test_warm_start.py",
        (RUN, '"--from-study"'),
    ),
    "search run --budget 8000 --epochs 15 --json --quiet": (
        "tests/cli/test_events.py",
        ('"--json"', '"--quiet"'),
    ),
    "search serve": ("tests/service/test_serve.py", ('command.start("serve"',)),
    "search watch mnist-8000x15": ("tests/service/test_serve.py", ('command.start("watch", "1")',)),
    "search logs 3": ("tests/service/test_serve.py", ('command("logs", "1")',)),
    "search stop mnist-8000x15": ("tests/service/test_serve.py", ('command("stop", "long")',)),
    "search resume mnist-8000x15": ("tests/service/test_serve.py", ('command("resume", "long")',)),
    "search cancel 3": ("tests/service/test_serve.py", ('command("cancel", "2")',)),
    "search link": ("tests/service/test_http.py", ('command("link")',)),
    "search move 3 --first": ("tests/service/test_serve.py", ('command("move", "3", "--first")',)),
    "search dashboard": ("tests/report/test_dashboard.py", ('"dashboard"',)),
    "search confirm --top 5 --seeds 5": (
        "tests/results/test_confirm.py",
        ('"confirm"', '"--top"', '"--seeds"'),
    ),
    "search ablate": ("tests/results/test_ablate.py", ('"ablate"',)),
    "search ablate --seeds 5": ("tests/results/test_ablate.py", ('"ablate"', '"--seeds"')),
    "search retrain": ("tests/conftest.py", ('"retrain"',)),
    "search retrain --seeds 3": ("tests/conftest.py", ('"retrain", "--seeds"',)),
    "search retrain --trial 17 --seeds 1 --out weights": (
        "tests/results/test_retrain.py",
        ('"retrain"', '"--trial"', '"--seeds"', '"--out"'),
    ),
    "search pictures weights": ("tests/report/test_pictures.py", ('"pictures"',)),
    "search report --study mnist-8000x15": (
        "tests/report/test_report.py",
        ('"report"', '"--study"'),
    ),
    "search doctor": ("tests/cli/test_cli.py", ('"doctor"',)),
}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S)


PROGRAMS = ("search", "uv ", "pip ", "python ")


def commands(page: Path) -> list[str]:
    """The commands of a page, without what a shell adds."""
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    found = []
    for line in lines:
        for part in re.split(r" && | \| ", re.split(r" +# ", line)[0]):
            command = part.strip().replace("uv run search", "search")
            if command.startswith(PROGRAMS):
                found.append(command)
    return found


ALL = sorted({command for page in PAGES for command in commands(page)})


@pytest.fixture(scope="module")
def folder(retrained: tuple[Command, Result], tmp_path_factory: pytest.TempPathFactory) -> Command:
    """A folder in which all is there that the pages name."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(retrained[0].folder, folder, dirs_exist_ok=True)
    shutil.copytree(folder / "weights", folder / "runs" / "mnist-8000x15" / "trial-17")
    command = Command(folder)
    url = f"sqlite:///{command.database}"
    for name in ("mnist-8000x15", "mnist-5000x15"):
        optuna.copy_study(
            from_study_name="digits-3000x3",
            from_storage=url,
            to_storage=url,
            to_study_name=name,
        )
    one = torch.zeros(28, 28, dtype=torch.uint8)
    one[5:23, 12:16] = 255
    for name in ("photo.jpg", "7.jpg"):
        (folder / name).write_bytes(photograph(one, seed=0))
    Image.fromarray(one.numpy()).save(folder / "scan.png")
    (folder / "my-space.toml").write_text(command("space", "wide").out)
    return command


@pytest.mark.parametrize("text", ALL)
def test_each_command_of_the_pages_runs(text: str, folder: Command, tmp_path: Path) -> None:
    if text in ELSEWHERE:
        file, words = ELSEWHERE[text]
        source = (ROOT / file).read_text()
        missing = [word for word in words if word not in source]
        assert not missing, f"{file} runs no {missing}"
        return
    line, _, out = text.partition(" > ")
    words = SUBSTITUTES.get(line, tuple(shlex.split(line)[1:]))
    command = Command(Path(shutil.copytree(folder.folder, tmp_path / "copy")))
    done = command(*words)
    assert done.code == 0, done.err
    assert not out or done.out


def test_no_substitute_is_left_over() -> None:
    assert set(SUBSTITUTES) | set(ELSEWHERE) <= set(ALL)


def test_python_of_the_readme_runs(folder: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.folder)
    (code,) = blocks(ROOT / "README.md", "python")
    names: dict[str, Any] = {"images": torch.zeros(2, 1, 28, 28, dtype=torch.uint8)}
    exec(code, names)
    assert names["logits"].shape == (2, 10)


def anchors(page: Path) -> set[str]:
    """The headings of a page, as links name them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text()
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|srcset)="([^"]+)"', text)
    for link in links:
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {link}"


def test_the_index_has_every_page() -> None:
    index = (DOCS / "README.md").read_text()
    missing = [page.name for page in DOCS.glob("*.md") if f"]({page.name})" not in index]
    assert missing == ["README.md"]


def test_no_text_stands_twice() -> None:
    """A paragraph of more than a few words is on one page."""
    seen: dict[str, str] = {}
    for page in PAGES:
        prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
        for paragraph in prose.split("\n\n"):
            words = " ".join(paragraph.split())
            if len(words.split()) > 12:
                assert words not in seen, f"{page.name} and {seen[words]}: {words}"
                seen[words] = page.name
