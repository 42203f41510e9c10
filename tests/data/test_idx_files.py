"""MNIST and its kin in a data folder: all layouts that people have, and what else lies there."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from search.data.idx_files import default_data_dir, find_idx_files, is_available
from search.data.load import load_dataset
from search.exceptions import DataError, DataUnavailableError
from tests.support.other_users import without_rights

STEMS = ("train-images", "train-labels", "t10k-images", "t10k-labels")


def write_files(folder: Path, *, joint: str = "-", ending: str = "", n: int = 12) -> Path:
    """The four files with `n` images where there should be 60,000, the labels 0 to 9 in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem in STEMS:
        kind = "idx3-ubyte" if "images" in stem else "idx1-ubyte"
        n_here = n if stem.startswith("train") else n // 6
        if "images" in stem:
            pixels = np.zeros((n_here, 28, 28), dtype=np.uint8)
            pixels[:, 0, 0] = np.arange(n_here) % 251
            data = struct.pack(">IIII", 2051, n_here, 28, 28) + pixels.tobytes()
        else:
            labels = (np.arange(n_here) % 10).astype(np.uint8)
            data = struct.pack(">II", 2049, n_here) + labels.tobytes()
        packed = gzip.compress(data, compresslevel=1) if ending else data
        (folder / f"{stem}{joint}{kind}{ending}").write_bytes(packed)
    return folder


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("joint", "-.")
@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("mnist", "MNIST/raw"),
        ("mnist", "MNIST"),
        ("mnist", "mnist"),
        ("mnist", "raw"),
        ("mnist", "."),
        ("fashion-mnist", "FashionMNIST/raw"),
        ("fashion-mnist", "fashion-mnist"),
        ("fashion-mnist", "dataset-fashion-mnist"),
        ("fashion-mnist", "Fashion_MNIST/raw"),
        ("kmnist", "KMNIST"),
        ("kmnist", "Kuzushiji-MNIST"),
    ],
)
def test_the_files_are_found_in_every_layout(
    name: str, place: str, joint: str, ending: str, tmp_path: Path
) -> None:
    assert not is_available(name, tmp_path)
    folder = write_files(tmp_path / place, joint=joint, ending=ending)
    found = find_idx_files(name, tmp_path)
    assert found is not None
    assert found.folder == folder
    assert [path.name[: len(stem)] for path, stem in zip(found.paths, STEMS, strict=True)] == [
        *STEMS
    ]
    assert is_available(name, folder), "the folder itself"


def test_the_files_of_debians_package_are_read_where_they_lie() -> None:
    folder = Path("/usr/share/datasets/fashion-mnist")
    if not folder.is_dir():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    data = load_dataset("fashion-mnist", folder)
    assert np.bincount(data.development.labels.numpy()).tolist() == [6000] * 10
    assert np.bincount(data.test.labels.numpy()).tolist() == [1000] * 10
    assert (data.info.classes[0], data.info.n_parts) == ("T-shirt", 6)


def test_files_of_another_data_set_are_not_taken_for_this_one(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "fashion-mnist")
    for place in (tmp_path, folder):
        assert is_available("fashion-mnist", place)
        assert not is_available("mnist", place)
        assert not is_available("kmnist", place)


def test_compressed_files_with_dots_beside_each_other_are_read(tmp_path: Path) -> None:
    """A whole data set, its images black but for one pixel: there is no checksum of KMNIST."""
    write_files(tmp_path, joint=".", ending=".gz", n=60_000)
    data = load_dataset("kmnist", tmp_path)
    assert (data.info.n_training, data.info.n_validation) == (50_000, 10_000)
    assert data.info.origin == str(tmp_path)
    numbers = data.development.images[:, 0, 0, 0].long()
    assert np.array_equal(
        np.bincount(numbers.numpy(), minlength=251), np.bincount(np.arange(60_000) % 251)
    )
    assert np.bincount(data.test.labels.numpy()).tolist() == [1000] * 10


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_what_is_called_the_same_and_is_another_data_set_is_refused(
    name: str, tmp_path: Path
) -> None:
    write_files(tmp_path, ending=".gz", n=60_000)
    with pytest.raises(DataError, match=f"not those of {name}: the checksum .* differs"):
        load_dataset(name, tmp_path)


