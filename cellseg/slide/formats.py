"""The one table of what is read: endings, first bytes, reader, and the extra that it needs."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from cellseg.errors import InputError, SettingsError
from cellseg.pattern import field_pattern
from cellseg.storage import Location, RemotePath, parts_of

if TYPE_CHECKING:
    from cellseg.slide._content import Content, Request

_HEAD_BYTES = 256


@dataclass(frozen=True)
class Format:
    """A kind of file."""

    name: str  # As people call it.
    endings: tuple[str, ...]  # In small letters; of one with two dots, the last part too.
    reader: str
    """The module of this package whose ``open_content`` reads it. Imported late: readers'
    libraries take longer to load than most files to open."""
    starts: tuple[bytes, ...] = ()
    """First bytes, one of which each file has; none: it is told by its ending, as a MIRAX,
    which begins like the JPEG that its first file is."""
    at: int = 0  # Where they lie.
    extra: str = ""  # With the reader's library; such libraries read from a disk only.

    def open_content(self, file: Location, request: Request) -> Content:
        """Open a file of this kind.

        InputError or SettingsError if it cannot be read, such as for want of an extra.
        """
        if self.extra and isinstance(file, RemotePath):
            raise InputError(f"{file}: {self.name} is read from a disk only; copy it there first")
        try:
            read = import_module(f"cellseg.slide.{self.reader}").open_content
        except ImportError as error:
            if not self.extra:
                raise
            raise SettingsError(
                f"{file.name}: {self.name} is read by {error.name}, which is not installed: "
                f'pip install "cellseg-slides[{self.extra}]"'
            ) from error
        content: Content = read(file, request)
        return content


_JP2 = b"\0\0\0\x0cjP  "  # Of older ND2.
OME_ZARR = Format("OME-Zarr", (".ome.zarr", ".zarr"), "_zarr")
FILES = Format("files of one field", (), "_files")
"""Of a name that is a pattern: see :mod:`cellseg.pattern`."""
DICOM = Format("DICOM", (".dcm",), "_dicom", (b"DICM",), at=128, extra="dicom")
OPENSLIDE = Format(
    "MIRAX, Ventana, Trestle, Sakura or Hamamatsu VMS",
    (".mrxs", ".bif", ".svslide", ".vms", ".vmu"),
    "_openslide",
    extra="openslide",
)
FORMATS = (
    Format(
        "TIFF",
        (".ome.tiff", ".ome.tif", ".tiff", ".tif", ".svs", ".ndpi", ".scn", ".qptiff", ".btf"),
        "_tiff",
        (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    ),
    OME_ZARR,
    Format("PNG", (".png",), "_fields", (b"\x89PNG\r\n\x1a\n",)),
    Format("JPEG", (".jpg", ".jpeg"), "_fields", (b"\xff\xd8\xff",)),
    DICOM,
    Format("Zeiss CZI", (".czi",), "_czi", (b"ZISRAWFILE",), extra="czi"),
    Format("Nikon ND2", (".nd2",), "_nd2", (b"\xda\xce\xbe\x0a", _JP2), extra="nd2"),
    Format("Leica LIF", (".lif",), "_lif", (b"\x70\0\0\0",), extra="lif"),
    OPENSLIDE,
)

ENDINGS = tuple(ending for one in FORMATS for ending in one.endings if ending.count(".") == 1)
"""Of image files and folders, as :attr:`pathlib.Path.suffix` has them, in small letters."""


def has_ending(place: Location) -> bool:
    """Whether a name is that of an image."""
    return place.suffix.lower() in ENDINGS


def is_image_folder(folder: Location) -> bool:
    """Whether a folder is one image: an OME-Zarr by its name, or DICOM files and no others."""
    return folder.suffix.lower() in OME_ZARR.endings or _is_dicom_folder(folder)


def _is_dicom_folder(folder: Location) -> bool:
    if not isinstance(folder, Path):
        return False
    endings = {entry.suffix.lower() for entry in folder.iterdir()}
    return endings & set(ENDINGS) == set(DICOM.endings)


def _plate_of(path: Location) -> Location | None:
    """The plate of a path that reads like a field's: ``PLATE.zarr/ROW/COLUMN/FIELD``."""
    plate = path.parent.parent.parent
    is_field = plate.suffix.lower() in OME_ZARR.endings and not path.suffix
    return plate if is_field else None


def home_of(path: Location) -> Location:
    """The folder beside an image: of a plate's field, the one beside the plate."""
    return (_plate_of(path) or path).parent


def image_name(path: Location) -> str:
    """What an image is called: its file's name, of a plate's field the plate's, well's and its."""
    is_file = _plate_of(path) is None and field_pattern(path.name) is None
    return path.name if is_file else slide_name(path)


def well_of(path: Location) -> str:
    """The well of a plate's field, such as ``B03``; empty of any other image."""
    if pattern := field_pattern(path.name):
        return pattern.well
    column = path.parent
    return "" if _plate_of(path) is None else f"{column.parent.name}{column.name}"


def plate_of(path: Location) -> str:
    """The plate of a field: its OME-Zarr's name, the pattern's, or that of the folder."""
    if plate := _plate_of(path):
        return slide_name(plate)
    pattern = field_pattern(path.name)
    named = pattern.values.get("plate") if pattern else None
    return named or path.absolute().parent.name


def slide_name(path: Location) -> str:
    """A file's name without the ending of its format: ``S21.1234.svs`` is ``S21.1234``.

    A plate's field has the plate's name, its well's and its own: ``plate.zarr/B/03/0`` is
    ``plate-B03-0``; a field of several files has what they share, ``B03_s1``.
    """
    plate = _plate_of(path)
    if plate is not None:
        return f"{slide_name(plate)}-{well_of(path)}-{path.name}"
    pattern = field_pattern(path.name)
    name = path.name if pattern is None else pattern.title
    for ending in sorted((e for one in FORMATS for e in one.endings), key=len, reverse=True):
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return name


def recognised(file: Location) -> Format:
    """The format of what lies at a path: by its content, not by its name.

    InputError if there is nothing, or nothing that is read.
    """
    if file.is_dir():
        return DICOM if _is_dicom_folder(file) else OME_ZARR
    if not file.exists():
        if parts_of(file):
            return FILES
        raise InputError(f"{file}: no such file; check the path")
    if not file.is_file():
        raise InputError(f"{file}: is no regular file; expected an image")
    with file.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    if not head:
        raise InputError(f"{file.name}: is empty (0 bytes); copy it again")
    if file.suffix.lower() in OPENSLIDE.endings:
        return OPENSLIDE
    for one in FORMATS:
        if head.startswith(one.starts, one.at):
            return one
    raise InputError(
        f"{file.name}: is no image that cellseg reads; "
        f"expected {', '.join(one.name for one in FORMATS)}"
    )
