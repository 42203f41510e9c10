"""The shape of the project: which file may import what, and what is documented."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.cli.test_cli import COMMANDS

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*ROOT.glob("models/**/*.py"), *ROOT.glob("search/**/*.py")])
SCRIPTS = sorted(ROOT.glob("scripts/**/*.py"))
MOST_LINES = 400  # of a file, which is one concept; there are no exceptions

# The rooms, from the top down. A file imports from its own room and from those further down, never
# from a room that is named beside its own.
ROOMS = (
    ("search.cli", "search.api"),
    ("search.service",),
    ("search.tuner",),
    ("search.report",),
    ("search.export", "search.results"),
    ("search.study", "search.workers"),
    ("search.training",),
    ("search.space",),
    ("search.data", "search.storage", "search_models"),
    ("search",),  # what lies loose in the folder: all rooms use it
)
# What these may not meet, however indirectly.
WITHOUT_OPTUNA = ("search_models", "search.data", "search.training", "search.workers")
# These, in what importing them brings along.
WITHOUT_TORCH = ("search.space", "search.storage", "search.study", "search.service")
WITHOUT_TORCH_EITHER = (  # `search` and `--help`, and what reads a study
    "search",
    "search.cli",
    "search.tuner.request",
    "search.results.compare",
    "search.report.facts",
    "search.report.page",
    "search.report.pictures",
    "search_models.size",
)


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@functools.cache
def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    """What a file imports, modules and names; what is for type checkers alone does not count."""
    tree = parsed(path)
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
    """The name that a file of the package is imported by."""
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    return f"search_{name}" if path.is_relative_to(ROOT / "models") else name


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


def room(name: str) -> str:
    """The room that a module lies in."""
    named = [room for beside in ROOMS for room in beside if f"{name}.".startswith(f"{room}.")]
    return max(named, key=len)


def floor(name: str) -> int:
    """How far up a module's room is."""
    return next(n for n, beside in enumerate(reversed(ROOMS)) if room(name) in beside)


def in_rooms(rooms: Sequence[str]) -> list[str]:
    return [name for name in OWN if room(name) in rooms]


@pytest.mark.parametrize("name", [n for n in OWN if n not in ("search", "search.__main__")])
def test_a_file_imports_from_its_own_room_and_those_further_down(name: str) -> None:
    # The package's face names what its rooms offer, and loads it when it is asked for.
    for imported in (imports(OWN[name]) & set(OWN)) - {"search"}:
        assert room(imported) == room(name) or floor(imported) < floor(name), imported


def test_every_folder_is_a_room_with_a_face_that_says_its_job() -> None:
    rooms = {room for beside in ROOMS for room in beside} - {"search.api"}
    folders = {module_name(path) for path in ROOT.glob("search/**/__init__.py")} | {"search_models"}
    assert folders == rooms
    for name in [*rooms, "search_models.native"]:
        assert ast.get_docstring(parsed(OWN[name])), name


FOLDERS = sorted({path.parent for path in [*SOURCES, *SCRIPTS]} - {ROOT / "search"})


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_the_face_of_a_folder_says_which_file_does_what(folder: Path) -> None:
    face = ast.get_docstring(parsed(folder / "__init__.py")) or ""
    written = ("", ".py", ".cpp", ".html", ".jinja")
    files = {path.name for path in folder.iterdir() if path.is_file() and path.suffix in written}
    files.remove("__init__.py")
    if folder == ROOT / "search" / "cli":  # a command has a file of its name
        files -= {f"{command}.py" for command in COMMANDS}
    missing = {name for name in files if f"`{name}`" not in face}
    assert not missing


