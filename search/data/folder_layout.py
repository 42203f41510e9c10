"""Where the images of a folder lie, found by names alone: classes, a split, what is left out."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from search.data.names import FOLDER, check_text, look_alike
from search.data.split_names import (
    PART_NAMES,
    TRAINING,
    hints_of_split,
    may_be_split,
)
from search.exceptions import DataError
from search.wording import counted

IMAGE_ENDINGS = frozenset(
    (
        *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
        *(".ppm", ".pgm", ".pbm", ".pnm"),
    )
)
# Pictures that are not read: who has them wants to know.
_OTHER_IMAGES = frozenset(
    (
        *(".heic", ".heif", ".avif", ".jxl", ".jp2", ".j2k", ".psd", ".xcf", ".svg", ".eps"),
        *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".tga", ".ico"),
        *(".exr", ".hdr", ".pfm", ".dcm", ".npy"),
    )
)
LEAST_OF_CLASS = 5  # images: three train, one validates, one tests
# What file servers, systems and programs for photographs keep beside pictures, in small letters:
# thumbnails and what was deleted. What begins with a dot is left out as well.
SYSTEM_FOLDERS = frozenset(
    (
        *("@eadir", "@__thumb", "@recycle", "@recently-snapshot", "@sharebin", "@tmp"),
        *("#recycle", "#snapshot", "$recycle.bin", "recycler", "lost+found", "__macosx"),
        *("system volume information", "network trash folder", "temporary items"),
        *("thumbs", "_thumbs", "thumbnails", "_thumbnails", "captureone"),
        *("~snapshot", "recycled", "ipod photo cache"),
    )
)
SYSTEM_ENDINGS = (".lrdata", ".lrcat-data", ".photoslibrary", ".cocatalog", ".aplibrary")
_N_SHOWN = 4  # kinds or names in a sentence


@dataclass(slots=True)
class LeftOut:
    """What of a folder is no image of a data set, and why.

    Args:
        kinds: how many files of each ending are of a kind that is not read.
        system: how often a folder of a system or a program was met, by its name.
        n_loose: images that lie in no class's folder.
        n_hidden: images whose names begin with a dot.
        n_links: folders that are links.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    system: Counter[str] = field(default_factory=Counter)
    n_loose: int = 0
    n_hidden: int = 0
    n_links: int = 0

    def words(self) -> str:
        """All of it; empty where nothing was left out."""
        parts = []
        if self.kinds:
            files = _listed(f"{n:,} {kind or 'without an ending'}" for kind, n in _most(self.kinds))
            more = sum(self.kinds.values()) - sum(n for _, n in _most(self.kinds))
            files += f" and {more:,} others" if more else ""
            mend = "; save them as JPEG or PNG" if _OTHER_IMAGES & set(self.kinds) else ""
            parts.append(f"files of kinds that are not read ({files}{mend})")
        if self.system:
            names = _listed(f"{name}" for name, _ in _most(self.system))
            more = len(self.system) - len(_most(self.system))
            names += f" and {more} others" if more else ""
            parts.append(f"{counted(sum(self.system.values()), 'folder')} of a system ({names})")
        if self.n_loose:
            parts.append(f"{counted(self.n_loose, 'image')} in no class's folder")
        if self.n_hidden:
            parts.append(f"{counted(self.n_hidden, 'hidden image')}")
        if self.n_links:
            parts.append(counted(self.n_links, "linked folder"))
        return ", ".join(parts)


def _most(counts: Counter[str]) -> list[tuple[str, int]]:
    """The most frequent, images of kinds that are not read first."""
    return sorted(counts.items(), key=lambda item: (item[0] not in _OTHER_IMAGES, -item[1]))[
        :_N_SHOWN
    ]


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(texts)


@dataclass(frozen=True, slots=True)
class FolderLayout:
    """The image files of a folder, by class.

    Args:
        classes: the names of the classes, sorted.
        files: of each class and part; the parts of a split that the folder brings or, where it
            brings none, `TRAINING` alone.
        is_split: whether it brings one.
    """

    folder: Path
    classes: tuple[str, ...]
    files: dict[tuple[int, int], tuple[Path, ...]]
    is_split: bool
    left_out: LeftOut


