"""Data sets as tensors: the split, fingerprints, files that processes share, and broken files."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from search.data.dataset import Dataset, channel_statistics, stratified_split
from search.data.idx_files import is_available
from search.data.load import load_dataset
from search.data.mapped import DatasetFiles
from search.data.names import check_dataset_name
from search.data.own import from_tensors
from search.exceptions import DataError

_STEMS = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load_dataset("digits", tmp_path_factory.mktemp("data"))


@given(
    labels=st.lists(st.integers(0, 9), min_size=2, max_size=300),
    share=st.floats(0.01, 0.99),
)
@settings(max_examples=200, deadline=None)
def test_split_is_complete_disjoint_and_stratified_to_one_image(
    labels: list[int], share: float
) -> None:
    n_held_out = max(1, int(share * len(labels)))

    order = stratified_split(np.array(labels), n_held_out)

    assert sorted(order.tolist()) == list(range(len(labels)))
    held_out = Counter(labels[i] for i in order[-n_held_out:])
    for label, n in Counter(labels).items():
        assert abs(held_out[label] - n * n_held_out / len(labels)) <= 1


def test_split_is_the_same_each_time() -> None:
    labels = np.arange(1000) % 10

    first, second = (stratified_split(labels, 200) for _ in range(2))

    assert np.array_equal(first, second)


def test_split_is_the_one_that_older_studies_were_made_with() -> None:
    order = stratified_split(np.arange(1000) % 10, 200)

    digest = hashlib.sha256(order.tobytes()).hexdigest()
    assert digest.startswith("c4b161816fff981c")


def test_digits_have_three_parts(digits: Dataset) -> None:
    info = digits.info

    assert (info.n_training, info.n_validation, info.n_test) == (1079, 359, 359)
    assert len(digits.development) == info.n_development == 1438
    assert len(digits.test) == 359
    assert (info.input_shape, info.n_classes) == ((1, 28, 28), 10)


def test_digits_are_all_there_once(digits: Dataset) -> None:
    images = torch.cat([digits.development.images, digits.test.images]).flatten(1)

    assert len(images) == 1797
    assert len(torch.unique(images, dim=0)) == 1797


def test_digits_are_bytes_with_a_dark_background(digits: Dataset) -> None:
    images = digits.development.images

    assert images.dtype == torch.uint8
    assert digits.development.labels.dtype == torch.int64
    assert images.max() == 255
    assert images.float().mode().values.float().median() == 0


def test_each_part_of_the_digits_has_all_classes_in_proportion(digits: Dataset) -> None:
    labels = digits.development.labels
    n = digits.info.n_training

    for part in (labels[:n], labels[n:], digits.test.labels):
        counts = torch.bincount(part, minlength=10)
        assert int(counts.max() - counts.min()) <= 0.1 * len(part) / 10 + 2


def test_normalization_is_that_of_the_training_images(digits: Dataset) -> None:
    training = digits.development[: digits.info.n_training].images.float() / 255

    assert digits.info.normalization.mean[0] == pytest.approx(float(training.mean()), abs=1e-4)
    assert digits.info.normalization.std[0] == pytest.approx(float(training.std()), abs=1e-4)


def test_statistics_of_channels_are_those_of_floats_without_a_copy_of_the_images() -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, size=(5000, 3, 28, 28), dtype=np.uint8)
    images[:, 1] //= 7
    images[:, 2] = 9
    tracemalloc.start()
    try:
        found = channel_statistics(images)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < images.nbytes / 2
    scaled = images / 255
    assert found.mean == pytest.approx(scaled.mean(axis=(0, 2, 3)).round(4), abs=1e-12)
    assert found.std[:2] == pytest.approx(scaled.std(axis=(0, 2, 3)).round(4)[:2], abs=1e-12)
    assert found.std[2] == 1


def test_a_data_set_is_assembled_in_a_small_multiple_of_the_memory_of_its_images() -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, size=(5000, 1, 28, 28), dtype=np.uint8)
    labels = np.arange(5000) % 10
    tracemalloc.start()
    try:
        from_tensors(images, labels)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * images.nbytes


def test_loading_twice_gives_the_same_data_and_fingerprints(
    digits: Dataset, tmp_path: Path
) -> None:
    again = load_dataset("digits", tmp_path)

    assert again.info == digits.info
    assert torch.equal(again.development.images, digits.development.images)
    assert torch.equal(again.test.labels, digits.test.labels)


def test_another_split_changes_only_the_splits_fingerprint(digits: Dataset, tmp_path: Path) -> None:
    other = load_dataset("digits", tmp_path, n_held_out=100)

    assert other.info.n_validation == 100
    assert other.info.fingerprint == digits.info.fingerprint
    assert other.info.split_fingerprint != digits.info.split_fingerprint


def test_fingerprints_are_sha256(digits: Dataset) -> None:
    assert len(bytes.fromhex(digits.info.fingerprint)) == 32
    assert len(bytes.fromhex(digits.info.split_fingerprint)) == 32


def test_an_unknown_data_set_is_refused() -> None:
    with pytest.raises(DataError, match=r"one of mnist, fashion-mnist, kmnist, digits.*'cifar'"):
        check_dataset_name("cifar")


_SHARE = """
import json
from pathlib import Path
from search.data.load import load_dataset
from search.data.mapped import dataset_files