@pytest.mark.parametrize(
    "data",
    [b"", b"no gzip", gzip.compress(b"x" * 99)[:-9], b"\x1f\x8b\x08\0"],
    ids=["empty", "no gzip", "cut", "only a header"],
)
def test_compressed_files_that_are_damaged_are_refused(data: bytes, tmp_path: Path) -> None:
    write_files(tmp_path, ending=".gz")
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(data)
    with pytest.raises(DataError, match=f"files of mnist in {tmp_path} are damaged") as caught:
        load_dataset("mnist", tmp_path)
    assert str(caught.value).endswith(
        "or name another folder with --data-dir (or SEARCH_DATA_DIR)."
    )


def test_what_a_download_has_put_there_may_be_deleted_and_what_a_user_has_may_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for folder, mend in (
        (default_data_dir(), "Delete them, and they are downloaded again."),
        (tmp_path / "mine", "Put the right ones there, or name another folder"),
    ):
        write_files(folder / "MNIST" / "raw", n=60)
        with pytest.raises(DataError, match=f"must hold 60,000 items .* {mend}"):
            load_dataset("mnist", folder)


def _wrong_magic(folder: Path) -> None:
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(b"\0\0\x0d\x03" + path.read_bytes()[4:])  # of floats


def _swapped(folder: Path) -> None:
    images, labels = folder / "train-images-idx3-ubyte", folder / "train-labels-idx1-ubyte"
    kept = images.read_bytes()
    images.write_bytes(labels.read_bytes())
    labels.write_bytes(kept)


def _fewer_labels(folder: Path) -> None:
    path = folder / "train-labels-idx1-ubyte"
    data = path.read_bytes()
    path.write_bytes(data[:4] + struct.pack(">I", 59_999) + data[8:-1])


def _test_for_training(folder: Path) -> None:
    for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
        (folder / f"t10k-{kind}").replace(folder / f"train-{kind}")
        (folder / f"t10k-{kind}").write_bytes((folder / f"train-{kind}").read_bytes())


def _eleventh_class(folder: Path) -> None:
    path = folder / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\x0a")


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (_wrong_magic, r"train-images-idx3-ubyte must hold .* header \(3331, 60000, 28, 28\)"),
        (_swapped, "train-images-idx3-ubyte must hold 60,000 items"),
        (_fewer_labels, "train-labels-idx1-ubyte must hold 60,000 items .* has 60,007 bytes"),
        (_test_for_training, "train-images-idx3-ubyte must hold 60,000 items"),
        (_eleventh_class, "labels must be 0 to 9, but got 10"),
    ],
)
def test_files_with_something_else_in_them_are_refused(
    damage: Callable[[Path], None], why: str, tmp_path: Path
) -> None:
    write_files(tmp_path, n=60_000)
    damage(tmp_path)
    with pytest.raises(DataError, match=f"files of kmnist in .* damaged: .*{why}"):
        load_dataset("kmnist", tmp_path)


def test_a_folder_that_may_not_be_looked_into_is_named(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    write_files(closed / "data")
    closed.chmod(0)
    try:
        with without_rights():
            with pytest.raises(DataError, match=r"data folder must be readable, .*Permission"):
                load_dataset("mnist", closed / "data")
            with pytest.raises(DataError, match=r"images must be readable, .*Permission"):
                load_dataset(closed / "photos")
    finally:
        closed.chmod(0o700)


def test_the_error_names_the_places_and_what_lies_there(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "MNIST-in-CSV.zip").write_bytes(b"")
    with pytest.raises(DataUnavailableError) as caught:
        load_dataset("fashion-mnist", tmp_path)
    message = str(caught.value)
    assert f"{tmp_path} does not have its four files (train-images-idx3-ubyte.gz and" in message
    assert "neither itself nor in FashionMNIST/raw, FashionMNIST, raw: " in message
    assert "in it lies MNIST-in-CSV.zip, photos." in message
    with pytest.raises(DataUnavailableError, match="raw: that is not there"):
        load_dataset("fashion-mnist", tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
