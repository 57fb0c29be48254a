"""Plates: the wells of an OME-Zarr (HCS), and the fields in each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cellseg.errors import InputError
from cellseg.slide._guard import reading
from cellseg.slide._zarr import attributes_of
from cellseg.slide.limits import MAX_PLANES, check_count
from cellseg.storage import Location, inside


def read_plate(place: Location) -> tuple[list[Location], list[str]] | None:
    """The fields of an OME-Zarr plate, and its holes; None of what is no plate.

    Fields are images, in the plate's order of wells. Holes are wells as ``B03``, and fields as
    ``B03/1``, that the plate lists and that are not there: a copy that broke off, or places that
    were never imaged. They are a file's words, for terminals to be made visible.

    InputError if its metadata cannot be read, or none of its fields is there.
    """
    fields: list[Location] = []
    missing: list[str] = []
    with reading(place, "is no readable plate"):
        attributes = attributes_of(place) if place.suffix.lower() == ".zarr" else {}
        if "plate" not in attributes:
            return None
        wells = attributes["plate"].get("wells") or []
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
                    fields.append(home)
                else:
                    missing.append(f"{name}/{number}")
        if not fields:
            raise InputError(f"{place.name}: is a plate without a field; the copy is not complete")
    return fields, missing


def _path(listed: Mapping[str, Any], parts: int) -> str:
    path = str(listed["path"])
    if len(names := path.split("/")) != parts or {"", ".", ".."} & {*names}:
        what = "a well at ROW/COLUMN" if parts == 2 else "a field's folder"
        raise ValueError(f"expected {what}, got {path[:80]!r}")
    return path
