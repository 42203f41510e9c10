"""Folders of images of many kinds and sizes, made of Debian's fonts and icons and of MNIST.

    apt-get download fonts-{cantarell,comfortaa,crosextra-caladea,crosextra-carlito} \\
        fonts-{dejavu-core,dejavu-extra,ebgaramond,firacode,freefont-ttf,gfs-didot,hack} \\
        fonts-{inconsolata,junicode,lato,league-spartan,liberation,linuxlibertine,noto-core} \\
        fonts-{oflb-asana-math,open-sans,quicksand,roboto-unhinted,sil-gentium-basic} \\
        fonts-{ubuntu-title,urw-base35,vollkorn} oxygen-icon-theme  # and unpack them into ROOT
    python -m scripts.experiments.varied_images --out FOLDER --root ROOT --data-dir DIR

For a look at how the default space does where nobody wrote a space by hand. Each has a folder a
class, and a split of its own: one face in four of the fonts, one image in four of the others, is
in no training image but tests. The draws that are kept of letters in docs/choices/draws.jsonl are
of a like selection of fonts, of which no list was kept.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

from search.data.load import load_dataset

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_GLYPHS = _LETTERS + _LETTERS.lower() + "0123456789"
_COLOURED = "AEGKMRSX"
_ICONS = ("actions", "apps", "devices", "mimetypes", "places", "status")

Picture = tuple[str, str, Image.Image]  # its split, its class and itself


def _faces(root: Path) -> list[Path]:
    """Font files that have letters, in the order of their names."""
    found = sorted(path for ending in ("ttf", "otf") for path in root.rglob(f"*.{ending}"))
    drawn = []
    for path in found:
        font = ImageFont.truetype(str(path), 20)
        boxes = {font.getbbox(letter) for letter in "AgQ8"}
        if len(boxes) == 4:
            drawn.append(path)
    return drawn


def _letter(face: Path, letter: str, side: int, chance: random.Random) -> Image.Image:
    """White on black, somewhat turned, moved and scaled; grey, `side` pixels along each side."""
    font = ImageFont.truetype(str(face), round(2.4 * side * chance.uniform(0.75, 1.0)))
    canvas = Image.new("L", (4 * side, 4 * side))
    ImageDraw.Draw(canvas).text((2 * side, 2 * side), letter, fill=255, font=font, anchor="mm")
    moved = (round(chance.uniform(-0.3, 0.3) * side), round(chance.uniform(-0.3, 0.3) * side))
    canvas = canvas.rotate(chance.uniform(-12, 12), Image.Resampling.BICUBIC, translate=moved)
    return canvas.resize((side, side), Image.Resampling.BOX)


def _split(number: int) -> str:
    return "test" if number % 4 == 3 else "train"


def letters(root: Path, glyphs: str, n_each: int, side: int) -> Iterator[Picture]:
    """A class a glyph; names tell small letters from capitals where a file system does not."""
    chance = random.Random(side * n_each)
    faces = _faces(root)
    for glyph in glyphs:
        for number in range(n_each):
            face = faces[(number * 7 + ord(glyph)) % len(faces)]
            image = _letter(face, glyph, side, chance)
            name = f"small-{glyph}" if glyph.islower() else glyph
            yield _split(faces.index(face)), name, image


def coloured(root: Path, n_each: int, side: int) -> Iterator[Picture]:
    """Letters of any colour on patches of any other, with noise."""
    chance = random.Random(side)
    noise = np.random.default_rng(side)
    for split, name, letter in letters(root, _COLOURED, n_each, side):
        patches = Image.fromarray(noise.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        ground = patches.resize((side, side), Image.Resampling.BICUBIC)
        ink = Image.new("RGB", (side, side), tuple(chance.randrange(256) for _ in range(3)))
        image = np.asarray(Image.composite(ink, ground, letter), dtype=np.float64)
        image = np.clip(image + noise.normal(0, 24, image.shape), 0, 255)
        yield split, name, Image.fromarray(image.astype(np.uint8))


def icons(root: Path, n_each: int) -> Iterator[Picture]:
    """Oxygen's icons by what they are for, 48 pixels along each side, on white."""
    for name in _ICONS:
        paths = sorted(root.rglob(f"oxygen/base/48x48/{name}/*.png"))
        random.Random(0).shuffle(paths)
        for number, path in enumerate(paths[:n_each]):
            icon = Image.open(path).convert("RGBA")
            ground = Image.new("RGBA", icon.size, "white")
            yield _split(number), name, Image.alpha_composite(ground, icon).convert("RGB")


def digits(
    data_dir: Path, n_images: int, change: Callable[[Image.Image], Image.Image], only: str = ""
) -> Iterator[Picture]:
    """The first of MNIST's training images, changed."""
    examples = load_dataset("mnist", data_dir).development
    number = 0
    for image, label in zip(examples.images, examples.labels.tolist(), strict=False):
        if only and str(label) not in only:
            continue
        if number == n_images:
            break
        yield _split(number), str(label), change(Image.fromarray(image[0].numpy()))
        number += 1


def _in_strip(chance: random.Random) -> Callable[[Image.Image], Image.Image]:
    def change(image: Image.Image) -> Image.Image:
        strip = Image.new("L", (60, 20))
        strip.paste(image.resize((20, 20), Image.Resampling.BOX), (chance.randrange(41), 0))
        return strip

    return change


def _enlarged(image: Image.Image) -> Image.Image:
    """Not only smoothed, but with edges as a scan has them."""
    large = image.resize((128, 128), Image.Resampling.BICUBIC)
    return ImageOps.autocontrast(large.filter(ImageFilter.GaussianBlur(1)))


def write(pictures: Iterable[Picture], folder: Path) -> None:
    """Writes each picture once: an icon that is of two kinds would both train and test."""
    known: set[bytes] = set()
    for number, (split, name, image) in enumerate(pictures):
        if image.tobytes() in known:
            continue
        known.add(image.tobytes())
        path = folder / split / name / f"{number:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True, help="the unpacked packages")
    parser.add_argument("--data-dir", type=Path, required=True)
    options = parser.parse_args()
    root, data = options.root, options.data_dir
    folders = {
        "letters": letters(root, _LETTERS, 200, 32),
        "glyphs": letters(root, _GLYPHS, 80, 32),
        "coloured": coloured(root, 300, 40),
        "icons": icons(root, 300),
        "two": digits(data, 1_000, lambda image: image, only="35"),
        "side-12": digits(data, 4_000, lambda image: image.resize((12, 12), Image.Resampling.BOX)),
        "side-128": digits(data, 1_600, _enlarged),
        "strips": digits(data, 4_000, _in_strip(random.Random(0))),
    }
    for name, pictures in folders.items():
        write(pictures, options.out / name)
        n_images = sum(1 for _ in (options.out / name).rglob("*.png"))
        print(f"{name:10} {n_images:,} images", flush=True)


if __name__ == "__main__":
    main()
