"""Which images a study holds, and where the result of each goes."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from cellseg.errors import InputError, SettingsError
from cellseg.slide.formats import ENDINGS, has_ending, home_of, is_image_folder, slide_name
from cellseg.storage import Location, RemotePath
from cellseg.text import visible

RESULT = ".cellseg"
"""Ending of result folders; they are no images, and nothing is looked for in them."""


@dataclass(frozen=True)
class Image:
    """An image to count.

    Attributes
    ----------
    path : Path or RemotePath
    below : PurePosixPath
        The folders that lie between the one that was searched and the image.
    """

    path: Location
    below: PurePosixPath = field(default_factory=PurePosixPath)

    def home(self, output: Location | None) -> Location:
        """The folder that gets the result folder: a place in ``output`` that mirrors the input."""
        if output is None:
            return home_of(self.path)
        if isinstance(output, Path):
            return output / self.below
        for name in self.below.parts:
            output = output.child(name)
        return output


@dataclass(frozen=True)
class Found:
    """What a search brought.

    Attributes
    ----------
    images : list of Image
        Each once, folder by folder, in the order of their names; of a plate, its fields.
    unread : list of (Path or RemotePath, InputError)
        Folders that could not be looked into, and plates with holes.
    """

    images: list[Image]
    unread: list[tuple[Location, InputError]]


def find_images(paths: Sequence[Location], *, recursive: bool = False) -> Found:
    """Files, each once, folders replaced by the images in them.

    Parameters
    ----------
    paths : sequence of Path or RemotePath
    recursive : bool
        Folders in folders too; but for hidden ones, links to folders, and results.

    Raises
    ------
    InputError
        If a folder holds no image, cannot be read, or if there is nothing but results.
    """
    found = Found([], [])
    results: list[Location] = []
    for path in paths:
        if isinstance(path, RemotePath) and has_ending(path):
            found.images.append(Image(path))  # what lies there is asked when it is opened
        elif not _is_folder(path) or _is_image_folder(path):
            found.images.append(Image(path))
        elif path.suffix.lower() == RESULT:
            results.append(path)
        else:
            # Of several folders each has a place of its own in the output.
            several = recursive and len(paths) > 1
            top = PurePosixPath(path.absolute().name) if several else PurePosixPath()
            _search(path, top, found, recursive=recursive)
    if not found.images:
        raise InputError(f"{results[0]}: is a result, not an image; cellseg view shows it")
    once = {image.path.absolute(): image for image in found.images}
    images = [each for image in once.values() for each in _fields(image, found)]
    return Found(images, found.unread)


def _fields(image: Image, found: Found) -> list[Image]:
    """The fields of a plate, whose holes are noted; any other image is itself."""
    if image.path.suffix.lower() != ".zarr":
        return [image]
    # Here and not above: what reads them takes long to load.
    from cellseg.slide.plates import is_plate, read_plate

    try:
        if not is_plate(image.path):
            return [image]
        plate = read_plate(image.path)
    except InputError:
        return [image]  # told when it is opened, and the others are counted
    if plate.missing:
        first = ", ".join(plate.missing[:5]) + (", …" if len(plate.missing) > 5 else "")
        said = f"{len(plate.missing)} of its wells or fields are not there: {visible(first)}"
        found.unread.append((image.path, InputError(f"{image.path.name}: {said}")))
    return [Image(one.path, image.below) for one in plate.fields]


def _search(folder: Location, top: PurePosixPath, found: Found, *, recursive: bool) -> None:
    """Add a folder's images.

    Raises
    ------
    InputError
        If there is none, or it cannot be read.
    """
    before, unread = len(found.images), len(found.unread)
    nested = _look_into(folder, top, found, recursive=recursive)
    if len(found.unread) > unread and found.unread[unread][0] is folder:
        raise found.unread[unread][1]
    if len(found.images) == before:
        below = " or in those below it" if recursive else ""
        hint = "; --recursive looks into its folders too" if nested and not recursive else ""
        endings = ", ".join(ENDINGS)
        raise InputError(f"{folder}: no images in this folder{below} ({endings}){hint}")


def _look_into(folder: Location, below: PurePosixPath, found: Found, *, recursive: bool) -> bool:
    """Add what lies in a folder; returns whether there are folders to search in it."""
    try:
        entries: list[Location] = sorted(folder.iterdir(), key=str)
        visible = [entry for entry in entries if not entry.name.startswith(".")]
        found.images.extend(Image(e, below) for e in visible if _is_image(e))
        inner = [entry for entry in visible if _is_searched(entry)]
    except InputError as error:
        found.unread.append((folder, error))
        return False
    except OSError as error:
        found.unread.append((folder, _unreadable(folder, error)))
        return False
    for entry in inner if recursive else ():
        _look_into(entry, below / entry.name, found, recursive=True)
    return bool(inner)


def _is_searched(entry: Location) -> bool:
    if _is_image(entry) or entry.suffix.lower() == RESULT:
        return False
    is_link = isinstance(entry, Path) and entry.is_symlink()  # may lead back up
    return not is_link and entry.is_dir()


def _is_image(entry: Location) -> bool:
    """A file, or a folder that is one image."""
    return has_ending(entry) or _is_image_folder(entry)


def _is_image_folder(entry: Location) -> bool:
    """False where one cannot look: that is told when its files are looked for."""
    try:
        return entry.is_dir() and is_image_folder(entry)
    except OSError:
        return False


def _is_folder(path: Location) -> bool:
    try:
        return path.is_dir()
    except InputError:
        raise
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Location, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be read: {error.strerror or error}")


def _whole_name(image: Location) -> str:
    return image.name


def _with_folder(image: Location) -> str:
    return f"{image.absolute().parent.name}-{image.name}"


def _with_its_letters(image: Location) -> str:
    """Two names that differ in capitals alone are one on many disks."""
    name = _with_folder(image)
    return f"{name}-{zlib.crc32(name.encode(errors='surrogateescape')):08x}"


_LONGER: tuple[Callable[[Location], str], ...] = (_whole_name, _with_folder, _with_its_letters)


def result_names(images: Sequence[Image], output: Location | None) -> list[str]:
    """``slide.cellseg``; where two images would share it, the whole file name, then its folder's.

    What still differs in capitals alone gets a number made of them.

    Raises
    ------
    SettingsError
        If even those are the same.
    """
    homes = [str(image.home(output)).lower() for image in images]
    names = [slide_name(image.path) for image in images]
    for longer in _LONGER:
        counts = _shared(homes, names)
        names = [
            longer(image.path) if counts[home, name.lower()] > 1 else name
            for image, home, name in zip(images, homes, names, strict=True)
        ]
    (_, name), most = _shared(homes, names).most_common(1)[0]
    if most > 1:
        raise SettingsError(
            f"{most} of the images would share the result folder {name}.cellseg: give each image "
            "once, or count them into different folders"
        )
    return [f"{name}{RESULT}" for name in names]


def _shared(homes: Sequence[str], names: Sequence[str]) -> Counter[tuple[str, str]]:
    return Counter(zip(homes, (name.lower() for name in names), strict=True))
