"""The parts of the development images, of which each validates what the others train."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from search.data.dataset import Dataset
from search.data.load import load_dataset
from search.data.names import SPLITS, Split
from search.data.own import from_tensors
from search.data.parts import fold, part_numbers
from tests.support.image_folders import make_folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load_dataset("digits", tmp_path_factory.mktemp("data"))


@given(
    labels=st.lists(st.integers(0, 9), min_size=6, max_size=200),
    n_validation=st.integers(1, 3),
)
@settings(max_examples=100, deadline=None)
def test_parts_are_complete_and_each_has_its_share_of_every_class(
    digits: Dataset, labels: list[int], n_validation: int
) -> None:
    n = len(labels) - n_validation
    split = Split(n, n_validation, 1)
    info = replace(digits.info, n_training=n, n_development=len(labels), n_parts=split.n_parts)
    numbers = part_numbers(torch.tensor(labels), info)
    assert numbers[n:].eq(0).all()
    assert set(numbers.tolist()) == set(range(info.n_parts))
    sizes = Counter(numbers[:n].tolist())
    assert max(sizes.values()) - min(sizes.values()) <= 1
    assert info.least_training == len(labels) - max(Counter(numbers.tolist()).values())
    for label in set(labels[:n]):
        of_class = numbers[:n][torch.tensor(labels[:n]) == label]
        counts = torch.bincount(of_class - 1, minlength=info.n_parts - 1)
        assert counts.max() - counts.min() <= 1


def test_part_0_is_what_validates_in_a_search(digits: Dataset) -> None:
    split = fold(digits.development, digits.info, 0)
    assert split.places is None
    assert split.training.images.equal(digits.training.images)
    assert split.validation.images.equal(digits.validation.images)


@pytest.mark.parametrize("part", [1, 2, 3])
def test_each_part_validates_what_all_others_train_without_a_copy_of_them(
    digits: Dataset, part: int
) -> None:
    split = fold(digits.development, digits.info, part)
    assert split.places is not None
    assert split.training.images.data_ptr() == digits.development.images.data_ptr()
    assert len(split.places) + len(split.validation) == digits.info.n_development
    assert abs(len(split.places) - digits.info.n_training) <= 1
    # No picture of the digits is there twice.
    trained = {image.numpy().tobytes() for image in digits.development.images[split.places]}
    assert not trained & {image.numpy().tobytes() for image in split.validation.images}


def test_the_parts_of_the_digits_are_those_of_the_runs_that_studies_keep(digits: Dataset) -> None:
    numbers = part_numbers(digits.development.labels, digits.info)
    digest = hashlib.sha256(numbers.numpy().tobytes()).hexdigest()
    assert digest.startswith("1df706c2dcc0b342")


def test_there_is_no_part_beyond_the_last(digits: Dataset) -> None:
    with pytest.raises(ValueError, match="one of 4, from 0, but got 4"):
        fold(digits.development, digits.info, 4)


def test_there_are_as_many_parts_as_the_share_that_validates_gives(digits: Dataset) -> None:
    assert {name: split.n_parts for name, split in SPLITS.items()} == {
        "mnist": 6,
        "fashion-mnist": 6,
        "kmnist": 6,
        "digits": 4,
    }
    assert digits.info.n_parts == 4
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    assert from_tensors(images, np.arange(40) % 2).info.n_parts == 4


@pytest.mark.parametrize(
    ("parts", "n_parts"),
    [(("train", "test"), 5), (("train", "val"), 1), (("train", "dev", "test"), 1)],
)
def test_a_validation_split_of_a_folders_own_stays_the_only_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: tuple[str, ...], n_parts: int
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for seed, part in enumerate(parts):
        make_folder(tmp_path / "pets" / part, {"cat": 10, "dog": 10}, colour=False, seed=seed)
    assert load_dataset(tmp_path / "pets", image_size=8).info.n_parts == n_parts
