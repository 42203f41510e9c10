"""MNIST and its kin in a data folder: all layouts that people have, and what else lies there."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from search.data.idx_files import find_idx_files, is_available
from search.data.load import load_dataset
from search.exceptions import DataError, DataUnavailableError

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
    with pytest.raises(DataError, match=f"files of mnist in {tmp_path} are damaged"):
        load_dataset("mnist", tmp_path)


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
