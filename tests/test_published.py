"""Files of ours in folders of a user's."""

from __future__ import annotations

import itertools
import os
import shutil
import sqlite3
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from search.exceptions import InputError
from search.folders import PICTURES, REPORT_FILES
from search.published import LIST_NAME, OutputFolder, check_file, write_file
from tests.conftest import DIGITS_RUN, Command, run_here
from tests.support.made_studies import MadeTrial, make_study


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != LIST_NAME}


def test_what_was_written_is_replaced_and_what_is_not_written_again_goes(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / "moved").write_bytes(b"weights")
    OutputFolder(tmp_path, "one").replace({"a": b"1", "b": b"1", "c": tmp_path / "moved"})
    OutputFolder(tmp_path, "two").replace({"d": b"1"})
    folder = OutputFolder(tmp_path, "one")
    folder.check(["a", "b"])
    folder.replace({"a": b"2"})
    assert contents(tmp_path) == {"mine": b"mine", "a": b"2", "d": b"1"}


def test_a_file_of_a_users_or_one_that_was_changed_is_never_replaced(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path, "one")
    folder.replace({"a": b"1", "b": b"1", "c": b"1"})
    (tmp_path / "b").write_bytes(b"changed")
    (tmp_path / "d").write_bytes(b"mine")
    before = contents(tmp_path)
    for name in ("b", "d"):
        with pytest.raises(InputError, match=f"{name} is another, or was changed since"):
            OutputFolder(tmp_path, "one").replace({"a": b"2", name: b"2"})
    assert contents(tmp_path) == before
    OutputFolder(tmp_path, "one").replace({})
    assert contents(tmp_path) == {"b": b"changed", "d": b"mine"}


def test_a_link_of_a_users_is_never_replaced_nor_followed_even_to_nowhere(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (tmp_path / "mine").write_bytes(b"mine")
    for name, target in (("a", "mine"), ("b", "nowhere")):
        (folder / name).symlink_to(tmp_path / target)
        with pytest.raises(InputError, match=f"{name} is another"):
            OutputFolder(folder, "one").replace({name: b"1"})
        assert (folder / name).is_symlink()
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["mine"]
    assert (tmp_path / "mine").read_bytes() == b"mine"


def test_a_link_to_what_was_written_is_a_users_as_well(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path, "one")
    folder.replace({"a": b"1", "b": b"1"})
    for name in ("a", "b"):
        (tmp_path / name).rename(tmp_path / f"moved-{name}")
        (tmp_path / name).symlink_to(f"moved-{name}")
    with pytest.raises(InputError, match="a is another"):
        OutputFolder(tmp_path, "one").replace({"a": b"2"})
    OutputFolder(tmp_path, "one").replace({})
    assert (tmp_path / "a").is_symlink()
    assert (tmp_path / "b").is_symlink()


def test_a_pipe_or_a_device_is_refused_and_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "net.py")
    for path in (tmp_path / "net.py", Path("/dev/zero")):
        with pytest.raises(InputError, match=r"is another|must be writable"):
            check_file(path)


def test_the_list_is_neither_waited_for_nor_replaced_by_what_is_called_the_same(
    tmp_path: Path,
) -> None:
    def refuse(name: str, message: str) -> None:
        for write in (check_file, lambda path: write_file(b"mine", path)):
            with pytest.raises(InputError, match=message):
                write(tmp_path / name)

    refuse(LIST_NAME, "must stay the list of what commands wrote")
    assert list(tmp_path.iterdir()) == []
    own = tmp_path / LIST_NAME
    texts = ("", "[]", "{", "[" * 100_000, '{"one": 3}', '{"one": {"a": "x"}}', '{"a": {"a": [3]}}')
    for text in texts:
        own.write_text(text)
        refuse("a", "is another file, or was changed since; move it, or name another place")
        assert own.read_text() == text
    own.rename(tmp_path / "moved")
    for target in ("moved", "nowhere", LIST_NAME):
        own.symlink_to(target)
        refuse("a", "is another file")
        assert own.readlink() == Path(target)
        own.unlink()
    os.mkfifo(own)
    refuse("a", "is another file")
    assert own.is_fifo()


def write_often(folder: Path, name: str) -> None:
    for number in range(5):
        write_file(str(number).encode(), folder / name)


def test_what_processes_write_into_one_folder_at_once_is_all_listed(tmp_path: Path) -> None:
    names = [f"net-{number}.py" for number in range(6)]
    with ProcessPoolExecutor(len(names), get_context("fork")) as pool:
        for written in [pool.submit(write_often, tmp_path, name) for name in names]:
            written.result()
    for name in names:
        check_file(tmp_path / name)


