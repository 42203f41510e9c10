"""What of a folder is an image, of which class and part; and that a picture is there but once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from search.data.dataset import Dataset, Examples
from search.data.load import load_dataset
from search.data.own import from_tensors
from search.exceptions import DataError
from tests.conftest import Command
from tests.support.image_folders import make_folder


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def split_folder(folder: Path, **sizes: tuple[int, int]) -> Path:
    """A folder of cats and dogs with so many of each to train, val, test, by the folders' names."""
    for seed, (part, (cats, dogs)) in enumerate(sizes.items()):
        make_folder(folder / part, {"cat": cats, "dog": dogs}, colour=False, seed=seed)
    return folder


def load(folder: Path) -> Dataset:
    return load_dataset(f"folder:{folder}", image_size=28)


def images_of(examples: Examples) -> set[bytes]:
    return {image.numpy().tobytes() for image in examples.images}


def images_in(folder: Path, tmp_path: Path) -> set[bytes]:
    """Those of a folder of classes, loaded by itself."""
    data = load(Path(shutil.copytree(folder, tmp_path / f"{folder.name}-alone")))
    return images_of(data.development) | images_of(data.test)


def sizes_of(data: Dataset) -> list[list[int]]:
    """How many of each class train, validate and test."""
    parts = (data.training, data.validation, data.test)
    return [part.labels.bincount().tolist() for part in parts]


def test_a_split_in_folders_is_the_split_and_its_test_set_is_sealed(tmp_path: Path) -> None:
    folder = split_folder(tmp_path / "pets", train=(10, 8), val=(5, 6), test=(7, 5))
    data = load(folder)
    assert data.info.classes == ("cat", "dog")
    assert sizes_of(data) == [[10, 8], [5, 6], [7, 5]]
    assert images_of(data.training) == images_in(folder / "train", tmp_path)
    assert images_of(data.validation) == images_in(folder / "val", tmp_path)
    assert images_of(data.test) == images_in(folder / "test", tmp_path)
    assert data.info.image_counts == (22, 19)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"Training": (10, 20), "TEST": (5, 5)}, [[8, 16], [2, 4], [5, 5]]),
        ({"train": (10, 20), "valid": (5, 6)}, [[8, 16], [5, 6], [2, 4]]),
    ],
)
def test_what_a_split_lacks_is_taken_from_what_trains(
    sizes: dict[str, tuple[int, int]], expected: list[list[int]], tmp_path: Path
) -> None:
    assert sizes_of(load(split_folder(tmp_path / "pets", **sizes))) == expected


def test_train_can_be_a_class(tmp_path: Path) -> None:
    make_folder(tmp_path / "vehicles", {"car": 5, "train": 6}, colour=False)
    assert load(tmp_path / "vehicles").info.classes == ("car", "train")


@pytest.mark.parametrize(
    "names",
    [
        ("training_set", "test_set"),
        ("trainset", "val2017"),
        ("Train-Images", "testdata"),
        ("imagesTrain", "imagesVal"),
    ],
)
def test_what_may_be_a_split_by_another_name_is_refused(
    names: tuple[str, str], tmp_path: Path
) -> None:
    folder = split_folder(tmp_path / "pets", **dict.fromkeys(names, (5, 5)))
    with pytest.raises(DataError, match="must be called train with val, test or both"):
        load(folder)


@pytest.mark.parametrize(
    "names",
    [
        *(("train", "eval"), ("train", "gallery"), ("trn", "tst"), ("fold1", "fold2")),
        *(("split1", "split2"), ("query", "gallery"), ("labeled", "unlabeled")),
        *(("vTrain", "v2"), ("trains", "tests"), ("Trainingsdaten", "Testdaten")),
        *(("entrenamiento", "prueba"), ("apprentissage", "essai_test"), ("обучение", "тест")),
        *(("训练集", "测试集"), ("学習用", "テスト用"), ("entrai\u0302nement", "pru\u0308fung")),
    ],
)
@pytest.mark.parametrize("is_above", [True, False])
def test_what_has_the_same_classes_again_and_again_may_be_a_split(
    names: tuple[str, str], is_above: bool, tmp_path: Path
) -> None:
    for name in names:
        for pet in ("cat", "dog"):
            place = Path(name, pet) if is_above else Path(pet, name)
            make_folder(tmp_path / "pets" / place, {"2024": 5}, colour=False)
    with pytest.raises(DataError, match=r"which by '.*' may be one; rename"):
        load(tmp_path / "pets")