dataset = load_dataset("digits", Path("."))
with dataset_files(dataset, with_test=True) as files:
    inodes = [files.development_path.stat().st_ino]
    with dataset_files(dataset, with_test=True) as again:
        inodes.append(again.development_path.stat().st_ino)
    print(json.dumps({
        "paths": [str(files.development_path), str(files.test_path)],
        "labels": [files.development().labels.tolist(), files.test().labels.tolist()],
        "inodes": inodes,
    }))
"""


def _share(cache: Path, **environment: str) -> dict[str, Any]:
    """What a process of its own sees when it puts the digits into files it can map."""
    done = subprocess.run(
        [sys.executable, "-c", _SHARE],
        env={**os.environ, "XDG_CACHE_HOME": str(cache), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_processes_map_the_same_files_with_the_same_tensors(
    digits: Dataset, tmp_path: Path
) -> None:
    report = _share(tmp_path)

    paths = [Path(path) for path in report["paths"]]
    files = DatasetFiles(digits.info, *paths)
    for mapped, examples in (
        (files.development(), digits.development),
        (files.test(), digits.test),
    ):
        assert torch.equal(mapped.images, examples.images)
        assert torch.equal(mapped.labels, examples.labels)
    assert len(set(report["inodes"])) == 1, "a file that is there is used again"
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(paths)


def test_a_cache_that_cannot_be_written_falls_back_to_a_temporary_folder(
    digits: Dataset, tmp_path: Path
) -> None:
    blocker, temporary = tmp_path / "file", tmp_path / "tmp"
    blocker.write_text("in the way")
    temporary.mkdir()

    report = _share(blocker / "cache", TMPDIR=str(temporary))

    assert report["labels"] == [digits.development.labels.tolist(), digits.test.labels.tolist()]
    assert all(Path(path).is_relative_to(temporary) for path in report["paths"])
    assert list(temporary.iterdir()) == [], "the temporary folder goes when the context ends"


def _images(n: int, *, written: int | None = None) -> bytes:
    return struct.pack(">IIII", 2051, n, 28, 28) + bytes(784 * (n if written is None else written))


def _labels(n: int, value: int = 0) -> bytes:
    return struct.pack(">II", 2049, n) + bytes([value]) * n


def _small_files(folder: Path, **contents: bytes) -> Path:
    """A data folder with twelve images where MNIST has sixty thousand, and the given changes."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    parts = dict(zip(_STEMS, (_images(12), _labels(12), _images(4), _labels(4)), strict=True))
    for stem, default in parts.items():
        key = "_".join(stem.split("-")[:2])
        (raw / stem).write_bytes(contents.get(key, default))
    return folder


