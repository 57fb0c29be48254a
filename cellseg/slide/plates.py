"""Plates: the wells of an OME-Zarr (HCS), and the fields in each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cellseg.errors import InputError
from cellseg.slide._guard import reading
from cellseg.slide._zarr import attributes_of
from cellseg.slide.limits import MAX_PLANES, check_count
from cellseg.storage import Location, inside


@dataclass(frozen=True)
class Field:
    """A field of view, an image of its own.

    Attributes
    ----------
    well : str
        Row and column as the plate has them, such as ``B03``: a file's words, for terminals to
        be made visible.
    number : int
        Of the field in its well, from 0.
    path : Path or RemotePath
        For :func:`cellseg.slide.open_slide`.
    """

    well: str
    number: int
    path: Location


@dataclass(frozen=True)
class Plate:
    """What there is of a plate.

    Attributes
    ----------
    fields : tuple of Field
        In the plate's order of wells.
    missing : tuple of str
        Wells, and fields as ``B03/1``, that the plate lists and that are not there: a copy that
        broke off, or places that were never imaged.
    """

    fields: tuple[Field, ...]
    missing: tuple[str, ...]


def is_plate(place: Location) -> bool:
    """Whether a folder is an OME-Zarr plate."""
    with reading(place, "is no readable plate"):
        return place.suffix.lower() == ".zarr" and "plate" in attributes_of(place)


def read_plate(place: Location) -> Plate:
    """The fields of an OME-Zarr plate by well; holes in it are listed.

    Raises
    ------
    InputError
        It is no plate, or none of its fields is there.
    """
    fields: list[Field] = []
    missing: list[str] = []
    with reading(place, "is no readable plate"):
        plate: dict[str, Any] = attributes_of(place).get("plate") or {}
        wells = plate.get("wells") or []
        check_count(place.name, "wells", len(wells), MAX_PLANES)
        for path in dict.fromkeys(_path(well, 2) for well in wells):
            folder = inside(place, path)
            name = "".join(path.split("/"))
            images = attributes_of(folder).get("well", {}).get("images") or []
            check_count(place.name, "fields", len(fields) + len(images), MAX_PLANES)
            if not images:
                missing.append(name)
            for number, field in enumerate(dict.fromkeys(_path(image, 1) for image in images)):
                home = inside(folder, field)
                if attributes_of(home):
                    fields.append(Field(name, number, home))
                else:
                    missing.append(f"{name}/{number}")
        if not fields:
            raise InputError(f"{place.name}: is a plate without a field; the copy is not complete")
    return Plate(tuple(fields), tuple(missing))


def _path(listed: Mapping[str, Any], parts: int) -> str:
    """Where a well, ``B/03``, or a field, ``0``, lies; what is listed twice is there once."""
    path = str(listed["path"])
    if len(names := path.split("/")) != parts or {"", ".", ".."} & {*names}:
        what = "a well at ROW/COLUMN" if parts == 2 else "a field's folder"
        raise ValueError(f"expected {what}, got {path[:80]!r}")
    return path
