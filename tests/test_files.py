"""Files and folders that results go to."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from search.files import whole_file, write_text
from search.folders import make_folder, training_folder


def test_a_folder_that_is_tried_keeps_all_that_is_in_it(tmp_path: Path) -> None:
    (tmp_path / ".probe").write_text("mine")
    make_folder(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".probe"}
    assert (tmp_path / ".probe").read_text() == "mine"


def test_one_folder_is_tried_by_many_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda _: make_folder(tmp_path / "out"), range(400)))
    assert not list((tmp_path / "out").iterdir())


def test_two_who_write_one_file_never_share_a_half_of_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with whole_file(path) as first, whole_file(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # the outer one ends last
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_left_of_a_file_that_could_not_be_written(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text("before", path)
    with contextlib.suppress(RuntimeError), whole_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "before"


@pytest.mark.parametrize("name", ["n" * 255, "名" * 85, "n" * 199 + "é" * 28])
def test_a_file_may_have_as_long_a_name_as_the_system_allows(name: str, tmp_path: Path) -> None:
    write_text("text", tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


_HANGS = """
import pathlib, signal, sys
from search.folders import training_folder
with training_folder(pathlib.Path(sys.argv[1])) as folder:
    (folder / "seed-1").write_text("half")
    print(flush=True)
    signal.pause()
"""


def test_what_killed_processes_left_where_they_trained_is_deleted_by_the_next(
    tmp_path: Path,
) -> None:
    (tmp_path / ".training-mine").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", _HANGS, str(tmp_path)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        with training_folder(tmp_path):
            assert len(list(tmp_path.iterdir())) == 3  # of the one that lives, nothing
        process.kill()
        process.wait()
    assert len(list(tmp_path.iterdir())) == 2
    with training_folder(tmp_path) as folder:
        assert {path.name for path in tmp_path.iterdir()} == {".training-mine", folder.name}
    assert [path.name for path in tmp_path.iterdir()] == [".training-mine"]