def test_one_of_many_classes_may_have_a_word_of_a_split_and_sub_folders_as_the_others(
    tmp_path: Path,
) -> None:
    names = ("bus", "car", "plane", "ship", "train")
    for seed, name in enumerate(names):
        make_folder(tmp_path / "vehicles" / name, {"day": 3, "night": 3}, colour=False, seed=seed)
    assert load(tmp_path / "vehicles").info.classes == names


def test_one_name_that_begins_like_a_word_of_a_split_is_of_a_class(tmp_path: Path) -> None:
    for seed, name in enumerate(("boots", "trainers")):
        make_folder(tmp_path / "shoes" / name, {"new": 3, "old": 3}, colour=False, seed=seed)
    assert load(tmp_path / "shoes").info.classes == ("boots", "trainers")


def test_annotations_of_a_split_may_lie_beside_it(tmp_path: Path) -> None:
    folder = split_folder(tmp_path / "pets", train=(10, 10), val=(5, 5))
    for part in ("train", "val"):
        (folder / "labels" / part).mkdir(parents=True)
        (folder / "labels" / part / "1.txt").touch()
    assert sizes_of(load(folder))[1] == [5, 5]


def test_a_split_deep_below_a_class_is_refused(tmp_path: Path) -> None:
    make_folder(tmp_path / "pets" / "cat" / "a", {"train": 5, "test": 5}, colour=False)
    make_folder(tmp_path / "pets", {"dog": 5}, colour=False)
    with pytest.raises(DataError, match="must lie above the classes, as train/a"):
        load(tmp_path / "pets")


