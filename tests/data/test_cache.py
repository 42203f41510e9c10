"""The cache of images: private, limited, swept of what is left, and never of what is used."""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from search.data import cache
from search.data.load import load_dataset
from search.data.mapped import dataset_files
from search.folders import user_cache
from tests.conftest import Command
from tests.support.image_folders import make_folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own, whose folders an earlier version has left open to others."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for kind in (cache.FOLDERS, cache.MAPPED):
        cache.cache_folder(kind).mkdir(parents=True)
        cache.cache_folder(kind).chmod(0o755)
    return tmp_path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def age(path: Path, *, days: float) -> None:
    past = time.time() - 86400 * days
    os.utime(path, (past, past))


def test_what_is_cached_is_private_and_a_folder_has_one_file(place: Path) -> None:
    folder = make_folder(place / "photos", {"cat": 6, "dog": 6}, colour=False)
    data = load_dataset(f"folder:{folder}")
    shutil.copytree(
        make_folder(place / "more", {"cat": 1}, colour=False, seed=9), folder / "cat/new"
    )
    larger = load_dataset(f"folder:{folder}")
    assert larger.info.n_development > data.info.n_development
    with dataset_files(larger, with_test=True):
        files = cache.cached_files()
        assert len(files) == 3  # the folder's pixels, and both parts that are mapped
        assert {mode(file.path) for file in files} == {0o600}
        assert {mode(file.path.parent) for file in files} == {0o700}
    load_dataset(f"folder:{folder}", image_size=32)
    assert len(list(cache.cache_folder(cache.FOLDERS).iterdir())) == 2  # another size is another


def cached(name: str, *, days: float, n_bytes: int = 9) -> Path:
    begun, is_hidden = f"{0:016x}-", name.startswith(".")
    of_ours = f".{begun}{name[1:]}" if is_hidden else f"{begun}{name}.safetensors"
    path = cache.private_folder(cache.MAPPED) / of_ours
    with path.open("wb") as file:
        file.truncate(n_bytes)  # a hole, which takes no room
    age(path, days=days)
    return path


def test_with_an_image_more_a_folder_leaves_no_former_file_but_what_is_used(place: Path) -> None:
    folder = make_folder(place / "photos", {"cat": 6, "dog": 6}, colour=False)
    with dataset_files(load_dataset(f"folder:{folder}"), with_test=True) as used:
        for n in range(3):  # each seed is another picture
            more = make_folder(place / f"more{n}", {"cat": 1}, colour=False, seed=9 + n)
            shutil.copytree(more, folder / f"cat/new{n}")
            with dataset_files(load_dataset(f"folder:{folder}"), with_test=True) as files:
                paths = {*(used.development_path, used.test_path), files.development_path}
                assert {file.path for file in cache.cached_files()} >= paths - {None}
    mapped = list(cache.cache_folder(cache.MAPPED).iterdir())
    assert len(mapped) == 4  # both parts, of what was used and of what is there now


def test_what_is_old_or_left_half_written_goes_and_what_is_used_stays(place: Path) -> None:
    old, used = cached("old", days=31), cached("used", days=31)
    young = cached("young", days=29)
    left = cached(f".young.{'0123456789abcdef'}", days=0.1)
    being_written = cached(f".young.{'f' * 16}", days=0.01)
    with cache.in_use(used) as is_there:
        assert is_there
        age(used, days=31)
        cache.sweep()
        assert {file.path for file in cache.cached_files()} == {used, young, being_written}
        assert cache.clear() == 1
        assert {file.path for file in cache.cached_files()} == {used, being_written}
    assert not old.exists()
    assert not left.exists()
    with cache.in_use(old) as is_there:
        assert not is_there


def test_what_lies_there_under_another_name_is_a_users(place: Path) -> None:
    kept = [cache.private_folder(kind) / "notes.txt" for kind in (cache.FOLDERS, cache.MAPPED)]
    for path in kept:
        path.write_text("mine")
        age(path, days=100)
    of_an_earlier_version = cache.private_folder(cache.FOLDERS) / f"{0:032x}.safetensors"
    of_an_earlier_version.touch()
    cache.sweep()
    assert cache.clear() == 1
    assert all(path.read_text() == "mine" for path in kept)


def test_of_too_much_what_was_used_last_stays(place: Path) -> None:
    half = cache.LARGEST_BYTES // 2
    first, second, third = (cached(str(days), days=days, n_bytes=half) for days in (3, 2, 1))
    cache.sweep()
    assert [file.path for file in cache.cached_files()] == [third, second]
    with cache.in_use(second):  # it counts as used now
        pass
    fourth = cached("one that is larger than all may be", days=0, n_bytes=3 * half)
    age(second, days=1)
    cache.sweep()
    assert [file.path for file in cache.cached_files()] == [fourth]
    assert not first.exists()


def test_a_data_set_that_was_swept_is_written_anew(place: Path) -> None:
    data = load_dataset("digits")
    with dataset_files(data, with_test=False) as files:
        assert cache.clear() == 0  # the workers of a search map it
        assert files.development_path.exists()
    assert cache.clear() == 1
    with dataset_files(data, with_test=False) as files:
        assert len(files.development()) == 1438


def _zero_all_but_the_head(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:1000] + bytes(len(data) - 1000))


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _put_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _put_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _put_link(path: Path) -> None:
    kept = path.rename(path.with_name("moved"))
    _cut(kept)
    path.symlink_to(kept)


@pytest.mark.parametrize(
    "damage", [_zero_all_but_the_head, _cut, _put_pipe, _put_folder, _put_link]
)
def test_what_is_damaged_is_neither_trained_on_nor_waited_for_nor_followed(
    place: Path, damage: Callable[[Path], None]
) -> None:
    folder = make_folder(place / "photos", {"cat": 6, "dog": 6}, colour=False)

    def mapped() -> list[bytes]:
        data = load_dataset(f"folder:{folder}")
        with dataset_files(data, with_test=True) as files:
            # As another process maps them: this one keeps those that it has mapped.
            paths = [path for path in (files.development_path, files.test_path) if path]
            return [load_file(path)["images"].numpy().tobytes() for path in paths]

    before = mapped()
    for file in cache.cached_files():
        damage(file.path)
        assert mapped() == before
    if damage is _put_link:
        halves = [path for path in user_cache().rglob("moved") if not path.is_symlink()]
        assert len(halves) == 2  # of two folders, and neither was written to


def test_what_a_process_trains_on_stays_though_the_cache_is_deleted(place: Path) -> None:
    with dataset_files(load_dataset("digits"), with_test=True) as files:
        before = files.development(), files.test()
        shutil.rmtree(user_cache())
        for examples, kept in zip((files.development(), files.test()), before, strict=True):
            assert examples.images.equal(kept.images)


def test_the_command_shows_and_clears(place: Path, command: Command) -> None:
    command.environment["XDG_CACHE_HOME"] = str(place / "cache")
    assert "budget-search: 0.0 MB" in command("cache").out.replace("\n", "")
    path = cached("one", days=1, n_bytes=2_500_000)
    shown = command("cache")
    assert shown.code == 0
    assert "  folders: 0 files, 0.0 MB; scaled images of folders\n" in shown.out
    assert "  mapped: 1 file, 2.5 MB; data sets that worker processes map\n" in shown.out
    (row,) = command("cache", "--json").json["files"]
    assert (row["path"], row["bytes"]) == (str(path), 2_500_000)
    assert command("cache", "--clear").out.startswith("Deleted 1 file.\n")
    assert not path.exists()
