"""Picture files: the same picture gives the same pixels, whatever kind of file it is in."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import logging
import threading
import warnings
from collections.abc import Callable, Iterator, MutableSequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from search.data.names import ImageSize
from search.exceptions import InputError
from search.files import check_has_contents

READS_LIKE = 4  # goes up where a file is read as other pixels than before: old ones are read anew
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_DETAIL = 2  # how many times larger than needed a JPEG is at least decoded
_ORIENTATION = 0x0112  # the tag of EXIF
_UPRIGHT = {  # what makes a picture upright that has such an orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)  # of those, where height and width are exchanged
_BITS, _COMPRESSION, _PHOTOMETRIC, _WHITE = 258, 259, 262, 281  # tags of TIFF
_PLANES, _COLOURS, _KIND_OF_SAMPLES = 284, 320, 339  # others
_DARK = 4  # samples of 16 bits that are all below so small a share of white may have fewer bits


def read_picture(
    path: Path,
    *,
    within: ImageSize,
    formats: tuple[str, ...] = _FORMATS,
    remarks: MutableSequence[str] | None = None,
) -> Image.Image:
    """The picture in a file, in RGB, as the camera was held; what is transparent is white.

    Of several pictures in a file it is the first. Colour profiles are not applied.

    Args:
        within: the height and width that a larger picture is scaled down to fit.
        formats: that the file may have, by Pillow's names.
        remarks: takes the file's name where it has something that its decoder complained of, and
            that cost no pixel.

    Raises:
        InputError: if the file is no such picture, or does not say how bright its pixels are.
    """
    with _decoding(path, formats) as heard:
        picture = _decode(path, within, formats, heard)
    if heard and remarks is not None:
        remarks.append(f"{path} ({heard[0]})")
    return picture


def read_size(path: Path) -> ImageSize:
    """Height and width of the picture in a file, as the camera was held; no pixel is read.

    Raises:
        InputError: if the file is no picture.
    """
    with _decoding(path, _FORMATS) as heard, Image.open(path, formats=_FORMATS) as file:
        # By the plain method: that of PNG reads all pixels to find what may come after them.
        orientation = _orientation(functools.partial(Image.Image.getexif, file), heard)
        is_turned = file.format == "TIFF"  # by Pillow, as soon as it is opened
        return file.size if orientation in _SIDEWAYS and not is_turned else file.size[::-1]


@contextlib.contextmanager
def _decoding(path: Path, formats: tuple[str, ...]) -> Iterator[list[str]]:
    """Raises InputError where a file cannot be decoded inside; what decoders complain of else."""
    _silence_decoders()
    try:
        check_has_contents(path)
        with _heard_warnings() as heard:
            yield heard
    except Exception as error:  # decoders of damaged files raise whatever there is
        kinds = formats[0] if len(formats) == 1 else f"{', '.join(formats[:-1])} or {formats[-1]}"
        raise InputError(
            f"Each picture must be a {kinds} file that can be read, but {path} is not "
            f"({_reason(error)})."
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, MemoryError):
        return "there is not enough memory for it"
    known = OSError | ValueError | SyntaxError | Image.DecompressionBombError
    return str(error) if isinstance(error, known) else f"damaged: {type(error).__name__} {error}"


def read_fitted(
    path: Path, size: ImageSize, *, remarks: MutableSequence[str] | None = None
) -> NDArray[np.uint8]:
    """The picture in a file, (3, H, W), its proportions kept; what it leaves free is black.

    Args:
        size: height and width.
        remarks: as for `read_picture`.

    Raises:
        InputError: if the file is no picture.
    """
    picture = read_picture(path, within=size, remarks=remarks)
    fitted = ImageOps.pad(picture, size[::-1], method=Image.Resampling.BICUBIC, color="black")
    return np.ascontiguousarray(np.asarray(fitted, dtype=np.uint8).transpose(2, 0, 1))


@functools.cache
def _silence_decoders() -> None:
    """Keeps Pillow and libtiff from printing what is wrong with a file, which Pillow raises."""
    logging.getLogger("PIL").addHandler(logging.NullHandler())  # in place of standard error
    with contextlib.suppress(AttributeError, OSError):  # where it is linked in another way
        library = ctypes.CDLL(
            importlib.import_module("PIL._imaging").__file__
        )  # and whatever that was linked with
        for handler in (library.TIFFSetErrorHandler, library.TIFFSetWarningHandler):
            handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            handler(None)


def _decode(
    path: Path, within: ImageSize, formats: tuple[str, ...], heard: list[str]
) -> Image.Image:
    detail = _DETAIL * max(within)  # along both sides, as it may lie on its side
    with Image.open(path, formats=formats) as file:
        file.draft(None, (detail, detail))
        is_deep = _has_deep_colours(file)
        if file.format == "TIFF":
            _check_samples(getattr(file, "tag_v2", {}))
        n_levels = _n_levels_of_grey(file)
        file.load()
        key = file.info.get("transparency")
        if isinstance(key, int) and n_levels is not None:  # Pillow scales the pixels alone
            file.info["transparency"] = key * 255 // (n_levels - 1)
        # Before it is shrunk: a palette's numbers, or black and white alone, have no mean.
        picture = _in_rgb(file, is_deep=is_deep)
        orientation = _orientation(file.getexif, heard)
    if orientation in _UPRIGHT:
        picture = picture.transpose(_UPRIGHT[orientation])
    picture.thumbnail(within[::-1])
    return picture


def _orientation(read_exif: Callable[[], Image.Exif], heard: list[str]) -> int:
    """How the camera was held, as EXIF has it; 1, upright, where that cannot be read."""
    try:  # after the pixels, as a TIFF file is turned while it is loaded
        orientation = read_exif().get(_ORIENTATION)
        return orientation if isinstance(orientation, int) else 1
    except Exception as error:  # the pixels are there
        heard.append(f"its metadata cannot be read: {type(error).__name__} {error}")
        return 1


def _has_deep_colours(file: Any) -> bool:
    """Whether a file, not loaded yet, has colours of 16 bits, of which Pillow keeps the upper 8."""
    arguments = [tile[3] for tile in file.tile]
    words = [word for each in arguments for word in (each if isinstance(each, tuple) else (each,))]
    return file.mode[0] not in "IF" and any(
        ";16" in word if isinstance(word, str) else isinstance(word, int) and word > 255
        for word in words
        if file.format in ("PNG", "TIFF", "PPM")
    )


def _check_samples(tags: Any) -> None:
    """Raises ValueError for a TIFF file that Pillow reads as other pixels than it has."""
    if tags.get(_KIND_OF_SAMPLES, (1,))[0] == 2 and tags.get(_BITS, (1,))[0] == 8:
        raise ValueError("its samples have a sign, and nothing says which is white; save it anew")
    are_apart = tags.get(_PLANES) == 2 and tags.get(_COMPRESSION, 1) == 1
    if are_apart and len(tags.get(_BITS, ())) > 1 and tags[_BITS][0] == 16:
        raise ValueError("its colours have 16 bits and stand apart; save it with 8 bits")
    colours = tags.get(_COLOURS, ()) if tags.get(_PHOTOMETRIC) == 3 else ()
    if colours and 0 < max(colours) < 256:  # of 16 bits, by the format
        raise ValueError(
            "its palette is black, as where that has 8 bits in place of 16; save it anew"
        )


def _n_levels_of_grey(file: Any) -> int | None:
    """How many levels a PNG file, not loaded yet, has where those are 4 or 16 greys."""
    modes = {tile[3] for tile in file.tile} if file.format == "PNG" else set()
    return {"L;2": 4, "L;4": 16}.get(modes.pop()) if len(modes) == 1 else None


def _in_rgb(picture: Image.Image, *, is_deep: bool) -> Image.Image:
    if picture.mode[0] in "IF":
        return Image.fromarray(_grey_levels(picture)).convert("RGB")
    if picture.mode in ("LAB", "HSV"):
        raise ValueError(f"its colours are {picture.mode}; save it in RGB")
    if picture.mode == "La":  # which Pillow only knows to make that of
        picture = picture.convert("LA")
    key = picture.info.get("transparency")
    if is_deep and isinstance(key, tuple):
        if min(key) >> 8 < 255:  # of white, those near it are white as well
            raise ValueError(
                "one of its colours of 16 bits is transparent, and cannot be told from those near "
                "it; save it with 8 bits, or with an alpha channel"
            )
        picture.info["transparency"] = (255, 255, 255)
    if picture.has_transparency_data:
        layers = picture.convert("RGBA")
        paper = Image.new("RGBA", layers.size, "white")
        flat = Image.alpha_composite(paper, layers).convert("RGB")
    else:
        layers = flat = picture.convert("RGB")
    if is_deep and np.asarray(layers)[..., :3].max() <= 255 // _DARK:
        raise _TooDarkError
    return flat


class _TooDarkError(ValueError):
    """Samples of 16 bits that may have fewer."""

    def __init__(self) -> None:
        super().__init__(
            f"its samples have 16 bits and are all below a {_DARK}th of their white, as where they "
            "hold 10, 12 or 14 bits; scale them to 16 bits, or save it with 8"
        )


def _grey_levels(picture: Image.Image) -> NDArray[np.uint8]:
    """A picture of numbers larger than bytes as grey levels, (H, W)."""
    values = np.asarray(picture)
    tags: Any = getattr(picture, "tag_v2", {})
    is_inverted = picture.format == "TIFF" and tags.get(_PHOTOMETRIC) == 0
    if picture.mode == "F":
        if not (values.min() >= 0 and values.max() <= 1):  # also where one is not a number
            raise ValueError(
                "its samples are floats, which must be from 0 to 1, but are "
                f"{values.min():g} to {values.max():g}; scale them, or save it with 8 bits"
            )
        levels = (255 * values.astype(np.float64)).round()
    else:
        levels = _levels_of_integers(picture, values, tags)
    grey = levels.astype(np.uint8)
    grey = 255 - grey if is_inverted else grey
    key = picture.info.get("transparency")
    return np.where(values == key, np.uint8(255), grey) if isinstance(key, int) else grey


def _levels_of_integers(
    picture: Image.Image, values: NDArray[Any], tags: dict[int, Any]
) -> NDArray[np.float64]:
    if not picture.mode.startswith("I;16") and picture.format != "PPM":
        raise ValueError(
            "its samples have a sign or 32 bits, and nothing says which is white; save it with 8 "
            "or 16 bits"
        )
    stated = tags.get(_WHITE) if picture.format == "TIFF" else None
    if picture.format == "TIFF" and tags.get(_BITS) == (12,):
        stated = stated or 4095
    if isinstance(stated, tuple):
        stated = stated[0] if stated else None
    if isinstance(stated, int) and 0 < stated < 65535:
        if values.max() > stated:
            raise ValueError(f"its white is {stated}, but it has samples of {values.max()}")
        return np.asarray(values * (255 / stated)).round()
    if 0 < values.max() < 65536 // _DARK:
        raise _TooDarkError
    return np.floor(
        values / 257
    )  # Pillow cuts off what is below a level, too, where it has 16 bits


class _Ears(threading.local):
    """What was warned of in a thread; None while nobody listens there."""

    heard: list[str] | None = None


_ears = _Ears()
_lock = threading.Lock()
_n_listening = 0
_before: warnings.catch_warnings[None] | None = None


@contextlib.contextmanager
def _heard_warnings() -> Iterator[list[str]]:
    """What is warned of inside, in this thread, as texts: none is printed, and none raised.

    Python keeps who shows warnings, and which, for all threads together; so the first to listen
    changes that, and the last one puts it back.
    """
    global _n_listening, _before
    heard: list[str] = []
    with _lock:
        if _n_listening == 0:
            _before = warnings.catch_warnings()
            _before.__enter__()
            show = warnings.showwarning
            warnings.simplefilter("always")

            def listen(message: Warning | str, *where: Any, **more: Any) -> None:
                if _ears.heard is None:  # another thread's, which is about something else
                    show(message, *where, **more)
                elif not isinstance(message, Image.DecompressionBombWarning):  # large, no more
                    _ears.heard.append(" ".join(str(message).split()))

            warnings.showwarning = listen
        _n_listening += 1
    outer, _ears.heard = _ears.heard, heard
    try:
        yield heard
    finally:
        _ears.heard = outer
        with _lock:
            _n_listening -= 1
            if _n_listening == 0 and _before is not None:
                _before.__exit__(None, None, None)
