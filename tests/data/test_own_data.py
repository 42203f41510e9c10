"""Images of one's own: a folder with a sub-folder for each class, uneven classes, tensors."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import PIL
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file
from sklearn.metrics import balanced_accuracy_score

from search.data.dataset import Examples, sha256
from search.data.load import load_dataset
from search.data.own import from_tensors
from search.data.pictures import read_fitted
from search.exceptions import DataError
from search.space.hyperparameters import Hyperparameters
from search.study.settings import StudySettings
from search.training.metrics import sample_size, score
from search.training.train import train
from search_models import native
from search_models.spec import ModelSpec
from tests.conftest import Command, Result
from tests.data.test_picture_files import REFUSED, SAME, shades, tags
from tests.export.test_export import as_bytes, program_at
from tests.support.image_folders import SPACE, make_folder

SIZE = HEIGHT, WIDTH = 28, 44
SIZES = {"gauze": 60, "leaf": 20, "tile": 30}  # uneven
STANDARD = ("--space", "standard")
RUN = (
    *("run", "--dataset", "folder:images", "--image-size", "28x44", "--space", "space.toml"),
    *("--budget", "2000", "--epochs", "3", "--workers", "1", "--pruner", "none"),
)
BALANCED = (*RUN, "--metric", "balanced-accuracy", "--trials", "2")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Command, Result, Result]:
    """A search of a folder of JPEG files in colour, its best trial retrained, what both said."""
    command = Command(tmp_path_factory.mktemp("own"))
    command.environment["XDG_CACHE_HOME"] = str(command.folder / "cache")
    make_folder(command.folder / "images", SIZES, colour=True, ending=".jpg")
    (command.folder / "images" / "leaf" / "@eaDir").mkdir()  # as a file server makes it
    Image.new("RGB", (9, 9), "red").save(command.folder / "images" / "leaf" / "@eaDir" / "0.jpg")
    (command.folder / "space.toml").write_text(SPACE)
    search = command(*BALANCED)
    assert search.code == 0, search.err
    retrained = command("retrain", "--seeds", "1", "--out", "weights")
    assert retrained.code == 0, retrained.err
    return command, search, retrained


def test_a_folder_is_searched_and_the_best_network_retrained(
    searched: tuple[Command, Result, Result],
) -> None:
    command, search, retrained = searched
    assert (
        "66 images train, 22 validate, 22 test; 28×44 pixels (height×width) in colour" in search.out
    )
    shown = " ".join(search.out.split())
    assert "classes 3: gauze 60, leaf 20, tile 30 images" in shown
    assert "left out 1 folder of a system (@eaDir)" in shown
    assert "goal the highest balanced accuracy" in shown
    assert "The classes are uneven" not in search.out  # that metric is for them
    assert "Training on 88 images of images, testing on 22" in retrained.out
    assert "Test balanced accuracy, last three epochs: " in retrained.out

    study = command.study("images-2000x3")
    settings = StudySettings.from_study(study)
    assert settings.input_shape == (3, *SIZE)
    assert settings.n_classes == 3
    card = json.loads((command.folder / "weights" / "card.json").read_text())
    assert card["dataset"]["classes"] == list(SIZES)
    assert len(card["normalization"]["mean"]) == 3
    assert card["metric"] == "balanced-accuracy"


def test_values_are_balanced_accuracies_of_the_networks(
    searched: tuple[Command, Result, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    command, _, _ = searched
    monkeypatch.setenv("XDG_CACHE_HOME", str(command.folder / "cache"))
    monkeypatch.chdir(command.folder)
    data = load_dataset("folder:images", image_size=SIZE)
    study = command.study("images-2000x3")
    trial = study.trials[0]
    recipe = StudySettings.from_study(study).search_space().suggest(trial)
    values = []
    run = train(
        recipe,
        data.training,
        data.validation,
        data.info.normalization,
        epochs=3,
        seed=trial.user_attrs["training_seed"],
        device="cpu",
    )
    for _ in run:
        mean, std = (
            torch.tensor(values).view(1, 3, 1, 1)
            for values in (data.info.normalization.mean, data.info.normalization.std)
        )
        network = run.network.eval()
        with torch.inference_mode():
            logits = network((data.validation.images / 255 - mean) / std)
        values.append(balanced_accuracy_score(data.validation.labels, logits.argmax(dim=1)))
    assert trial.value == pytest.approx(np.mean(values), abs=1e-6)


def test_other_commands_work_with_a_folder(searched: tuple[Command, Result, Result]) -> None:
    command, _, _ = searched
    race = command("confirm", "--top", "2", "--seeds", "2", "--workers", "1")
    assert race.code == 0, race.err
    assert "trial 0, part 1, seed" in race.out

    report = command("report", "--train")
    assert report.code == 0, report.err
    page = (command.folder / "runs" / "images-2000x3" / "report" / "report.html").read_text()
    assert "the highest validation balanced accuracy" in page
    assert "images: 66 images train, 22 validate, 22 are kept back as the test set" in page
    assert '<th><span class="name" title="gauze">gauze</span></th>' in page

    shown = command("show", "0")
    assert "validation balanced accuracy" in shown.out
    pictures = command("pictures", "weights")
    assert pictures.code == 0, pictures.err


def test_pictures_are_named_by_their_class(searched: tuple[Command, Result, Result]) -> None:
    command, _, _ = searched
    pictures = [f"images/{name}/{number}.jpg" for name in SIZES for number in range(3)]
    done = command("predict", "weights", *pictures, "--show", "seen.png", "--json")
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert all(set(row["probabilities"]) == set(SIZES) for row in rows)
    assert sum(row["class"] == Path(row["image"]).parent.name for row in rows) >= 7
    with Image.open(command.folder / "seen.png") as seen:
        across = 8 * ((WIDTH + 1) * len(rows) - 1)
        assert (seen.mode, seen.size) == ("RGB", (across, 8 * HEIGHT))


def test_networks_of_a_folder_are_exported(
    searched: tuple[Command, Result, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    command, _, _ = searched
    done = command("export", "weights", "--out", "net.onnx")
    assert done.code == 0, done.err
    assert "N × 3 × 28 × 44" in done.out
    assert "on 88 images of images" in done.out
    metadata = {
        entry.key: entry.value for entry in onnx.load(command.folder / "net.onnx").metadata_props
    }
    assert json.loads(metadata["classes"]) == list(SIZES)

    assert command("export", "weights", "--out", "net.py").code == 0
    module = program_at(command.folder / "net.py")
    monkeypatch.setenv("XDG_CACHE_HOME", str(command.folder / "cache"))
    data = load_dataset(f"folder:{command.folder / 'images'}", image_size=SIZE)
    images, labels, test_images, test_labels = module.load_data(str(command.folder / "images"))
    assert contents(as_bytes(images), labels) == contents_of(data.development)
    assert contents(as_bytes(test_images), test_labels) == contents_of(data.test)
    net = module.train(str(command.folder / "images"), epochs=1, seed=1)
    share = module.accuracy(net, test_images, test_labels)
    with torch.inference_mode():
        answers = net(test_images).argmax(dim=1)
    assert share == pytest.approx(balanced_accuracy_score(test_labels, answers))


def a_hidden_folder(images: Path) -> None:
    (images / "leaf" / ".thumbnails").mkdir()
    Image.new("RGB", (20, 20), "red").save(images / "leaf" / ".thumbnails" / "0.jpg")


def a_folder_named_like_a_picture(images: Path) -> None:
    (images / "leaf" / "1.png").mkdir()
    Image.new("RGB", (20, 20), "red").save(images / "leaf" / "1.png" / "1.jpg")


def a_picture_of_16_bits(images: Path) -> None:
    ramp = np.linspace(0, 65535, 900).astype(np.uint16).reshape(30, 30)
    Image.fromarray(ramp).save(images / "leaf" / "deep.png")


def pictures_of_other_modes(images: Path) -> None:
    line = np.full((300, 300), 255, dtype=np.uint8)
    line[100] = 0
    Image.fromarray(line).convert("1").save(images / "leaf" / "ink.png")
    line[200] = 0
    Image.fromarray(line).convert("P").save(images / "leaf" / "palette.gif")
    line[50] = 0
    Image.fromarray((line / 255).astype(np.float32)).save(images / "leaf" / "float.tiff")
    Image.fromarray(line).convert("CMYK").resize((90, 90)).save(images / "leaf" / "print.tiff")


def a_copy_of_another_kind(images: Path) -> None:
    with Image.open(images / "leaf" / "1.jpg") as picture:
        picture.save(images / "leaf" / "a.png")
        picture.save(images / "leaf" / "b.bmp")


def a_split_in_folders(images: Path) -> None:
    a_copy_of_another_kind(images)
    for name in SIZES:
        for part in ("train", "TEST"):
            (images / part / name).mkdir(parents=True)
        for path in (images / name).glob("*.*"):
            path.rename(
                images
                / ("TEST" if path.stem in "1234567b" else "train")
                / path.parent.name
                / path.name
            )
        shutil.rmtree(images / name)


def a_split_without_a_test(images: Path) -> None:
    a_split_in_folders(images)
    (images / "TEST").rename(images / "val")


@pytest.mark.parametrize(
    "add",
    [
        a_copy_of_another_kind,
        a_split_in_folders,
        a_split_without_a_test,
        a_hidden_folder,
        a_folder_named_like_a_picture,
        a_picture_of_16_bits,
        pictures_of_other_modes,
    ],
)
def test_an_exported_program_reads_what_the_search_reads(
    add: Callable[[Path], None], searched: tuple[Command, Result, Result], tmp_path: Path
) -> None:
    assert searched[0]("export", "weights", "--out", str(tmp_path / "net.py")).code == 0
    folder = Path(shutil.copytree(searched[0].folder / "images", tmp_path / "images"))
    add(folder)
    data = load_dataset(f"folder:{folder}", image_size=SIZE)
    images, labels, test_images, test_labels = program_at(tmp_path / "net.py").load_data(
        str(folder)
    )
    assert contents(as_bytes(images), labels) == contents_of(data.development)
    assert contents(as_bytes(test_images), test_labels) == contents_of(data.test)


def test_an_exported_program_reads_deep_pictures_as_the_search_does_or_refuses_them(
    searched: tuple[Command, Result, Result], tmp_path: Path
) -> None:
    assert searched[0]("export", "weights", "--out", str(tmp_path / "net.py")).code == 0
    read = program_at(tmp_path / "net.py").read_image
    levels = shades()
    # Its white is stated, by which a program does not go.
    refused = [*(name for name, _, _ in REFUSED if name != "lab.tif"), "twelve.tif"]
    pictures = [
        *((name, make(levels), options) for name, make, options in SAME),
        *((name, make(levels), {}) for name, make, _ in REFUSED),
        ("turned.tif", Image.fromarray(65535 - levels.astype(np.uint16) * 257), tags(_262=0)),
        ("clear.png", Image.fromarray(levels.astype(np.uint16) * 257), {"transparency": 0}),
        ("black.png", Image.fromarray(np.zeros((9, 9), np.uint16)), {}),
    ]
    for name, picture, options in pictures:
        path = tmp_path / name
        picture.save(path, **options)
        if name in refused:
            with pytest.raises(ValueError, match=f"{name} must have 8 bits, or 16 whose"):
                read(path)
        elif name != "lab.tif":
            assert np.array_equal(read(path).numpy(), read_fitted(path, (HEIGHT, WIDTH))), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--metric", "accuracy"), "metric balanced-accuracy there and accuracy here"),
        (("--image-size", "44"), "image size 28x44 there and 44 here"),
        (("--image-size", "44x28"), "image size 28x44 there and 44x28 here"),
    ],
)
def test_a_start_that_differs_is_refused(
    searched: tuple[Command, Result, Result], change: tuple[str, ...], message: str
) -> None:
    done = searched[0](*BALANCED, *change)
    assert done.code == 2
    assert message in " ".join(done.err.split())


def test_a_changed_folder_is_refused(searched: tuple[Command, Result, Result]) -> None:
    command, _, _ = searched
    image, elsewhere = command.folder / "images" / "leaf" / "0.jpg", command.folder / "taken.jpg"
    image.rename(elsewhere)
    try:
        for words in (BALANCED, ("retrain",), ("confirm",)):
            done = command(*words)
            assert done.code == 2, words
            assert "images or labels" in " ".join(done.err.split())
    finally:
        elsewhere.rename(image)


def test_uneven_classes_are_said_once(
    searched: tuple[Command, Result, Result], command: Command
) -> None:
    shutil.copytree(searched[0].folder / "images", command.folder / "images")
    (command.folder / "space.toml").write_text(SPACE)
    first = command(*RUN, "--trials", "1")
    assert "12 validation images of gauze, 4 of leaf. With --metric balanced" in first.out
    assert "classes are uneven" not in command(*RUN, "--trials", "1").out


def contents(images: torch.Tensor, labels: torch.Tensor) -> list[tuple[bytes, int]]:
    """Images with their labels, in an order that tells nothing."""
    pairs = zip(images.contiguous().numpy(), labels.tolist(), strict=True)
    return sorted((image.tobytes(), label) for image, label in pairs)


def contents_of(examples: Examples) -> list[tuple[bytes, int]]:
    return contents(examples.images, examples.labels)


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of grey images, which must not be changed."""
    return make_folder(tmp_path_factory.mktemp("grey") / "grey", {"a": 10, "b": 15}, colour=False)