def folder_layout(folder: Path) -> FolderLayout:
    """Finds the image files of a folder, reading none.

    It has a sub-folder for each class; or sub-folders train and test, val or both, each with a
    sub-folder for each class. What lies deeper belongs to the class above.

    Raises:
        DataError: if it has neither, has both, cannot be read, has fewer than two classes, or a
            class has fewer than five images, or no text for a name.
    """
    left_out = LeftOut()
    names = _sub_folders(folder, left_out)
    parts = _parts(folder, names)
    if parts:
        classes = _same_classes(parts, left_out)
    else:
        classes = names
        _check_no_split(folder, classes)
        _check_two(folder, classes)
    for name in classes:
        check_text(name, f"The name of a class, here of a sub-folder of {folder},")
    if alike := look_alike(classes):
        raise DataError(
            f"Each class must have a name that looks otherwise than all others, but {folder} has "
            f"{', '.join(map(ascii, alike[:_N_SHOWN]))}; rename one, or put their images together."
        )
    files = {
        (label, part): tuple(sorted(_images_below(place / name, left_out)))
        for part, place in (parts or {TRAINING: folder}).items()
        for label, name in enumerate(classes)
    }
    layout = FolderLayout(folder, tuple(classes), files, bool(parts), left_out)
    check_counts(layout, {key: len(paths) for key, paths in files.items()})
    return layout


def check_counts(
    layout: FolderLayout, counts: dict[tuple[int, int], int], *, differing: str = ""
) -> None:
    """Raises DataError where a class has too few images, by the numbers of each class and part.

    Args:
        differing: how those that are counted differ.
    """
    parts = sorted({part for _, part in counts})
    besides = layout.left_out.words()
    left_out = f"; left out were {besides}" if besides else ""
    for label, name in enumerate(layout.classes):
        n = sum(counts[label, part] for part in parts)
        where = layout.folder / name if not layout.is_split else f"{name} in {layout.folder}"
        if n < LEAST_OF_CLASS:
            raise DataError(
                f"Each class must have {LEAST_OF_CLASS} different images or more, as each needs "
                f"some to train, to validate and to test, but {where} has {n}{differing} "
                f"({', '.join(sorted(IMAGE_ENDINGS))}){left_out}; add some, or take the folder "
                "away."
            )
        # Of those that train, some validate or test where the folder has none for that.
        least = {TRAINING: 1 + 3 - len(parts)} if layout.is_split else {}
        for part in parts:
            if counts[label, part] < least.get(part, 1):
                words = ("train", "validate", "test")[part]
                raise DataError(
                    f"Each class must have images in each part of a split, none of them in two, "
                    f"but {where} has {counts[label, part]}{differing} to {words}{left_out}; add "
                    "some, or take the class away."
                )


def is_of_a_system(name: str) -> bool:
    """Whether a folder of that name has no images of a data set."""
    lower = name.lower()
    return name[0] == "." or lower in SYSTEM_FOLDERS or lower.endswith(SYSTEM_ENDINGS)


def _sub_folders(folder: Path, left_out: LeftOut) -> list[str]:
    """The names of the sub-folders that may have images, sorted."""
    try:
        found = sorted((entry.name, entry.is_dir()) for entry in os.scandir(folder))
    except OSError as error:  # or of an entry, as a link that leads to itself
        raise _cannot_be_read(error, folder) from error
    names = []
    for name, is_folder in found:
        if not is_folder:
            _count_file(name, left_out, is_loose=True)
        elif is_of_a_system(name):
            left_out.system[name] += 1
        else:
            names.append(name)
    return names


def _count_file(name: str, left_out: LeftOut, *, is_loose: bool) -> bool:
    """Whether a file is an image of its class; counts it where it is not."""
    ending = os.path.splitext(name)[1].lower()  # noqa: PTH122 - a hundred thousand of them
    if ending not in IMAGE_ENDINGS:
        if name[0] != "." and name.lower() not in ("thumbs.db", "desktop.ini"):
            left_out.kinds[ending] += 1
        return False
    if name[0] == ".":
        left_out.n_hidden += 1
        return False
    left_out.n_loose += is_loose
    return not is_loose


def _cannot_be_read(error: OSError, folder: Path) -> DataError:
    return DataError(
        f"Each folder of images must be readable, but {error.filename or folder} is not "
        f"({error.strerror}); give yourself the right, or take it away."
    )


def _images_below(folder: Path, left_out: LeftOut) -> list[Path]:
    """The images of a class, whose folder has no split."""
    found = []
    for place, folders, images in _walk(folder, left_out):
        _check_no_parts(place, folders)
        found += images
    return found


def _walk(folder: Path, left_out: LeftOut) -> Iterator[tuple[Path, list[str], list[Path]]]:
    """A folder and each below it, with the names of the folders and the images that it has."""

    def refuse(error: OSError) -> None:
        raise _cannot_be_read(error, folder) from error

    for place, folders, names in os.walk(folder, onerror=refuse):
        for name in [name for name in folders if is_of_a_system(name)]:
            left_out.system[name] += 1
            folders.remove(name)
        left_out.n_links += sum(os.path.islink(os.path.join(place, name)) for name in folders)  # noqa: PTH114, PTH118
        images = [
            Path(place, name) for name in names if _count_file(name, left_out, is_loose=False)
        ]
        yield Path(place), folders, images


