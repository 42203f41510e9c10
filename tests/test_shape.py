"""The shape of the project: which file may import what, and what is documented."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_cli import COMMANDS

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*ROOT.glob("models/*.py"), *ROOT.glob("search/**/*.py")])

# What these may not meet, however indirectly.
WITHOUT_OPTUNA = (
    "training",
    "workers",
    "jobs",
    "worker_loop",
    "process_pool",
    "ray_workers",
    "augment",
    "data",
    "weights",
    "repeats",
    "engines",
    "ablation",
)
WITHOUT_TORCH = (
    "hyperparameters",
    "ablation",
    "baselines",
    "space",
    "exceptions",
    "summary",
    "study",
    "report",
    "report_pictures",
    "request",
    "compare",
    "cli.report_page",
)


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    """What a file imports, modules and names; what is for type checkers alone does not count."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


OWN = {module_name(path): path for path in SOURCES}


def reach(start: str, *, top_level_only: bool) -> set[str]:
    """All that importing a module brings along, by the files' own imports."""
    seen: set[str] = set()
    queue = [start]
    while queue:
        name = queue.pop()
        if name not in seen:
            seen.add(name)
            if name in OWN:
                queue.extend(imports(OWN[name], top_level_only=top_level_only))
    return seen


def floors() -> dict[str, int]:
    """The floor of each file, from the table in CONTRIBUTING.md."""
    rows = re.findall(r"^\| (\d+) \| `([^`]+)` \|", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    return {name.removesuffix(".py").strip("/").replace("/", "."): int(n) for n, name in rows}


def test_every_file_stands_on_a_floor_above_all_that_it_imports() -> None:
    by_name = floors()
    for name, path in OWN.items():
        if path.name in ("__init__.py", "__main__.py"):
            continue
        own = by_name["search.cli" if name.startswith("search.cli.") else name]
        for imported in imports(path) & set(by_name):
            assert by_name[imported] < own, f"{name} imports {imported}"


@pytest.mark.parametrize("path", [p for p in SOURCES if p.parent.name == "models"], ids=str)
def test_models_know_nothing_of_the_search(path: Path) -> None:
    assert not {name for name in imports(path) if name.split(".")[0] in ("search", "optuna")}


@pytest.mark.parametrize("name", WITHOUT_OPTUNA)
def test_training_never_meets_optuna(name: str) -> None:
    brought = reach(f"search.{name}", top_level_only=False)
    assert not {found for found in brought if found.split(".")[0] == "optuna"}


@pytest.mark.parametrize("name", [*(f"search.{n}" for n in WITHOUT_TORCH), "models.size"])
def test_descriptions_never_meet_torch(name: str) -> None:
    brought = reach(name, top_level_only=True)
    assert not {found for found in brought if found.split(".")[0] == "torch"}


@pytest.mark.parametrize("code", ["import search", "import search.cli"])
def test_importing_the_package_brings_neither_torch_nor_optuna(code: str) -> None:
    slow = {"torch", "optuna", "rich", "matplotlib"}
    check = f"{code}; import sys; sys.exit(bool({slow} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", check], check=True, cwd=ROOT)


def test_every_promise_stands_beside_a_test_that_is_there() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text()
    rows = re.findall(r"^\| .* \| (.*) \|$", page.split("## When a trial")[0], re.M)
    promises = [row for row in rows if row not in ("test", "---")]
    assert len(promises) > 30
    for row in promises:
        places = re.findall(r"`(test_\w+\.py)`((?:[^`]|`test_\w+`)*)", row)
        assert places, row
        for file, names in places:
            text = (ROOT / "tests" / file).read_text()
            named = re.findall(r"`(test_\w+)`", names)
            assert named, row
            for name in named:
                assert f"def {name}(" in text, f"{file} has no {name}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented(name: str) -> None:
    assert f"search {name}" in (ROOT / "README.md").read_text()


def test_only_the_modules_of_pictures_meet_matplotlib() -> None:
    found = {
        name
        for name, path in OWN.items()
        if any(imported.split(".")[0] == "matplotlib" for imported in imports(path))
    }
    assert found == {"search.pictures", "search.report_pictures"}


def test_only_the_pool_of_actors_meets_ray_and_nothing_brings_it_unasked() -> None:
    found = {
        name
        for name, path in OWN.items()
        if any(imported.split(".")[0] == "ray" for imported in imports(path))
    }
    assert found == {"search.ray_workers"}
    brought = [name for name in set(OWN) - found if found & reach(name, top_level_only=True)]
    assert not brought


def test_no_file_names_a_lock_or_a_registry() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert "uv.lock" not in tracked
    for name in tracked:
        text = (ROOT / name).read_bytes()
        assert b"files.python" + b"hosted.org" not in text, name
        assert b"pypi." + b"org" not in text, name