def test_what_another_process_has_written_meanwhile_is_replaced_as_well(tmp_path: Path) -> None:
    slow, slow_pictures = (OutputFolder(tmp_path, kind) for kind in ("weights", "pictures"))
    OutputFolder(tmp_path, "weights").replace({"seed-1": b"fast", "seed-2": b"fast"})
    OutputFolder(tmp_path, "pictures").replace({"curves": b"of those"})
    slow_pictures.replace({})
    slow.replace({"seed-1": b"slow"})
    assert contents(tmp_path) == {"seed-1": b"slow"}


@pytest.mark.parametrize(
    "text",
    [
        *("{}", '{"one": {"../mine": ["x"], "a": ["x"]}}', '{"one": {}}'),
        *(r'{"one": {"\u0000": ["x"]}}', r'{"one": {"\ud800": ["x"]}}'),
    ],
)
def test_a_list_with_anything_in_it_makes_nothing_ours(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (tmp_path / "mine").write_bytes(b"mine")
    (folder / "a").write_bytes(b"mine")
    (folder / LIST_NAME).write_text(text)
    OutputFolder(folder, "one").replace({"b": b"1"})
    assert contents(folder) == {"a": b"mine", "b": b"1"}
    assert (tmp_path / "mine").exists()
    with pytest.raises(InputError):
        OutputFolder(folder, "one").check(["a"])


def test_what_ended_in_the_middle_is_finished_by_the_next(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path, "one")
    folder.replace({"a": b"1", "b": b"1"})
    # As a disk that is full does it: after the first file, before the second.
    with pytest.raises(FileNotFoundError):
        folder.replace({"a": b"2", "missing/c": b"2"})
    assert contents(tmp_path) == {"a": b"2", "b": b"1"}
    OutputFolder(tmp_path, "one").replace({"a": b"3"})
    assert (tmp_path / "a").read_bytes() == b"3"
    assert not (tmp_path / "b").exists()


def test_a_report_in_a_folder_of_a_users_touches_nothing_of_his(command: Command) -> None:
    url = f"sqlite:///{command.database}"
    make_study(url, "made", [MadeTrial([0.5] * 3)])
    own = {name: name.encode() for name in REPORT_FILES}
    for name, content in own.items():
        (command.folder / name).write_bytes(content)
        refused = command("report", "--out", ".")
        assert refused.code == 2
        assert f"but {name} is another" in refused.err
        assert (command.folder / name).read_bytes() == content
        (command.folder / name).unlink()
    assert command("report", "--out", ".").code == 0
    # What it did not write this time is not its own either.
    (command.folder / "race.png").write_bytes(b"mine")
    assert command("report", "--out", ".").code == 2
    assert (command.folder / "race.png").read_bytes() == b"mine"


def test_a_report_that_was_copied_without_its_list_is_a_users(command: Command) -> None:
    url = f"sqlite:///{command.database}"
    for name in ("copied", "other"):
        make_study(url, name, [MadeTrial([0.5] * 3)])
    first = command("report", "--study", "copied", "--out", ".")
    assert first.code == 0, first.err
    (command.folder / LIST_NAME).unlink()
    before = contents(command.folder)
    refused = command("report", "--study", "other", "--out", ".")
    assert refused.code == 2
    assert "report.html is another" in refused.err
    assert contents(command.folder) == before


def test_retraining_touches_nothing_of_a_users(finished: Command) -> None:
    own = {"card.json": b'{"mine": 1}', "seed-1.safetensors": b"mine", PICTURES[0]: b"mine"}
    for name, content in own.items():
        folder = finished.folder / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_bytes(content)
        refused = finished("retrain", "--seeds", "1", "--out", str(folder))
        assert refused.code == 2
        assert f"{name} is another" in refused.err
        assert contents(folder) == {name: content}
    assert "test_looks" not in finished.study("digits-3000x3").user_attrs


def test_weights_that_were_copied_without_their_list_are_a_users(
    finished: Command, weights: Path
) -> None:
    """A card that can be read is as little ours to remove as one that cannot."""
    (weights / LIST_NAME).unlink()
    before = contents(weights)
    refused = finished("retrain", "--seeds", "1", "--out", str(weights))
    assert refused.code == 2
    assert "card.json is another" in refused.err
    assert contents(weights) == before
    assert "test_looks" not in finished.study("digits-3000x3").user_attrs


@pytest.mark.parametrize("name", ["net.py", "net.onnx"])
def test_an_exported_network_takes_the_place_of_one_that_nobody_has_changed(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    export = ("export", "best-small", "--out", str(path))
    assert run_here(*export) == run_here(*export) == 0
    edited = path.read_bytes() + b"\n# mine"
    for content in (edited, b"mine"):
        path.write_bytes(content)
        assert run_here(*export) == 2
        assert f"{path} is another, or was changed since; move it" in capsys.readouterr().err
        assert contents(tmp_path) == {name: content}
    path.rename(tmp_path / "kept")
    other = tmp_path / f"other-{name}"
    for out in (path, other):
        assert run_here("export", "best-small", "--out", str(out)) == 0
    assert contents(tmp_path).keys() == {"kept", path.name, other.name}


def test_the_picture_of_what_a_network_saw_takes_the_place_of_its_own_kind_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"mine")
    assert run_here("predict", "best-small", str(photo), "--show", str(photo)) == 2
    assert photo.read_bytes() == b"mine"
    assert "name another place with --show" in capsys.readouterr().err


def test_a_backup_mixes_with_no_files_that_lie_where_its_own_go(finished: Command) -> None:
    beside = finished.folder / "copy.db-artifacts"
    beside.mkdir()
    (beside / "1-1-0").write_bytes(b"mine")
    refused = finished("backup", "copy.db")
    assert refused.code == 2
    assert "copy.db-artifacts has files already" in refused.err
    assert contents(beside) == {"1-1-0": b"mine"}
    assert not (finished.folder / "copy.db").exists()
    (beside / "1-1-0").unlink()
    beside.rmdir()
    beside.write_bytes(b"mine")
    refused = finished("backup", "copy.db")
    assert refused.code == 2
    assert "copy.db-artifacts is none" in refused.err
    assert beside.read_bytes() == b"mine"
    assert not (finished.folder / "copy.db").exists()
    beside.unlink()
    assert finished("backup", "copy.db").code == 0


@pytest.mark.parametrize("end", ["wal", "journal"])
def test_a_new_database_neither_takes_nor_deletes_the_log_of_one_that_was_moved(
    finished: Command, capsys: pytest.CaptureFixture[str], end: str
) -> None:
    new, moved = finished.folder / "new.db", finished.folder / "moved.db"
    log = finished.folder / f"new.db-{end}"
    with closing(sqlite3.connect(new)) as before:
        before.execute("PRAGMA journal_mode = WAL")
        before.execute("CREATE TABLE mine (thing)")
        before.execute("INSERT INTO mine VALUES ('stored last')")
        before.commit()
        kept = (finished.folder / "new.db-wal").read_bytes()
        shutil.copy(new, moved)
    new.unlink()
    log.write_bytes(kept)
    copied = ("backup", str(new), "--storage", f"sqlite:///{finished.database}")
    searched = (*DIGITS_RUN, "--storage", f"sqlite:///{new}")
    for words in (copied, searched):
        assert run_here(*words) == 2
        assert f"new.db-{end} is there: move it" in " ".join(capsys.readouterr().err.split())
        assert not new.exists()
        assert log.read_bytes() == kept
    if end == "wal":
        log.rename(finished.folder / "moved.db-wal")
        with closing(sqlite3.connect(moved)) as found:
            assert found.execute("SELECT thing FROM mine").fetchall() == [("stored last",)]
    log.unlink(missing_ok=True)
    assert run_here(*copied) == 0


def test_a_backup_whose_curves_and_weights_cannot_be_read_says_so(finished: Command) -> None:
    assert finished("backup", "first.db").code == 0
    folder = finished.folder / "first.db-artifacts"
    shutil.rmtree(folder)
    folder.write_bytes(b"what a disk made of it")
    done = finished("backup", "second.db", "--storage", "sqlite:///first.db")
    assert done.code == 1
    assert "must have room and let files be read and written" in done.err


def _write_on(folder: Path, started: Any) -> None:
    for number in itertools.count():
        names = ("a", "b", "c")[: 1 + number % 3]
        OutputFolder(folder, "one").replace({name: bytes([number % 251]) * 3000 for name in names})
        started.set()


def test_whenever_a_process_is_killed_the_next_replaces_all_and_leaves_no_halves(
    tmp_path: Path,
) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    users = tmp_path / f".mine.{'0' * 16}"  # no name of what is written here
    users.write_bytes(b"mine")
    (tmp_path / f".a.{'0' * 16}").symlink_to("mine")
    there = {path.name for path in tmp_path.iterdir()}
    context = get_context("fork")
    for number in range(14):
        started = context.Event()
        process = context.Process(target=_write_on, args=(tmp_path, started))
        process.start()
        assert started.wait(60)
        time.sleep(0.0007 * (number % 7))
        process.kill()
        process.join()
        OutputFolder(tmp_path, "one").replace({"a": b"2"})
        assert {path.name for path in tmp_path.iterdir()} == there | {"a", LIST_NAME}
        assert (tmp_path / "a").read_bytes() == b"2"
    assert users.read_bytes() == (tmp_path / "mine").read_bytes() == b"mine"
