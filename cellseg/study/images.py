"""Which images a study holds, and where the result of each goes."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from sys import maxsize

from cellseg.errors import CellsegError, InputError, SettingsError, input_errors
from cellseg.pattern import FilePattern
from cellseg.slide.formats import ENDINGS, has_ending, home_of, is_image_folder, slide_name
from cellseg.storage import Location, RemotePath
from cellseg.study.fields import group_files
from cellseg.text import visible

RESULT = ".cellseg"
"""Ending of result folders; they are no images, and nothing is looked for in them."""


@dataclass(frozen=True)
class ImageFile:
    """An image to count, or one time point ``t`` of it.

    ``below``: the folders between the one that was searched and it.
    """

    path: Location
    below: PurePosixPath = field(default_factory=PurePosixPath)
    t: int | None = None

    def home(self, output: Location | None) -> Location:
        """The folder that gets the result folder: a place in ``output`` that mirrors the input."""
        if output is None:
            return home_of(self.path)
        for name in self.below.parts:
            output = output / name if isinstance(output, Path) else output.child(name)
        return output


@dataclass(frozen=True)
class ImageSearch:
    """The outcome of a search: images, each once, folder by folder; of a plate, its fields.

    ``unread`` are folders that could not be looked into, and plates with holes; ``notes`` say what
    else was not taken, a line each.
    """

    images: list[ImageFile]
    unread: list[tuple[Location, InputError]]
    notes: list[str] = field(default_factory=list)


def find_images(
    paths: Sequence[Location],
    *,
    recursive: bool = False,
    files: str | None = None,
    times: range | None = None,
) -> ImageSearch:
    """Files, each once, folders replaced by the images in them.

    Files of a folder that are channels of one field become one image. ``recursive`` looks in
    folders in folders too; but for hidden ones, links to folders, and results. ``files`` is a
    pattern of the names that are wanted: see :mod:`cellseg.pattern`. Each of the ``times`` is an
    image of its own. Time points that an image lacks are left out, and noted unless all are wanted:
    up to ``sys.maxsize``.

    An InputError if a folder holds no image, cannot be read, or if there is nothing but results. A
    SettingsError if the pattern is none, or there is no folder that it could be for.
    """
    found = ImageSearch([], [])
    pattern = None if files is None else FilePattern(files)
    if pattern is not None and not any(_is_folder(path) for path in paths):
        raise SettingsError("a pattern of names is for the files of a folder", hint="files")
    results: list[Location] = []
    for path in paths:
        if not _is_folder(path) or _is_image_folder(path):
            found.images.append(ImageFile(path))
        elif path.suffix.lower() == RESULT:
            results.append(path)
        else:
            # Of several folders each has a place of its own in the output.
            several = recursive and len(paths) > 1
            top = PurePosixPath(path.absolute().name) if several else PurePosixPath()
            before = len(found.images) + len(found.unread)
            has_folders = _search(path, top, found, pattern, recursive=recursive)
            if len(found.images) + len(found.unread) == before:
                if pattern is not None:
                    there = sorted(entry.name for entry in path.iterdir() if has_ending(entry))
                    instead = f"; there is {visible(there[0])}" if there else ""
                    raise InputError(f"{path}: no image matches '{files}'{instead}", hint="files")
                below = " or in those below it" if recursive else ""
                raise InputError(
                    f"{path}: no images in this folder{below} ({', '.join(ENDINGS)})",
                    hint="recursive" if has_folders and not recursive else "",
                )
    if not found.images and found.unread:
        raise found.unread[0][1]
    if not found.images:
        raise InputError(f"{results[0]}: is a result, not an image")
    once = {image.path.absolute(): image for image in found.images}
    images = [each for image in once.values() for each in _fields(image, found)]
    if times is not None:
        images = [each for image in images for each in _at_times(image, times, found)]
        if not images:
            raise found.unread[0][1]
    return ImageSearch(images, found.unread, found.notes)


def _at_times(image: ImageFile, times: range, found: ImageSearch) -> list[ImageFile]:
    """A time series' points; any other image is itself."""
    from cellseg.slide import open_slide

    try:
        with open_slide(image.path) as slide:
            there = slide.size_t
    except CellsegError:
        return [image]  # told when it is opened, and the others are counted
    if there == 1:
        return [image]
    points = [replace(image, t=t) for t in range(times.start, min(times.stop, there))]
    if not points:
        said = f"{image.path.name}: has time points 0 to {there - 1}, not {times.start}"
        found.unread.append((image.path, InputError(said, hint="t")))
    elif there < times.stop < maxsize:
        found.notes.extend({f"there are no time points after {there - 1}"} - {*found.notes})
    return points