@pytest.mark.parametrize("path", [*SOURCES, *SCRIPTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_too_long_to_be_read_at_once(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES


@pytest.mark.parametrize("name", in_rooms(WITHOUT_OPTUNA))
def test_training_never_meets_optuna(name: str) -> None:
    brought = reach(name, top_level_only=False)
    assert not {found for found in brought if found.split(".")[0] == "optuna"}


@pytest.mark.parametrize("name", [*in_rooms(WITHOUT_TORCH), *WITHOUT_TORCH_EITHER])
def test_descriptions_never_meet_torch(name: str) -> None:
    brought = reach(name, top_level_only=True)
    assert not {found for found in brought if found.split(".")[0] == "torch"}


def test_the_tests_have_the_rooms_that_the_package_has() -> None:
    rooms = {path.parent.name for path in ROOT.glob("search/*/__init__.py")}
    found = {path.parent.name for path in ROOT.glob("tests/*/*.py")}
    assert found == rooms | {"models", "support"}


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
            (path,) = ROOT.glob(f"tests/**/{file}")
            text = path.read_text()
            named = re.findall(r"`(test_\w+)`", names)
            assert named, row
            for name in named:
                assert f"def {name}(" in text, f"{file} has no {name}"


def citations(path: Path) -> Iterator[str]:
    """What stands in backticks in a file's docstrings and comments."""
    texts = [
        ast.get_docstring(node) or ""
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
    ]
    with tokenize.open(path) as file:
        tokens = list(tokenize.generate_tokens(file.readline))
    texts += [token.string for token in tokens if token.type == tokenize.COMMENT]
    for text in texts:
        yield from re.findall(r"`([^`\n]+)`", text)


@functools.cache
def names_in(path: Path) -> set[str]:
    """The names that a file defines, imports or uses."""
    nodes = list(ast.walk(parsed(path)))
    return {str(getattr(node, field, "")) for node in nodes for field in ("name", "id", "attr")}


@functools.cache
def classes() -> dict[str, Path]:
    """The files of the classes, by name: read once, and not where tests are only collected."""
    return {
        node.name: path
        for path in SOURCES
        for node in parsed(path).body
        if isinstance(node, ast.ClassDef)
    }


@pytest.mark.parametrize("path", [*SOURCES, *SCRIPTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_docstring_or_a_comment_cites_is_there(path: Path) -> None:
    for cited in citations(path):
        owner, _, member = cited.partition(".")
        if re.fullmatch(r"[\w./-]+\.(py|cpp|h|md|html|jinja)", cited):
            assert any((folder / cited).is_file() for folder in (ROOT, path.parent)), cited
        elif re.fullmatch(r"(search|search_models)(\.\w+)+", cited):
            module = max((name for name in OWN if f"{cited}.".startswith(f"{name}.")), key=len)
            inside = cited.removeprefix(module).strip(".")
            assert not inside or set(inside.split(".")) <= names_in(OWN[module]), cited
        elif owner in classes() and member.isidentifier():
            assert member in names_in(classes()[owner]), cited


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented(name: str) -> None:
    assert f"search {name}" in (ROOT / "README.md").read_text()


def test_what_is_stored_has_its_names_in_the_room_that_stores_it() -> None:
    named = {
        name: {node.attr for node in ast.walk(parsed(path)) if isinstance(node, ast.Attribute)}
        for name, path in OWN.items()
        if room(name) != "search.storage"
    }
    study = {"user_attrs", "set_user_attr"}
    trial = {"system_attrs", "set_trial_user_attr", "set_trial_system_attr"}
    elsewhere = {name for name in named if room(name) != "search.study" and named[name] & study}
    assert elsewhere == {"search.tuner.warm_start"}  # which keeps what is still to be queued
    assert not [path for path in ROOT.glob("search/**/*.html") if "user_attrs" in path.read_text()]
    # Of trials the record, and of studies what optuna-dashboard looks for.
    assert {name for name in named if named[name] & trial} == {
        "search.study.record",
        "search.report.artifact_files",
        "search.tuner.pruning",  # of shadows, which are stored nowhere
    }


def test_who_chooses_draws_or_counts_reads_trials_that_were_judged() -> None:
    found = {
        name
        for name, path in OWN.items()
        if any(getattr(node, "attr", None) == "get_trials" for node in ast.walk(parsed(path)))
    }
    assert found == {
        "search.study.trials",  # which judges them
        "search.study.repeat_runs",  # runs say of which study they are by themselves
        "search.tuner.window",  # one bracket of those that the sampler has just read
        "search.tuner.sampler",  # how many it is shown
        "search.tuner.trial_starter",  # what waits, which anybody may queue
        "search.tuner.trackers",  # one of its own
        *("search.cli.delete", "search.study.open"),  # whether there is any
        "search.tuner.warm_start",  # the same
    }


def test_only_the_modules_of_pictures_meet_matplotlib() -> None:
    found = {
        name
        for name, path in OWN.items()
        if any(imported.split(".")[0] == "matplotlib" for imported in imports(path))
    }
    names = ("axes", "drawing", "figures", "pictures", "weights_figures")
    assert found == {f"search.report.{name}" for name in names}


def test_only_the_pool_of_actors_meets_ray_and_nothing_brings_it_unasked() -> None:
    found = {
        name
        for name, path in OWN.items()
        if any(imported.split(".")[0] == "ray" for imported in imports(path))
    }
    assert found == {"search.workers.ray_connection", "search.workers.ray_pool"}
    brought = [name for name in set(OWN) - found if found & reach(name, top_level_only=True)]
    assert not brought


def test_what_is_private_in_another_package_is_of_a_version_that_was_tested() -> None:
    """What a plain installation brings may else have it otherwise, or no longer."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    ranges = {name.name: name.specifier for name in map(Requirement, asked)}
    private = {
        imported.split(".")[0]
        for path in SOURCES
        for imported in imports(path)
        if re.search(r"\._[^_]", imported) and not imported.startswith(("search", "torch._C"))
    }
    assert "optuna" in private
    for package in private - sys.stdlib_module_names:
        release = version(package.replace("_", "-")).split(".")
        following = f"{release[0]}.{int(release[1]) + 1}.0"
        assert not ranges[package.replace("_", "-")].contains(following), package


def test_no_file_names_a_lock_or_a_registry() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert "uv.lock" not in tracked
    for name in tracked:
        text = (ROOT / name).read_bytes()
        assert b"files.python" + b"hosted.org" not in text, name
        assert b"pypi." + b"org" not in text, name