def test_grey_images_have_one_channel_and_every_class_is_in_each_part(grey: Path) -> None:
    data = load_dataset(f"folder:{grey}")
    assert data.info.input_shape == (1, 28, 32)
    assert data.info.classes == ("a", "b")
    assert [
        examples.labels.bincount().tolist()
        for examples in (data.training, data.validation, data.test)
    ] == [[6, 9], [2, 3], [2, 3]]
    assert not set(contents_of(data.test)) & set(contents_of(data.development))
    assert not set(contents_of(data.training)) & set(contents_of(data.validation))


@pytest.mark.parametrize("size", ["28", 28.0, (28,), (28.0, 28), (28, 7), [28, 28]])
def test_a_size_that_is_none_is_refused(size: Any, grey: Path) -> None:
    shown = re.escape("28x7" if size == (28, 7) else repr(size))
    with pytest.raises(DataError, match=f"128 pixels along each side, but got {shown}; give one"):
        load_dataset(f"folder:{grey}", image_size=size)


def test_an_image_keeps_its_proportions(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", {"a": 5, "b": 5}, colour=True)
    for label, name in enumerate("ab"):
        for path in (folder / name).iterdir():
            level = 200 - 2 * (5 * label + int(path.stem))  # no two files with one content
            wide = np.full((10, 40, 3), level, dtype=np.uint8)
            Image.fromarray(wide).save(path)
    images = load_dataset(f"folder:{folder}", image_size=20).development.images
    rows = images.float().mean(dim=(0, 1, 3))
    assert (rows[8:12] > 150).all()  # 5 of 20 rows, in the middle
    assert (rows[:7] == 0).all()
    assert (rows[13:] == 0).all()
    as_they_are = load_dataset(f"folder:{folder}", image_size=(12, 40)).development.images
    assert (as_they_are[:, :, 1:11] > 150).all()
    assert (as_they_are[:, :, [0, 11]] == 0).all()


def test_what_files_are_called_does_not_matter_and_copies_do_not_count(
    grey: Path, tmp_path: Path
) -> None:
    before = load_dataset(f"folder:{grey}")
    folder = Path(shutil.copytree(grey, tmp_path / "renamed"))
    (folder / "a" / "3.png").rename(folder / "a" / "zebra.PNG")
    (folder / "b" / "deeper").mkdir()
    (folder / "b" / "3.png").rename(folder / "b" / "deeper" / "3.png")
    shutil.copy(folder / "a" / "4.png", folder / "a" / "4 (copy).png")
    (folder / "a" / "notes.txt").write_text("no image")
    (folder / "a" / "._5.png").write_text("no image")
    after = load_dataset(f"folder:{folder}")
    assert after.info.fingerprint == before.info.fingerprint
    assert torch.equal(after.development.images, before.development.images)
    assert after.info.left_out == (
        "files of kinds that are not read (1 .txt), 1 hidden image, 1 copy"
    )


def test_a_file_in_two_classes_is_refused(grey: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(grey, tmp_path / "images"))
    ours, theirs = folder / "a" / "4.png", folder / "b" / "deeper" / "four.png"
    theirs.parent.mkdir()
    shutil.copy(ours, theirs)
    with pytest.raises(DataError, match=f"one class.* but {ours} and {theirs} are the same"):
        load_dataset(f"folder:{folder}")


def test_images_are_read_once_and_a_damaged_cache_is_made_anew(grey: Path, cache: Path) -> None:
    first = load_dataset(f"folder:{grey}")
    (file,) = cache.glob("*/folders/*.safetensors")
    cached = file.stat().st_ino
    assert torch.equal(load_dataset(f"folder:{grey}").test.images, first.test.images)
    assert file.stat().st_ino == cached
    file.write_bytes(b"no tensors")
    assert torch.equal(load_dataset(f"folder:{grey}").test.images, first.test.images)
    assert file.stat().st_size > 1000


def test_another_pillow_reads_the_images_anew(
    grey: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_dataset(f"folder:{grey}")
    (file,) = cache.glob("*/folders/*.safetensors")
    before = file.read_bytes()
    monkeypatch.setattr(PIL, "__version__", "another")
    load_dataset(f"folder:{grey}")
    assert file.read_bytes() != before


def test_the_fingerprint_is_of_the_pixels_that_are_trained_on(grey: Path, cache: Path) -> None:
    before = load_dataset(f"folder:{grey}")
    (file,) = cache.glob("*/folders/*.safetensors")
    with safe_open(file, framework="np") as opened:
        pixels, metadata = opened.get_tensor("images"), opened.metadata()
    pixels[0, 0, 0, 0] += 1  # as another version of Pillow might have scaled them
    save_file({"images": pixels}, file, {**metadata, "sha256": sha256(pixels)})
    after = load_dataset(f"folder:{grey}")
    assert after.info.fingerprint != before.info.fingerprint
    assert after.info.split_fingerprint == before.info.split_fingerprint


def test_a_picture_is_turned_as_the_camera_was_held_and_transparent_is_white(
    tmp_path: Path,
) -> None:
    folder = make_folder(tmp_path / "images", {"a": 5, "b": 5}, colour=True)
    upright = Image.fromarray(np.full((20, 20, 3), (250, 0, 0), dtype=np.uint8))
    upright.paste((0, 0, 250), (0, 0, 20, 10))  # blue above
    exif = Image.Exif()
    exif[0x0112] = 3  # held upside down
    upright.save(folder / "a" / "0.png", exif=exif)
    Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save(folder / "a" / "1.png")
    turned = read_fitted(folder / "a" / "0.png", (20, 20))
    assert turned[2, 15, 10] > 200
    assert turned[0, 5, 10] > 200
    assert (read_fitted(folder / "a" / "1.png", (20, 20)) == 255).all()


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ({}, (), "but cats is no folder"),
        ({"1.png": 0}, (), "has no sub-folder; sort the images"),
        ({"a/": 6}, (), "has only 'a'"),
        ({"a/": 6, "b/": 0}, (), "b has 0 ("),
        ({"a/": 6, "b/": 4}, (), "5 different images or more"),
        ({"a/": 6, "b/": 6, "b/x.jpg": 0}, (), "x.jpg is not (cannot identify image file"),
        ({"a/": 6, "b/": 6}, STANDARD, "batches of 128 images, and 8 train"),
        ({"a/": 6, "b/": 6}, (*STANDARD, "--image-size", "20"), "20×20 has no pixel left"),
        ({"a/": 6, "b/": 6}, ("--image-size", "500"), "along each side, but got 500;"),
        ({"a/": 6, "b/": 6}, ("--metric", "f1"), "accuracy or balanced-accuracy, but got 'f1'"),
        ({"a/": 6, "b/": 6}, ("--dataset", "digits", "--image-size", "20"), "digits has its own"),
        ({"a/": 6, "b/": 6}, ("--image-size", "20x600"), "along each side, but got 20x600; give"),
        ({"a/": 6, "b/": 6}, ("--image-size", "20x60x3"), "as 20x60, but got '20x60x3'"),
        ({"a/": 6, "b/": 6}, ("--dataset", "folder:"), "as folder:photos, but got none"),
        ({"a/": 6, "b/": 6}, ("--dataset", "cats"), "can be searched as folder:cats."),
        ({"a/": 6, "b/": 6}, ("--dataset", "./cats/"), "can be searched as folder:./cats/."),
    ],
)
def test_what_cannot_be_searched_is_refused(
    files: dict[str, int], options: tuple[str, ...], message: str, command: Command
) -> None:
    folder = command.folder / "cats"
    for seed, (name, n) in enumerate(files.items()):
        if name.endswith("/"):
            make_folder(folder, {name[:-1]: n}, colour=False, seed=seed)
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("no image")
    done = command(
        *("run", "--budget", "2000", "--epochs", "1", "--dataset", "folder:cats"), *options
    )
    assert done.code == 2
    shown = " ".join(done.err.replace(f"{command.folder}/", "").split())
    assert message in shown
    assert not command.database.exists()


