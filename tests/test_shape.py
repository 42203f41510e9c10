"""The shape of the project: which file may import what, and what is documented."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_cli import COMMANDS

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*ROOT.glob("models/*.py"), *ROOT.glob("search/**/*.py")])

# What a file may not import, at its top or inside a function.
WITHOUT_OPTUNA = ("training", "workers", "augment", "data", "weights", "repeats")
WITHOUT_TORCH = ("hyperparameters", "baselines", "space", "exceptions", "summary", "study")


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    """The modules that a file imports; those for type checkers alone do not count."""
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
            found.add(node.module)
    return found


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def reach(start: str) -> set[str]:
    """All modules that importing one brings along, by the files' own imports."""
    own = {module_name(path): path for path in SOURCES}
    seen: set[str] = set()
    queue = [start]
    while queue:
        name = queue.pop()
        if name not in seen:
            seen.add(name)
            if name in own:
                queue.extend(imports(own[name], top_level_only=True))
    return seen


@pytest.mark.parametrize("path", [p for p in SOURCES if p.parent.name == "models"], ids=str)
def test_models_know_nothing_of_the_search(path: Path) -> None:
    assert not {name for name in imports(path) if name.split(".")[0] in ("search", "optuna")}


@pytest.mark.parametrize("name", WITHOUT_OPTUNA)
def test_training_never_meets_optuna(name: str) -> None:
    assert not {found for found in reach(f"search.{name}") if found.split(".")[0] == "optuna"}


@pytest.mark.parametrize("name", [*(f"search.{n}" for n in WITHOUT_TORCH), "models.size"])
def test_descriptions_never_meet_torch(name: str) -> None:
    assert not {found for found in reach(name) if found.split(".")[0] == "torch"}


def test_no_file_imports_in_a_circle() -> None:
    for path in SOURCES:
        name = module_name(path)
        for imported in imports(path, top_level_only=True):
            assert imported == name or name not in reach(imported), (name, imported)


@pytest.mark.parametrize("code", ["import search", "import search.cli"])
def test_importing_the_package_brings_neither_torch_nor_optuna(code: str) -> None:
    check = f"{code}; import sys; sys.exit(bool({{'torch', 'optuna', 'rich'}} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", check], check=True, cwd=ROOT)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented(name: str) -> None:
    assert f"search {name}" in (ROOT / "README.md").read_text()


def test_no_file_names_a_lock_or_a_registry() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert "uv.lock" not in tracked
    for name in tracked:
        text = (ROOT / name).read_bytes()
        assert b"files.python" + b"hosted.org" not in text, name
        assert b"pypi." + b"org" not in text, name