def test_a_split_in_the_folders_of_classes_is_refused(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        make_folder(tmp_path / "pets" / name, {"train": 5, "test": 5}, colour=False)
    with pytest.raises(DataError, match="must lie above the classes, as train/cat"):
        load(tmp_path / "pets")


def test_names_that_only_have_a_word_of_a_split_are_of_classes(tmp_path: Path) -> None:
    make_folder(tmp_path / "things", {"test tube": 5, "train": 5, "valid ticket": 5}, colour=False)
    make_folder(tmp_path / "things" / "train", {"steam": 5, "test": 5}, colour=False, seed=1)
    assert load(tmp_path / "things").info.classes == ("test tube", "train", "valid ticket")


def a_class_beside(folder: Path) -> None:
    make_folder(folder / "bird", {"blue": 5}, colour=False)


def a_test_without_classes(folder: Path) -> None:
    for path in [*(folder / "test").glob("*/*")]:
        path.rename(folder / "test" / f"{path.parent.name}-{path.name}")
    shutil.rmtree(folder / "test" / "cat")
    shutil.rmtree(folder / "test" / "dog")


def a_class_that_is_not_tested(folder: Path) -> None:
    shutil.rmtree(folder / "test" / "dog")


def a_class_of_nothing_to_test(folder: Path) -> None:
    for path in (folder / "test" / "dog").iterdir():
        path.unlink()


def two_that_validate(folder: Path) -> None:
    shutil.copytree(folder / "test", folder / "val")
    shutil.copytree(folder / "test", folder / "valid")


def nothing_that_trains(folder: Path) -> None:
    (folder / "train").rename(folder / "dev")


def one_folder_too_many(folder: Path) -> None:
    shutil.rmtree(folder / "test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (a_class_beside, "has 'test', 'train' beside 'bird'; name the folder that has the classes"),
        (a_test_without_classes, "test has none; .* as folder:.*/pets/train"),
        (a_class_that_is_not_tested, "train and .*test differ in 'dog'"),
        (a_class_of_nothing_to_test, "dog in .*pets has 0 to test"),
        (two_that_validate, "but .* has 'test', 'train', 'val', 'valid'; rename them"),
        (nothing_that_trains, "must be train with val, test or both, but .* has 'dev', 'test'"),
        (one_folder_too_many, "has only 'train'; are its classes in folder:.*/pets/train?"),
    ],
)
def test_what_may_be_a_split_and_may_not_is_refused_with_what_to_name(
    change: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    folder = split_folder(tmp_path / "pets", train=(8, 8), test=(5, 5))
    change(folder)
    with pytest.raises(DataError, match=message):
        load(folder)


def thumbnail(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    levels = np.random.default_rng(len(str(folder))).integers(0, 255, (9, 9), dtype=np.uint8)
    Image.fromarray(levels).save(folder / "small.jpg")


def test_thumbnails_of_systems_and_programs_are_no_images(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pets", {"cat": 6, "dog": 6}, colour=False)
    before = load(folder)
    for name in ("@eaDir", ".git", "__MACOSX", "#recycle", "$RECYCLE.BIN", "lost+found"):
        thumbnail(folder / name)
        thumbnail(folder / "cat" / name / "0.png")
    for name in (".thumbnails", ".@__thumb", "Thumbs", "thumbnails", "Pets Previews.lrdata"):
        thumbnail(folder / "cat" / "2024" / name)
    (folder / "cat" / "Thumbs.db").write_bytes(b"no image")
    (folder / "dog" / ".DS_Store").write_bytes(b"no image")
    after = load(folder)
    assert after.info.fingerprint == before.info.fingerprint
    assert after.info.classes == ("cat", "dog")
    assert after.info.left_out == (
        "17 folders of a system (#recycle, $RECYCLE.BIN, .git, @eaDir and 7 others)"
    )


def test_what_is_no_image_that_is_read_is_counted_with_why(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pets", {"cat": 6, "dog": 6}, colour=False)
    for number in range(3):
        (folder / "cat" / f"{number}.HEIC").write_bytes(b"no image")
    (folder / "dog" / "notes.txt").write_bytes(b"no image")
    shutil.copy(folder / "dog" / "1.png", folder / "loose.png")
    shutil.copy(folder / "dog" / "1.png", folder / "dog" / ".1.png")
    (folder / "dog" / "more").symlink_to(folder / "cat")
    assert load(folder).info.left_out == (
        "files of kinds that are not read (3 .heic, 1 .txt; save them as JPEG or PNG), "
        "1 image in no class's folder, 1 hidden image, 1 linked folder"
    )
    for number in range(2, 6):
        (folder / "cat" / f"{number}.png").unlink()
    with pytest.raises(DataError, match=r"cat has 2 .* left out were .*3 .heic"):
        load(folder)


def test_the_same_pixels_in_two_files_are_one_image(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pets", {"cat": 6, "dog": 6}, colour=False)
    before = load(folder)
    for number, kind in enumerate(("bmp", "tiff", "webp")):
        with Image.open(folder / "cat" / f"{number}.png") as picture:
            picture.save(folder / "cat" / f"copy.{kind}", lossless=True)
    after = load(folder)
    assert sizes_of(after) == sizes_of(before)
    parts = [images_of(part) for part in (after.training, after.validation, after.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 12
    assert after.info.left_out == "3 copies"

    with Image.open(folder / "cat" / "0.png") as picture:
        picture.save(folder / "dog" / "of-a-cat.bmp")
    with pytest.raises(DataError, match=r"(0.png|copy.bmp) and .*of-a-cat.bmp are the same, pixel"):
        load(folder)


def test_a_copy_of_a_test_image_does_not_train(tmp_path: Path) -> None:
    folder = split_folder(tmp_path / "pets", train=(8, 8), val=(5, 5), test=(5, 5))
    before = load(folder)
    shutil.copy(folder / "test" / "cat" / "1.png", folder / "train" / "cat" / "again.png")
    with Image.open(folder / "test" / "dog" / "2.png") as picture:
        picture.save(folder / "val" / "dog" / "again.bmp")
    after = load(folder)
    assert sizes_of(after) == [[8, 8], [5, 5], [5, 5]]
    assert images_of(after.test) == images_of(before.test)
    assert not images_of(after.test) & images_of(after.development)
    assert after.info.left_out == "2 copies"


def test_the_same_tensor_twice_is_one_image() -> None:
    images = torch.arange(20 * 64).remainder(251).to(torch.uint8).view(20, 8, 8)
    labels = torch.arange(20) // 10
    before = from_tensors(images, labels)
    again = from_tensors(torch.cat([images, images[3:7]]), torch.cat([labels, labels[3:7]]))
    assert again.info.fingerprint == before.info.fingerprint
    assert again.info.left_out == "4 copies"
    with pytest.raises(DataError, match="image 3 and image 20 are the same, pixel for pixel"):
        from_tensors(torch.cat([images, images[3:4]]), torch.cat([labels, labels[10:11]]))


@pytest.mark.parametrize("name", [b"caf\xe9", b"bell\x07", b"two\nlines", b"\x1b[31mred"])
def test_a_class_whose_name_is_no_text_is_refused_before_anything_is_read(
    name: bytes, command: Command
) -> None:
    make_folder(command.folder / "pets", {"cat": 6, "dog": 6}, colour=False)
    pets = os.fsencode(command.folder / "pets")
    os.rename(pets + b"/dog", pets + b"/" + name)  # noqa: PTH104 - paths of bytes
    done = command("run", "--dataset", "folder:pets", "--budget", "2000", "--epochs", "1")
    assert done.code == 2
    shown = " ".join(done.err.split())
    assert "must be UTF-8 without control characters, but got " in shown
    assert repr(os.fsdecode(name)).replace("\\n", "\\n") in shown
    assert not command.database.exists()


def test_a_folder_whose_path_is_no_text_is_refused(tmp_path: Path) -> None:
    place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/p\xe9ts"))
    make_folder(place, {"cat": 6, "dog": 6}, colour=False)
    with pytest.raises(DataError, match="path of a folder of images must be UTF-8"):
        load(place)


def test_names_of_classes_in_any_script_are_taken(tmp_path: Path) -> None:
    names = ("猫", "می‌خواهم", "собака & <b>")  # the second has a zero-width letter
    folder = make_folder(tmp_path / "pets", dict.fromkeys(names, 6), colour=False)
    assert set(load(folder).info.classes) == set(names)
    tensors = torch.arange(20 * 64).remainder(251).to(torch.uint8).view(20, 8, 8)
    with pytest.raises(DataError, match="The name of a class must be UTF-8"):
        from_tensors(tensors, torch.arange(20) // 10, classes=["a", "\x1b[2J"])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *(("caf\u00e9", "cafe\u0301"), ("cat", "cat "), (" ", "cat"), ("a b", "a\u00a0b")),
        *(("cat", "ca\u200dt"), ("\u200c", "cat")),
    ],
)
def test_classes_that_look_alike_are_refused(one: str, other: str, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pets", dict.fromkeys((one, other, "Cat"), 6), colour=False)
    with pytest.raises(DataError, match="a name that looks otherwise than all others") as refused:
        load(folder)
    assert ascii(one) in str(refused.value)
    assert "'Cat'" not in str(refused.value)


def test_a_pipe_is_not_waited_for(command: Command) -> None:
    folder = make_folder(command.folder / "pets", {"cat": 6, "dog": 6}, colour=False)
    os.mkfifo(folder / "cat" / "live.jpg")
    with pytest.raises(DataError, match=r"live.jpg is not \(it is no file with contents\)"):
        load(folder)
    # Whose sizes are looked at first.
    done = command("run", "--dataset", "folder:pets", "--budget", "2000", "--epochs", "1")
    assert (done.code, "(it is no file with contents)" in " ".join(done.err.split())) == (2, True)


def test_a_folder_that_is_a_link_to_itself_is_named(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pets", {"cat": 6, "dog": 6}, colour=False)
    (folder / "bird").symlink_to("bird")
    with pytest.raises(DataError, match=r"must be readable, but .*/bird is not \(Too many levels"):
        load(folder)