COLOURS = torch.arange(60 * 3 * 4 * 4).remainder(251).to(torch.uint8).view(60, 3, 4, 4)
LABELS = torch.arange(60) % 3


def test_tensors_are_a_data_set() -> None:
    data = from_tensors(COLOURS, LABELS, name="cells", classes=["x", "y", "z"])
    assert data.info.input_shape == (3, 4, 4)
    assert data.info.classes == ("x", "y", "z")
    assert data.info.class_counts == (4, 4, 4)
    parts = [*contents_of(data.training), *contents_of(data.validation), *contents_of(data.test)]
    assert sorted(parts) == contents(COLOURS, LABELS)
    scaled = data.training.images.double() / 255
    assert data.info.normalization.mean == pytest.approx(scaled.mean(dim=(0, 2, 3)), abs=1e-4)

    floats = from_tensors((COLOURS / 255).numpy(), LABELS.numpy(), name="cells")
    assert torch.equal(floats.test.images, data.test.images)
    assert floats.info.fingerprint != data.info.fingerprint  # other names of classes
    assert from_tensors(COLOURS[:, 0], LABELS).info.input_shape == (1, 4, 4)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (COLOURS[0, 0], LABELS, r"shape \(N, H, W\) or"),
        (COLOURS.float(), LABELS, "from 0 to 1, but got 0 to 250"),
        (COLOURS.float() * torch.nan, LABELS, "from 0 to 1, but got nan"),
        (COLOURS.int(), LABELS, "bytes"),
        (COLOURS, LABELS[:-1], "must be 60 whole numbers"),
        (COLOURS, LABELS.float(), "whole numbers"),
        (COLOURS, LABELS - 1, "0 or more, but got -1"),
        (COLOURS, 2 * LABELS, r"come \[20, 0, 20, 0, 20\] times"),
        (COLOURS, LABELS + 2**40, "of which 60 images can have 60, but got 1099511627778"),
        (COLOURS.repeat(1, 1, 2, 2).permute(0, 2, 3, 1), LABELS, r"come last; put .*permute\(0, 3"),
        (COLOURS.to("meta"), LABELS, "Images must be a tensor or an array of numbers"),
        (None, LABELS, "of numbers, but got NoneType"),
        (COLOURS, np.array(["cat", "dog", "bird"] * 20), "Labels must be a tensor or an array"),
    ],
)
def test_tensors_that_are_no_data_set_are_refused(
    images: torch.Tensor, labels: torch.Tensor, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        from_tensors(images, labels)


def test_tensors_are_the_same_however_they_are_kept() -> None:
    images, labels = COLOURS / 255, LABELS.numpy()
    wanted = from_tensors(images, LABELS).info.fingerprint
    backwards = np.flip(images.numpy(), 2).copy()[:, :, ::-1]  # of strides that PyTorch takes not
    kept: list[Any] = [images.numpy().astype(">f4"), backwards, images.to_sparse(), images.tolist()]
    for each in kept:
        assert from_tensors(each, LABELS).info.fingerprint == wanted
    for numbers in (labels.astype(">i8"), LABELS.to(torch.uint64), labels.astype(np.uint8)):
        assert from_tensors(images, numbers).info.fingerprint == wanted


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"name": "a\nb"}, "The name of a data set must be UTF-8 without control"),
        ({"name": "\ud800"}, "The name of a data set must be UTF-8"),
        ({"classes": ["cat", "cat", "dog"]}, "a name of its own, but got 'cat', 'cat';"),
        ({"classes": ["cat", " ", "dog"]}, "a name of its own, but got ' ';"),
        ({"classes": ["cat", "cat ", "dog"]}, "a name of its own, but got 'cat', 'cat ';"),
        ({"classes": ["caf\u00e9", "cafe\u0301", "dog"]}, r"got 'caf\\xe9', 'cafe\\u0301';"),
    ],
)
def test_names_of_tensors_that_tell_nothing_apart_are_refused(
    names: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        from_tensors(COLOURS, LABELS, **names)


def test_a_channel_that_is_the_same_everywhere_trains() -> None:
    images = COLOURS.repeat(1, 1, 3, 3)
    images[:, 1] = 7
    data = from_tensors(images, LABELS)
    assert data.info.normalization.std[1] == 1


def test_balanced_accuracy_is_scikit_learns() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.multinomial(torch.tensor([0.7, 0.2, 0.1]), 200, True, generator=generator)
    answers = torch.where(torch.rand(200, generator=generator) < 0.7, labels, 0)
    found = score("balanced-accuracy", answers == labels, labels)
    assert found == pytest.approx(balanced_accuracy_score(labels, answers))
    assert found < score("accuracy", answers == labels, labels)


def test_the_sample_size_tells_how_much_a_metric_scatters() -> None:
    counts, share = (900, 100), 0.8
    random = np.random.default_rng(0)
    recalls = [random.binomial(n, share, 20_000) / n for n in counts]
    n = sample_size("balanced-accuracy", counts)
    assert np.var(np.mean(recalls, axis=0)) == pytest.approx(share * (1 - share) / n, rel=0.05)
    assert sample_size("accuracy", counts) == 1000


def test_both_steps_train_colour_and_agree_on_the_metric() -> None:
    data = from_tensors(COLOURS.repeat(1, 1, 3, 3), LABELS)
    recipe = Hyperparameters(
        ModelSpec.parse("c3 4, pool, c3p1 6, gap, out", input_shape=(3, 12, 12), n_classes=3),
        learning_rate=0.05,
        batch_size=12,
    )
    fast, reference = [
        train(
            recipe,
            data.training,
            data.validation,
            data.info.normalization,
            epochs=3,
            device="cpu",
            use_native=use_native,
            metric="balanced-accuracy",
        )
        for use_native in (True, False)
    ]
    assert fast.is_native == (native.kernel() is not None)
    for ours, theirs in zip(fast, reference, strict=True):
        assert ours.accuracy == pytest.approx(theirs.accuracy)
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-3)
