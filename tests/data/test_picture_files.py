"""Picture files: the same pixels from every kind of file, or a refusal that names the file."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from scripts.experiments import fuzz_pictures
from search.data.pictures import read_fitted, read_size
from search.exceptions import InputError

Levels = NDArray[np.uint8]
SQUARE = 28, 28


def of_numbers(dtype: Any, white: float) -> Callable[[Levels], Image.Image]:
    """Makes a picture whose samples are of that type, with that one for white."""

    def make(levels: Levels) -> Image.Image:
        samples = levels * (white / 255)
        if not np.issubdtype(dtype, np.floating):
            samples = samples.round()
        return Image.fromarray(samples.astype(dtype))

    return make


def in_mode(mode: str) -> Callable[[Levels], Image.Image]:
    return lambda levels: Image.fromarray(levels).convert(mode)


def of_ink(mode: str) -> Callable[[Levels], Image.Image]:
    """Makes a picture of black ink on nothing: only its transparency says what it shows."""

    def make(levels: Levels) -> Image.Image:
        picture = Image.new("RGBA", levels.shape[::-1], (0, 0, 0, 0))
        picture.putalpha(Image.fromarray(255 - levels))
        return picture.convert(mode)

    return make


def tags(**numbers: int) -> dict[str, Any]:
    directory = ImageFileDirectory_v2()
    for name, number in numbers.items():
        directory[int(name[1:])] = number
    return {"tiffinfo": directory}


def shades() -> Levels:
    """All levels, and a thin line across."""
    levels = np.tile(np.linspace(0, 255, 900).round().astype(np.uint8), (900, 1))
    levels[400:402] = 255
    return levels


def thin_lines() -> Levels:
    levels = np.full((900, 900), 255, dtype=np.uint8)
    levels[:, 448:450] = 0
    levels[100:102] = 0
    return levels


LOSSLESS = {"lossless": True}
SAME: list[tuple[str, Callable[[Levels], Image.Image], dict[str, Any]]] = [
    *((f"{mode}.png", in_mode(mode), {}) for mode in ("RGB", "P", "RGBA", "LA")),
    *((f"{mode}.tif", in_mode(mode), {}) for mode in ("L", "RGB", "P", "LA", "CMYK", "YCbCr")),
    *((f"{mode}.bmp", in_mode(mode), {}) for mode in ("L", "RGB", "P")),
    *((f"{mode}.gif", in_mode(mode), {}) for mode in ("L", "P")),
    *((f"{mode}.webp", in_mode(mode), LOSSLESS) for mode in ("L", "RGBA")),
    ("grey.pgm", in_mode("L"), {}),
    ("colour.ppm", in_mode("RGB"), {}),
    ("lzw.tiff", in_mode("RGB"), {"compression": "tiff_lzw"}),
    ("deep.png", of_numbers(np.uint16, 65535), {}),
    ("deep.tif", of_numbers(np.uint16, 65535), {}),
    ("deep.pgm", of_numbers(np.int32, 65535), {}),
    ("twelve.tif", of_numbers(np.uint16, 4095), tags(_281=4095)),
    ("float.tif", of_numbers(np.float32, 1), {}),
    *((f"ink-{mode}.png", of_ink(mode), {}) for mode in ("RGBA", "LA")),
    ("ink.webp", of_ink("RGBA"), LOSSLESS),
]


@pytest.mark.parametrize("draw", [shades, thin_lines])
def test_the_same_picture_gives_the_same_pixels_in_every_kind_of_file(
    draw: Callable[[], Levels], tmp_path: Path
) -> None:
    levels = draw()
    Image.fromarray(levels).save(tmp_path / "L.png")
    expected = read_fitted(tmp_path / "L.png", SQUARE)
    assert expected.min() < 253, "the thin lines are seen"
    for name, make, options in SAME:
        make(levels).save(tmp_path / name, **options)
        assert np.array_equal(read_fitted(tmp_path / name, SQUARE), expected), name
    Image.fromarray(levels).save(tmp_path / "q100.jpg", quality=100)
    lossy = read_fitted(tmp_path / "q100.jpg", SQUARE).astype(int)
    assert abs(lossy - expected).max() <= 3


def test_a_thin_line_is_seen_in_black_and_white_and_through_a_transparent_colour(
    tmp_path: Path,
) -> None:
    levels = thin_lines()
    Image.fromarray(levels).save(tmp_path / "L.png")
    expected = read_fitted(tmp_path / "L.png", SQUARE)
    black = np.where(levels > 0, 7, 0).astype(np.uint8)
    for name, picture, key in (
        ("1.png", Image.fromarray(levels > 0), None),
        ("1.gif", Image.fromarray(levels > 0), None),
        ("1.pbm", Image.fromarray(levels > 0), None),
        ("1.tif", Image.fromarray(levels > 0), None),
        ("1-clear.png", Image.fromarray(levels > 0), 1),
        ("L-clear.png", Image.fromarray(black), 7),
        ("P-clear.png", Image.fromarray(black).convert("P"), 7),
        ("RGB-clear.png", Image.fromarray(black).convert("RGB"), (7, 7, 7)),
    ):
        options: dict[str, Any] = {} if key is None else {"transparency": key}
        picture.save(tmp_path / name, **options)
        assert np.array_equal(read_fitted(tmp_path / name, SQUARE), expected), name


def png_of_bits(bits: int, row: bytes, clear: int) -> bytes:
    """A PNG file of grey of so many bits, 8 times a row, in which one level is transparent."""
    return png_of_chunks(
        {
            b"IHDR": struct.pack(">IIBBBBB", 8 * len(row) // bits, 8, bits, 0, 0, 0, 0),
            b"tRNS": struct.pack(">H", clear),
            b"IDAT": zlib.compress(8 * (b"\0" + row)),
            b"IEND": b"",
        }
    )


def png_of_chunks(chunks: dict[bytes, bytes]) -> bytes:
    packed = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks.items()
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_transparent_grey_becomes_white_whatever_the_bits(bits: int, tmp_path: Path) -> None:
    # Eight black pixels, then eight of the level that is transparent.
    level = {1: 1, 2: 2, 4: 9, 8: 99, 16: 30_000}[bits]
    row = int(format(0, f"0{bits}b") * 8 + format(level, f"0{bits}b") * 8, 2)
    (tmp_path / "grey.png").write_bytes(
        png_of_bits(bits, row.to_bytes(2 * bits, "big"), clear=level)
    )
    pixels = read_fitted(tmp_path / "grey.png", (8, 16))
    assert pixels[0, 4].tolist() == [0] * 8 + [255] * 8


def test_grey_whose_white_is_zero_is_turned_round(tmp_path: Path) -> None:
    levels = shades()
    Image.fromarray(levels).save(tmp_path / "L.png")
    turned = Image.fromarray((65535 - levels.astype(np.uint16) * 257).astype(np.uint16))
    turned.save(tmp_path / "deep.tif", **tags(_262=0))
    with Image.open(tmp_path / "deep.tif") as file:
        tag_v2: Any = getattr(file, "tag_v2", None)
        assert tag_v2[262] == 0
    ours, theirs = (read_fitted(tmp_path / name, SQUARE) for name in ("L.png", "deep.tif"))
    assert np.array_equal(ours, theirs)


REFUSED: list[tuple[str, Callable[[Levels], Image.Image], str]] = [
    ("twelve.png", of_numbers(np.uint16, 4095), "as where they hold 10, 12 or 14 bits"),
    ("ten.tif", of_numbers(np.uint16, 1023), "as where they hold 10, 12 or 14 bits"),
    ("long.tif", of_numbers(np.int32, 255), "32 bits"),
    ("longer.tif", of_numbers(np.int32, 2**31 - 1), "32 bits"),
    ("bytes.tif", of_numbers(np.float32, 255), "from 0 to 1, but are 0 to 255"),
    ("nothing.tif", of_numbers(np.float32, np.nan), "are nan to nan"),
    ("lab.tif", lambda levels: in_mode("RGB")(levels).convert("LAB"), "its colours are LAB"),
]


@pytest.mark.parametrize(("name", "make", "message"), REFUSED)
def test_a_file_that_does_not_say_how_bright_it_is_is_refused_by_name(
    name: str, make: Callable[[Levels], Image.Image], message: str, tmp_path: Path
) -> None:
    make(shades()).save(tmp_path / name)
    with pytest.raises(InputError) as refused:
        read_fitted(tmp_path / name, SQUARE)
    assert f"{tmp_path / name} is not (" in str(refused.value)
    assert message in str(refused.value)


def tiff_of(samples: bytes, **numbers: Any) -> bytes:
    """A TIFF file, 4 × 4, whose samples are stored as they are; tags by number, as `_258`."""
    directory = ImageFileDirectory_v2()
    whole = {"_256": 4, "_257": 4, "_259": 1, "_273": 0, "_278": 4, "_279": len(samples)}
    for name, number in (whole | numbers).items():
        directory[int(name[1:])] = number
    return b"II*\0" + struct.pack("<I", 8) + directory.tobytes(8) + samples  # 273 from its end


PALETTE = {"_258": 8, "_262": 3, "_277": 1}
APART = {"_258": (8, 8, 8), "_262": 2, "_277": 3, "_284": 2, "_279": (16, 16, 16)}


def test_what_pillow_reads_as_other_pixels_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "odd.tif"
    for content, why in (
        (tiff_of(b"\x40" * 16, _258=8, _262=1, _277=1, _339=2), "have a sign"),
        (
            tiff_of(
                b"\x40" * 96,
                **APART | {"_258": (16, 16, 16), "_273": (0, 32, 64), "_279": (32, 32, 32)},
            ),
            "stand apart",
        ),
        (tiff_of(b"\x03" * 16, **PALETTE, _320=3 * (0, 80, 160, *(253 * [255]))), "palette"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"odd.tif is not \(.*{why}"):
            read_fitted(path, SQUARE)
    for content in (  # their like are read
        tiff_of(b"\x40" * 16, _258=8, _262=1, _277=1, _339=1),
        tiff_of(b"\x40" * 48, **APART, _273=(0, 16, 32)),
        tiff_of(b"\x03" * 16, **PALETTE, _320=3 * (0, 257, 514, *(253 * [64 * 257]))),
    ):
        path.write_bytes(content)
        assert (read_fitted(path, (8, 8)) == 64).all()


def test_a_transparent_colour_of_16_bits_is_refused_but_white(tmp_path: Path) -> None:
    # Pillow keeps the upper eight bits of each: a neighbour would be transparent as well.
    chunks = {b"IHDR": struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)}
    pixels = {b"IDAT": zlib.compress(8 * (b"\0" + 8 * struct.pack(">HHH", 30_000, 99, 99)))}
    path = tmp_path / "deep.png"
    for level, is_read in ((30_000, False), (65535, True)):
        key = {b"tRNS": struct.pack(">HHH", level, level, level)}
        path.write_bytes(png_of_chunks(chunks | key | pixels | {b"IEND": b""}))
        if is_read:
            assert read_fitted(path, (8, 8))[0].min() == 30_000 >> 8
        else:
            with pytest.raises(InputError, match="cannot be told from those near it"):
                read_fitted(path, (8, 8))


def test_colours_of_12_bits_in_16_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "deep.ppm"
    samples = np.full((4, 4, 3), 4095, dtype=">u2").tobytes()
    path.write_bytes(b"P6\n4 4\n65535\n" + samples)
    with pytest.raises(InputError, match=r"deep.ppm is not .*10, 12 or 14 bits"):
        read_fitted(path, SQUARE)
    path.write_bytes(b"P6\n4 4\n4095\n" + samples)  # the file says what is white
    assert (read_fitted(path, SQUARE) == 255).all()


def test_metadata_that_cannot_be_read_cost_no_pixel_and_name_the_file(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(shades()).save(file, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09\x01\x12\xff")
    broken, whole = tmp_path / "broken.jpg", tmp_path / "whole.jpg"
    broken.write_bytes(file.getvalue())
    Image.fromarray(shades()).save(whole)
    remarks: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as python -W error has it
        assert np.array_equal(
            read_fitted(broken, SQUARE, remarks=remarks),
            read_fitted(whole, SQUARE, remarks=remarks),
        )
    (remark,) = remarks
    assert remark.startswith(f"{broken} (")


def test_what_is_no_file_with_contents_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "live.png")
    (tmp_path / "noise.png").symlink_to("/dev/zero")
    for name in ("live.png", "noise.png"):
        for read in (lambda path: read_fitted(path, SQUARE), read_size):
            with pytest.raises(InputError, match=rf"{name} is not \(it is no file with contents\)"):
                read(tmp_path / name)


@pytest.mark.parametrize("kind", fuzz_pictures.seeds())
def test_damaged_files_are_read_or_refused_by_name(kind: str, tmp_path: Path) -> None:
    """A share of the long run, `python -m scripts.experiments.fuzz_pictures`."""
    counts = fuzz_pictures.fuzz(kind, fuzz_pictures.seeds()[kind], 150, seed=2, folder=tmp_path)
    assert set(counts) == {"read", "refused"}
