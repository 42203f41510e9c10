"""Damages picture files of each kind at random, and reads them as a search does.

    nice -n 10 python -m scripts.experiments.fuzz_pictures --each 10000

A file must give pixels, or be refused by its name. Whatever else is raised or warned of, printed by
a decoder, or larger or smaller than asked for, is a fault; the file that did it is kept.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import sys
import tempfile
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from search.data.pictures import read_fitted
from search.exceptions import InputError

SIDE = 28
_NUMBERS = (b"\x00", b"\xff", b"\x7f", b"\x80", b"\x00\x00", b"\xff\xff", b"\xff\xff\xff\x7f")


def seeds() -> dict[str, list[bytes]]:
    """Whole files of each kind, in the modes and with the metadata that it can have."""
    levels = np.random.default_rng(0).integers(0, 256, size=(23, 31, 4), dtype=np.uint8)
    colour = Image.fromarray(levels[..., :3])
    grey = colour.convert("L")
    plain = [grey, colour, grey.convert("1"), colour.convert("P")]
    clear = [Image.fromarray(levels), Image.fromarray(levels).convert("LA")]
    deep = Image.fromarray(levels[..., 0].astype(np.uint16) * 257)
    floats = Image.fromarray((levels[..., 0] / 255).astype(np.float32))
    exif = Image.Exif()
    exif.update({0x0112: 6, 0x010F: "camera", 0x0132: "2026:01:01 00:00:00", 0x8298: "nobody"})
    tiffs = [*plain, *clear, deep, floats, colour.convert("CMYK"), colour.convert("LAB")]
    return {
        "PNG": [
            *(_saved(each, "PNG", exif=exif, dpi=(72, 72)) for each in [*plain, *clear, deep]),
            _saved(grey, "PNG", transparency=7),
            _saved(colour.convert("P"), "PNG", transparency=b"\x00\x80\xff"),
            _saved(colour, "PNG", save_all=True, append_images=[colour.rotate(90)]),
        ],
        "JPEG": [
            *(_saved(each, "JPEG", exif=exif) for each in (grey, colour, colour.convert("CMYK"))),
            _saved(colour, "JPEG", progressive=True, comment="noted", dpi=(72, 72)),
            _saved(colour, "MPO", save_all=True, append_images=[colour.rotate(90)]),
        ],
        "GIF": [
            *(_saved(each, "GIF") for each in [*plain, *clear]),
            _saved(colour, "GIF", save_all=True, append_images=[grey], loop=0, comment="noted"),
        ],
        "BMP": [_saved(each, "BMP") for each in [*plain, clear[0]]],
        "TIFF": [
            *(_saved(each, "TIFF", tiffinfo={274: 6, 270: "noted"}) for each in tiffs),
            *(
                _saved(colour, "TIFF", compression=how)
                for how in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")
            ),
            _saved(grey.convert("1"), "TIFF", compression="group4"),
            _saved(deep, "TIFF", compression="tiff_lzw"),
        ],
        "WEBP": [
            *(_saved(each, "WEBP", exif=exif) for each in (grey, colour, clear[0])),
            *(_saved(each, "WEBP", lossless=True) for each in (colour, clear[0])),
            _saved(colour, "WEBP", save_all=True, append_images=[colour.rotate(90)]),
        ],
        "PPM": [
            *(_saved(each, "PPM") for each in plain[:3]),
            _saved(deep, "PPM"),
            b"P2\n# noted\n3 2\n15\n0 3 6\n9 12 15\n",
            b"P1\n3 2\n0 1 0\n1 0 1\n",
            b"Pf\n2 2\n-1.0\n" + np.array([0, 0.3, 0.6, 1], dtype="<f4").tobytes(),
        ],
    }


def _saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def damaged(whole: bytes, other: bytes, chance: random.Random) -> bytes:
    """A file with one to six things changed; one in eight has the end of another."""
    data = bytearray(whole)
    # Most of what decides anything stands in the first bytes.
    reach = len(data) if chance.random() < 0.5 else min(len(data), 200)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        place = chance.randrange(max(1, min(reach, len(data))))
        match chance.randrange(7):
            case 0:
                data[place : place + 1] = bytes([data[place] ^ (1 << chance.randrange(8))])
            case 1:
                data[place : place + 1] = bytes([chance.randrange(256)])
            case 2:
                number = chance.choice(_NUMBERS)
                data[place : place + len(number)] = number
            case 3:
                del data[place : place + chance.choice((1, 2, 4, 30))]
            case 4:
                data[place:place] = data[place : place + chance.choice((1, 4, 30))]
            case 5:
                data[place:place] = chance.randbytes(chance.choice((1, 2, 4, 30)))
            case 6 if chance.random() < 0.3:
                del data[place:]
        if not data:
            return b""
    if chance.random() < 0.125:
        data[len(data) // 2 :] = other[len(other) // 2 :]
    return _with_checksums(data) if chance.random() < 0.7 else bytes(data)


def _with_checksums(data: bytearray) -> bytes:
    """A PNG file whose checksums fit what it holds, so that decoders read on; others unchanged."""
    place = 8
    while data.startswith(b"\x89PNG\r\n\x1a\n") and place + 12 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4])
        if end + 4 > len(data):
            break
        data[end : end + 4] = zlib.crc32(data[place + 4 : end]).to_bytes(4)
        place = end + 4
    return bytes(data)


def fault(path: Path) -> str | None:
    """What is wrong with how a file is read, `read`, or None where it is refused by its name."""
    try:
        pixels = read_fitted(path, (SIDE, SIDE))
    except InputError as error:
        return None if str(path) in str(error) else f"refused without its name: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    is_right = pixels.shape == (3, SIDE, SIDE) and pixels.dtype == np.uint8
    return "read" if is_right else f"pixels of {pixels.shape} {pixels.dtype}"


@contextmanager
def what_decoders_print() -> Iterator[io.BufferedRandom]:
    """A file that takes what is printed to standard error, by libraries in C as well."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield file
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def fuzz(kind: str, files: list[bytes], n: int, *, seed: int, folder: Path) -> Counter[str]:
    """How many of `n` damaged files of a kind were `read`, `refused`, or had which fault."""
    chance = random.Random(f"{kind} {seed}")
    path = folder / f"damaged.{kind.lower()}"
    counts: Counter[str] = Counter()
    with warnings.catch_warnings(), what_decoders_print() as printed:
        warnings.simplefilter("error")
        for number in range(n):
            path.write_bytes(damaged(chance.choice(files), chance.choice(files), chance))
            found = fault(path)
            if os.fstat(printed.fileno()).st_size:
                printed.seek(0)
                found = f"printed: {printed.read(100)!r}"
                printed.seek(0)
                printed.truncate()
            counts["refused" if found is None else found] += 1
            if found not in (None, "read"):
                path.replace(folder / f"{kind.lower()}-{number}")
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--each", type=int, default=10_000, help="files of each kind")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    print("| kind | files | read | refused by name | faults | seconds |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for kind, files in seeds().items():
        begin = time.monotonic()
        counts = fuzz(kind, files, options.each, seed=options.seed, folder=folder)
        faults = counts.total() - counts["read"] - counts["refused"]
        numbers = (options.each, counts["read"], counts["refused"], faults)
        seconds = time.monotonic() - begin
        print(f"| {kind} | {' | '.join(f'{n:,}' for n in numbers)} | {seconds:.0f} |", flush=True)
        for found, count in counts.most_common():
            if found not in ("read", "refused"):
                print(f"  {count} × {found}; in {folder}", file=sys.stderr)


if __name__ == "__main__":
    main()
