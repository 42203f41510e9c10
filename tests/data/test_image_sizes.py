"""The size that a folder's images are given where none is asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import search
from search.data.image_sizes import common_size
from search.data.load import load_dataset
from search.data.names import ImageSize
from search.data.pictures import read_fitted, read_size
from search.exceptions import InputError
from search.results.predict import predict
from search.results.readers import image_reader
from search.results.target import Step, Verdict
from search.space.hyperparameters import Augmentation, Hyperparameters
from search.study.settings import StudySettings
from search.training.card import read_card
from search.training.train import train
from search.tuner.options import SearchRequest, Target
from search.tuner.plan import plan_search
from search.tuner.request import check_request
from search.tuner.session import begin_search
from search.tuner.target_search import lower_request
from search_models import native
from search_models.spec import ModelSpec
from tests.conftest import Command
from tests.data.test_own_data import contents, contents_of
from tests.export.test_export import as_bytes, program_at
from tests.support.image_folders import SPACE, make_folder

CLASSES = {"a": 20, "b": 20}
FLAT_SPACE = f'{SPACE}topology = "c3p1, pool, c3, gap, out"\n'  # for images of 6 pixels a side
RUN = (
    *("run", "--dataset", "folder:images", "--budget", "900", "--epochs", "1"),
    *("--workers", "1", "--pruner", "none", "--trials", "1", "--space", "space.toml"),
)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def folder_of_sizes(folder: Path, sizes: Sequence[ImageSize]) -> Path:
    """A folder of two classes with a picture of each of these sizes."""
    random = np.random.default_rng(0)
    for number, size in enumerate(sizes):
        (folder / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(random.integers(0, 256, size).astype(np.uint8))
        picture.save(folder / "ab"[number % 2] / f"{number}.png")
    return folder


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        pytest.param(20 * [(32, 32)], (32, 32), id="squares stay as they are"),
        pytest.param(20 * [(20, 60)], (20, 60), id="and so do others"),
        pytest.param(20 * [(128, 97)], (128, 97), id="up to 128 pixels"),
        pytest.param(20 * [(129, 97)], (64, 48), id="larger ones are scaled"),
        pytest.param(19 * [(23, 61)] + [(300, 300)], (23, 61), id="one of twenty is an odd one"),
        pytest.param(18 * [(23, 61)] + 2 * [(300, 300)], (24, 60), id="two are not: the median"),
        pytest.param(10 * [(30, 41), (50, 41)], (40, 40), id="between two sizes"),
        pytest.param(10 * [(300, 400), (330, 420)], (48, 64), id="photographs"),
        pytest.param(10 * [(300, 400), (400, 300)], (64, 64), id="some upright, some not"),
        pytest.param(10 * [(11, 15), (13, 15)], (12, 15), id="small ones in steps of one"),
        pytest.param(20 * [(5, 9)], (8, 9), id="at least 8"),
        pytest.param(10 * [(4, 400), (4, 500)], (8, 64), id="along each side"),
    ],
)
def test_a_size_follows_from_the_images(
    sizes: Sequence[ImageSize], expected: ImageSize, tmp_path: Path
) -> None:
    folder = folder_of_sizes(tmp_path / "images", sizes)
    assert load_dataset(f"folder:{folder}").info.input_shape == (1, *expected)


def test_images_that_keep_their_size_keep_their_pixels(tmp_path: Path) -> None:
    folder = folder_of_sizes(tmp_path / "images", 20 * [(20, 60)])
    data = load_dataset(f"folder:{folder}")
    files = [np.asarray(Image.open(path)).tobytes() for path in folder.glob("*/*.png")]
    found = [*data.development.images, *data.test.images]
    assert sorted(image.numpy().tobytes() for image in found) == sorted(files)


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".tif"])
def test_a_size_is_that_of_the_picture_as_the_camera_was_held(ending: str, tmp_path: Path) -> None:
    path, exif = tmp_path / f"turned{ending}", Image.Exif()
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        Image.new("RGB", (60, 20), "red").save(path, exif=exif)
        size = read_size(path)
        assert size == ((60, 20) if orientation > 4 else (20, 60)), orientation
        assert read_fitted(path, size).min(axis=(1, 2))[0] > 200, "no black beside it"


def test_a_size_is_read_without_the_pixels(tmp_path: Path) -> None:
    path = tmp_path / "noise.png"
    pixels = np.random.default_rng(0).integers(0, 256, (200, 300)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[:500])
    assert read_size(path) == (200, 300)
    with pytest.raises(InputError, match="file that can be read, but"):
        read_fitted(path, (20, 30))


@pytest.mark.parametrize(
    ("all_of", "space", "shown"),
    [
        ((32, 32), SPACE, "; 32×32 pixels in grey; as they are; another size with --image-size"),
        ((20, 60), FLAT_SPACE, "; 20×60 pixels (height×width) in grey; as they are; another"),
        (
            (20, 60),
            SPACE,
            "; 28×60 pixels (height×width) in grey; as they are, 20×60, but at least 28 along each "
            "side; another size with --image-size",
        ),
        (
            (150, 300),
            FLAT_SPACE,
            "; 32×64 pixels (height×width) in grey; their median is 150×300, scaled to 64 along "
            "the longer side; another size with --image-size",
        ),
    ],
)
def test_the_plan_says_what_size_and_why(
    all_of: ImageSize, space: str, shown: str, command: Command
) -> None:
    make_folder(command.folder / "images", CLASSES, colour=False, all_of=all_of)
    (command.folder / "space.toml").write_text(space)
    done = command(*RUN)
    assert done.code == 0, done.err
    assert shown in " ".join(done.out.split())


def test_a_size_that_not_all_have_says_so() -> None:
    size, why = common_size(97 * [(20, 60)] + 3 * [(40, 40)])
    assert (size, why) == ((20, 60), "as 97.00 % of them are; another size with --image-size")


def test_a_study_goes_on_with_the_size_that_it_began_with(command: Command) -> None:
    make_folder(command.folder / "images", CLASSES, colour=False, all_of=(40, 40))
    (command.folder / "space.toml").write_text(SPACE)
    first = command(*RUN, "--image-size", "28")  # the only size without that option, once
    assert first.code == 0, first.err
    again = command(*RUN, "--trials", "2")
    assert again.code == 0, again.err
    assert "goes on with 1 trained trial" in again.out
    assert "28×28 pixels in grey" in again.out
    assert "another size with" not in again.out
    settings = StudySettings.from_study(command.study("images-900x1"))
    assert settings.input_shape == (1, 28, 28)
    refused = command(*RUN, "--trials", "2", "--image-size", "40")
    assert refused.code == 2
    assert "image size 28 there and 40 here" in " ".join(refused.err.split())


def test_lower_caps_of_a_target_go_on_with_the_size_as_well(command: Command) -> None:
    folder = make_folder(command.folder / "images", CLASSES, colour=False, all_of=(40, 40))
    (command.folder / "space.toml").write_text(FLAT_SPACE)
    assert command(*RUN, "--image-size", "12x16").code == 0
    request = SearchRequest(
        budget=900,
        epochs=1,
        n_trials=1,
        dataset=f"folder:{folder}",
        space=str(command.folder / "space.toml"),
        storage=f"sqlite:///{command.database}",
        target=Target(0.5),
    )
    plan = plan_search(check_request(request))
    with begin_search(plan) as search:
        step = Step(plan.study_name, 900, 0, 800, 0.9, 0.8, Verdict.REACHED)
        lower = lower_request(search, step)
    assert lower is not None
    assert plan_search(check_request(lower)).dataset.info.input_shape == (1, 12, 16)


def test_networks_of_images_that_are_no_squares_predict_and_are_exported(
    command: Command,
) -> None:
    images = make_folder(command.folder / "images", CLASSES, colour=False, all_of=(20, 60))
    (command.folder / "space.toml").write_text(FLAT_SPACE)
    assert command(*RUN).code == 0
    retrained = command("retrain", "--seeds", "1", "--out", "weights")
    assert retrained.code == 0, retrained.err

    data = load_dataset(f"folder:{images}")
    assert command("export", "weights", "--out", "net.py").code == 0
    module = program_at(command.folder / "net.py")
    pixels, labels, test_pixels, test_labels = module.load_data(str(images))
    assert contents(as_bytes(pixels), labels) == contents_of(data.development)
    assert contents(as_bytes(test_pixels), test_labels) == contents_of(data.test)
    exported = command("export", "weights", "--out", "net.onnx")
    assert exported.code == 0, exported.err
    assert "N × 1 × 20 × 60" in exported.out

    # Larger and of other proportions: fitted as those that it learnt from.
    larger = command.folder / "larger.png"
    Image.open(images / "a" / "0.png").resize((180, 120)).save(larger)
    done = command("predict", "weights", str(larger), "--json")
    assert done.code == 0, done.err
    seen = torch.from_numpy(image_reader(read_card(command.folder / "weights"))(larger))
    assert torch.equal(seen, module.read_image(larger))
    assert (seen[0, :, [0, -1]] == 0).all()
    (answer,) = predict(search.load(command.folder / "weights"), seen.unsqueeze(0))
    shares = json.loads(done.out)["probabilities"]
    assert list(shares.values()) == pytest.approx(answer.probabilities)


def test_both_steps_train_images_that_are_no_squares(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", CLASSES, colour=False, all_of=(20, 60))
    data = load_dataset(f"folder:{folder}")
    recipe = Hyperparameters(
        ModelSpec.parse("c3 4, pool, c3p1 6, gap, out", input_shape=(1, 20, 60), n_classes=2),
        learning_rate=0.05,
        batch_size=12,
        augmentation=Augmentation(15.0, 0.1, 0.1, 10.0, elastic=0.02),
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
        )
        for use_native in (True, False)
    ]
    assert fast.is_native == (native.kernel() is not None)
    for ours, theirs in zip(fast, reference, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-3)
        assert ours.accuracy == pytest.approx(theirs.accuracy)
