"""The one table of what is read: endings, first bytes, reader, and the extra that it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from cellseg.errors import InputError
from cellseg.storage import Location

if TYPE_CHECKING:
    from cellseg.slide._content import Content, Request

_HEAD_BYTES = 256


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes
    ----------
    name : str
        As people call it.
    endings : tuple of str
        In small letters; of one with two dots, the last part too.
    reader : str
        The module of this package whose ``open_content`` reads it. Imported late: readers'
        libraries take longer to load than most files to open.
    starts : tuple of bytes
        First bytes, one of which each file has.
    is_folder : bool
    """

    name: str
    endings: tuple[str, ...]
    reader: str
    starts: tuple[bytes, ...] = ()
    is_folder: bool = False

    def open_content(self) -> Callable[[Location, Request], Content]:
        """The function that reads it."""
        found: Callable[[Location, Request], Content] = import_module(
            f"cellseg.slide.{self.reader}"
        ).open_content
        return found


FORMATS = (
    Format(
        "TIFF",
        (".ome.tiff", ".ome.tif", ".tiff", ".tif", ".svs", ".ndpi", ".scn", ".qptiff", ".btf"),
        "_tiff",
        (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    ),
    Format("OME-Zarr", (".ome.zarr", ".zarr"), "_zarr", is_folder=True),
    Format("PNG", (".png",), "_fields", (b"\x89PNG\r\n\x1a\n",)),
    Format("JPEG", (".jpg", ".jpeg"), "_fields", (b"\xff\xd8\xff",)),
)

ENDINGS = tuple(ending for one in FORMATS for ending in one.endings if ending.count(".") == 1)
"""Of image files and folders, as :attr:`pathlib.Path.suffix` has them, in small letters."""


def has_ending(place: Location) -> bool:
    """Whether a name is that of an image."""
    return place.suffix.lower() in ENDINGS


def slide_name(path: Location) -> str:
    """A file's name without the ending of its format: ``S21.1234.svs`` is ``S21.1234``."""
    lower = path.name.lower()
    for ending in sorted((e for one in FORMATS for e in one.endings), key=len, reverse=True):
        if lower.endswith(ending) and len(lower) > len(ending):
            return path.name[: -len(ending)]
    return path.name


def recognised(file: Location) -> Format:
    """The format of what lies at a path: by its content, not by its name.

    Raises
    ------
    InputError
        There is nothing, or nothing that is read.
    """
    if file.is_dir():
        return next(one for one in FORMATS if one.is_folder)
    if not file.exists():
        raise InputError(f"{file}: no such file; check the path")
    if not file.is_file():
        raise InputError(f"{file}: is no regular file; expected an image")
    with file.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    if not head:
        raise InputError(f"{file.name}: is empty (0 bytes); copy it again")
    for one in FORMATS:
        if head.startswith(one.starts):
            return one
    raise InputError(
        f"{file.name}: is no image that cellseg reads; "
        f"expected {', '.join(one.name for one in FORMATS)}"
    )