def _fields(image: ImageFile, found: ImageSearch) -> list[ImageFile]:
    """The fields of a plate, whose holes are noted; any other image is itself."""
    if image.path.suffix.lower() != ".zarr":
        return [image]
    # Imported late: what reads plates takes long to load.
    from cellseg.slide.plates import read_plate

    try:
        plate = read_plate(image.path)
    except InputError:
        return [image]  # told when it is opened, and the others are counted
    if plate is None:
        return [image]
    fields, missing = plate
    if missing:
        first = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        said = f"{len(missing)} of its wells or fields are not there: {visible(first)}"
        found.unread.append((image.path, InputError(f"{image.path.name}: {said}")))
    return [ImageFile(field, image.below) for field in fields]


def _search(
    folder: Location,
    below: PurePosixPath,
    found: ImageSearch,
    pattern: FilePattern | None,
    *,
    recursive: bool,
) -> bool:
    """Add what lies in a folder; returns whether there are folders to search in it."""
    inner: list[Location] = []
    files: list[Location] = []
    images: list[Location] = []
    with input_errors(folder):
        entries: list[Location] = sorted(folder.iterdir(), key=str)
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_image_folder(entry):
                images.append(entry)
            elif has_ending(entry):
                files.append(entry)
            elif isinstance(entry, Path) and entry.is_symlink():
                continue  # it may lead back up
            elif entry.suffix.lower() != RESULT and entry.is_dir():
                inner.append(entry)
    names = {slide_name(image) for image in (*files, *images)} if pattern is None else set()
    masks = [file for file in files if _pictured(file) in names]
    files = [file for file in files if _pictured(file) not in names]
    fields, unread, rest = group_files(files, pattern)
    if rest:
        found.notes.append(f"{folder.name}: the pattern leaves out {_some(rest)}")
    if masks:
        found.notes.append(f"{folder.name}: masks of other images, not counted: {_some(masks)}")
    images += fields
    found.images.extend(ImageFile(image, below) for image in sorted(images, key=str))
    found.unread.extend(unread)
    for entry in inner if recursive else ():
        try:
            _search(entry, below / entry.name, found, pattern, recursive=True)
        except InputError as error:
            found.unread.append((entry, error))
    return bool(inner)


def _some(files: Sequence[Location]) -> str:
    more = f" and {len(files) - 3:,} more" * (len(files) > 3)
    return ", ".join(file.name for file in files[:3]) + more


def _pictured(file: Location) -> str | None:
    """The name of the image that a file of masks would belong to, by the usual endings."""
    named = re.fullmatch(r"(.+?)[_-](cp_)?(masks?|labels?|seg)", slide_name(file), re.IGNORECASE)
    return named[1] if named else None


def _is_image_folder(entry: Location) -> bool:
    """False where one cannot look: that is told when its files are looked for."""
    try:
        return entry.is_dir() and is_image_folder(entry)
    except OSError:
        return False


def _is_folder(path: Location) -> bool:
    """False of an image behind a URL: what lies there is asked when it is opened."""
    if isinstance(path, RemotePath) and has_ending(path):
        return False
    with input_errors(path):
        return path.is_dir()


def result_names(images: Sequence[ImageFile], output: Location | None) -> list[str]:
    """``slide.cellseg``; where two images would share it, the whole file name, then its folder's.

    What still differs in capitals alone gets a number made of them.
    """
    homes = [str(image.home(output)).lower() for image in images]
    longer = [_names(image) for image in images]
    names = [choices[0] for choices in longer]
    for step in (1, 2, 3):
        counts = _shared(homes, names)
        names = [
            choices[step] if counts[home, name.lower()] > 1 else name
            for home, name, choices in zip(homes, names, longer, strict=True)
        ]
    (_, name), most = _shared(homes, names).most_common(1)[0]
    if most > 1:
        raise SettingsError(
            f"{most} of the images would share the result folder {name}{RESULT}: give each image "
            "once, or count them into different folders"
        )
    return [f"{name}{RESULT}" for name in names]


def _names(image: ImageFile) -> tuple[str, ...]:
    """Names for a result, each less likely to be another image's than the one before."""
    path, point = image.path, "" if image.t is None else f"_t{image.t:03}"
    with_folder = f"{path.absolute().parent.name}-{path.name}{point}"
    # Two names that differ in capitals alone are one on many disks.
    letters = zlib.crc32(with_folder.encode(errors="surrogateescape"))
    short = f"{slide_name(path)}{point}"
    return short, f"{path.name}{point}", with_folder, f"{with_folder}-{letters:08x}"


def _shared(homes: Sequence[str], names: Sequence[str]) -> Counter[tuple[str, str]]:
    return Counter(zip(homes, (name.lower() for name in names), strict=True))