def _parts(folder: Path, names: Sequence[str]) -> dict[int, Path]:
    """The folders of the split that a folder brings, by part; none where it brings none.

    Raises:
        DataError: if it may be one, and may not.
    """
    named = [name for name in names if name.lower() in PART_NAMES]
    kinds = [PART_NAMES[name.lower()] for name in named]
    others = [name for name in names if name not in named]
    if len(set(kinds)) < 2:  # a train can be a class
        return {}
    others = [
        name for name in others if any(images for *_, images in _walk(folder / name, LeftOut()))
    ]
    if others:  # but for annotations
        raise DataError(
            f"A folder of images must have the folders of a split, or those of classes, but "
            f"{folder} has {_quoted(named)} beside {_quoted(others)}; name the folder that has the "
            f"classes, as {FOLDER}{folder / named[0]}, or rename what is no split."
        )
    if len(set(kinds)) < len(kinds) or TRAINING not in kinds:
        raise DataError(
            f"A split in folders must be train with val, test or both, but {folder} has "
            f"{_quoted(named)}; rename them, or name the folder that has the classes."
        )
    return {kind: folder / name for kind, name in sorted(zip(kinds, named, strict=True))}


def _check_no_split(folder: Path, classes: Sequence[str]) -> None:
    """Raises DataError where classes may be a split, or have one: what tests would train."""
    if parts := may_be_split(classes):
        raise DataError(
            f"A split in folders must be called train with val, test or both, but {folder} has "
            f"{_quoted(parts)}; rename them so, or otherwise where they are classes."
        )
    below = [_folders_in(folder / name) for name in classes]
    for name, found in zip(classes, below, strict=True):
        _check_no_parts(folder / name, found)
    shared = set(below[0]).intersection(*below) if len(below) > 1 else set()
    hints = hints_of_split(classes) or hints_of_split(shared)
    if hints and len(shared) > 1:
        raise DataError(
            f"A split in folders must be train with val, test or both, but {folder} has "
            f"{_quoted(classes)}, each with {_quoted(shared)}, which by {_quoted(hints)} may be "
            "one; rename or move them so, name the folder that has the classes, as "
            f"{FOLDER}{folder / classes[0]}, or rename what is no split."
        )


def _check_no_parts(place: Path, folders: Iterable[str]) -> None:
    """Raises DataError where a folder below a class has a split."""
    if parts := may_be_split(folders):
        raise DataError(
            f"A split in folders must lie above the classes, as train/{place.name}, but {place} "
            f"has {_quoted(parts)}; move them, or name the folder of one class as {FOLDER}{place} "
            "where that has the classes."
        )


def _folders_in(folder: Path) -> list[str]:
    with contextlib.suppress(OSError):  # which is told where its images are looked for
        return [e.name for e in os.scandir(folder) if e.is_dir() and not is_of_a_system(e.name)]
    return []


def _same_classes(parts: dict[int, Path], left_out: LeftOut) -> list[str]:
    """The classes that all parts of a split have.

    Raises:
        DataError: if they have not the same.
    """
    found = {place: _sub_folders(place, left_out) for place in parts.values()}
    training = parts[TRAINING]
    for place, names in found.items():
        if not names:
            raise DataError(
                f"Each part of a split must have a sub-folder for each class, but {place} has "
                f"none; sort its images into sub-folders, or name the folder of those that are, as "
                f"{FOLDER}{training}. Were {_quoted(p.name for p in parts.values())} classes, they "
                "would have to be called otherwise."
            )
        if names != found[training]:
            differing = sorted(set(names) ^ set(found[training]))
            raise DataError(
                f"Each part of a split must have the same classes, but {training} and {place} "
                f"differ in {_quoted(differing)}; rename or move them."
            )
    _check_two(training, found[training])
    return found[training]


def _check_two(folder: Path, classes: Sequence[str]) -> None:
    if len(classes) >= 2:
        return
    mend = "sort the images into sub-folders, as cat/ and dog/."
    if classes:
        below = _sub_folders(folder / classes[0], LeftOut())
        if len(below) >= 2:
            mend = f"are its classes in {FOLDER}{folder / classes[0]}?"
    raise DataError(
        f"A folder of images must have a sub-folder for each of two classes or more, but "
        f"{folder} has {f'only {classes[0]!r}' if classes else 'no sub-folder'}; {mend}"
    )


def _quoted(names: Iterable[str]) -> str:
    names = sorted(names)
    shown = ", ".join(map(repr, names[:_N_SHOWN]))
    return f"{shown} and {len(names) - _N_SHOWN} others" if len(names) > _N_SHOWN else shown