def _refused(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_dataset("mnist", folder)
    message = str(caught.value)
    assert str(folder) in message
    return message


def test_files_with_too_few_images_are_refused(tmp_path: Path) -> None:
    message = _refused(_small_files(tmp_path))

    assert "train-images-idx3-ubyte must hold 60,000 items in 47,040,016 bytes" in message
    assert "the header (2051, 12, 28, 28)" in message


@pytest.mark.parametrize(
    "contents",
    [
        {"train_images": _images(12, written=11)},
        {"train_images": _images(60_000, written=12)},
        {"train_images": _images(12)[:9]},
        {"train_images": b""},
        {"train_labels": b""},
        {"train_labels": _labels(12)[:-1]},
        {"train_images": b"<html>not found</html>"},
        {"train_images": _labels(12), "train_labels": _images(12)},
        {"t10k_labels": _labels(3)},
        {"t10k_images": struct.pack(">IIII", 2051, 4, 14, 56) + bytes(4 * 784)},
        {"train_images": gzip.compress(_images(12))},
    ],
)
def test_broken_files_are_refused(contents: dict[str, bytes], tmp_path: Path) -> None:
    assert "damaged" in _refused(_small_files(tmp_path, **contents))


def test_a_missing_file_is_refused_where_it_cannot_be_downloaded(tmp_path: Path) -> None:
    folder = tmp_path / "file"
    folder.write_text("in the way of a download")

    message = _refused(folder)

    assert "--data-dir (or SEARCH_DATA_DIR)" in message
    assert "--dataset digits" in message


def test_a_folder_that_cannot_take_a_download_is_refused(tmp_path: Path) -> None:
    (tmp_path / "MNIST").write_text("in the way of a download")

    assert "--dataset digits" in _refused(tmp_path)


@pytest.mark.parametrize("stem", _STEMS)
def test_a_folder_without_one_of_the_files_does_not_count_as_there(
    stem: str, tmp_path: Path
) -> None:
    folder = _small_files(tmp_path)
    assert is_available("mnist", folder)

    (folder / "MNIST" / "raw" / stem).unlink()

    assert not is_available("mnist", folder)


def test_embedded_digits_are_always_available(tmp_path: Path) -> None:
    assert is_available("digits", tmp_path / "nowhere")
    assert not is_available("mnist", tmp_path / "nowhere")


def _linked_mnist(source: Path, folder: Path) -> Path:
    """MNIST in a folder of its own; links, so that a test copies only what it breaks."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for stem in _STEMS:
        (raw / stem).symlink_to(source / "MNIST" / "raw" / stem)
    return raw


def test_mnist_has_its_three_parts(mnist_dir: Path) -> None:
    dataset = load_dataset("mnist", mnist_dir)
    info = dataset.info

    assert (info.n_training, info.n_validation, info.n_test) == (50_000, 10_000, 10_000)
    assert info.normalization.mean[0] == pytest.approx(0.1307, abs=5e-4)
    assert info.normalization.std[0] == pytest.approx(0.3081, abs=5e-4)
    validation = torch.bincount(dataset.development.labels[50_000:])
    expected = torch.bincount(dataset.development.labels) / 6
    assert float((validation - expected).abs().max()) <= 1


def test_truncated_mnist_is_refused(mnist_dir: Path, tmp_path: Path) -> None:
    raw = _linked_mnist(mnist_dir, tmp_path)
    target = raw / _STEMS[2]
    target.unlink()
    with (mnist_dir / "MNIST" / "raw" / _STEMS[2]).open("rb") as file:
        target.write_bytes(file.read(1_000_000))

    assert "damaged" in _refused(tmp_path)


@pytest.mark.parametrize(("one", "other"), [(0, 2), (1, 3), (0, 1)])
def test_swapped_mnist_is_refused(one: int, other: int, mnist_dir: Path, tmp_path: Path) -> None:
    raw = _linked_mnist(mnist_dir, tmp_path)
    spare = raw / "spare"
    (raw / _STEMS[one]).rename(spare)
    (raw / _STEMS[other]).rename(raw / _STEMS[one])
    spare.rename(raw / _STEMS[other])

    assert "damaged" in _refused(tmp_path)


def test_mnist_with_one_changed_label_is_refused(mnist_dir: Path, tmp_path: Path) -> None:
    raw = _linked_mnist(mnist_dir, tmp_path)
    target = raw / _STEMS[3]
    target.unlink()
    shutil.copyfile(mnist_dir / "MNIST" / "raw" / _STEMS[3], target)
    contents = bytearray(target.read_bytes())
    contents[8] = (contents[8] + 1) % 10
    target.write_bytes(contents)

    assert "checksum" in _refused(tmp_path)


def test_examples_are_sliced_together(digits: Dataset) -> None:
    part = digits.development[10:13]

    assert len(part) == 3
    assert torch.equal(part.images, digits.development.images[10:13])
    assert torch.equal(part.labels, digits.development.labels[10:13])
