"""GeoJSON, as QuPath exports it: objects to learn from, and regions to count in."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from gzip import GzipFile
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import shapely

from cellseg.annotations.masks import Drawing
from cellseg.annotations.region import Region, Regions, enclosed, stored_name
from cellseg.errors import InputError, SettingsError, input_errors, line_of

_FOUND = ("detection", "cell", "tile")
_GZIP_HEAD = b"\x1f\x8b"
_SPARE_BYTES, _MOST_PACKED = 64_000_000, 100
"""Packed text may grow to the one, or by the other: coordinates are packed ten to one."""

_WRONG = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError)
"""Errors of texts that are JSON and nothing else."""

_NO_SHAPE = (*_WRONG, shapely.errors.ShapelyError)


class Feature(NamedTuple):
    """One object of a file, its outline and its nucleus's as they stand there; texts may be empty.

    ``is_found``: by a program, in place of a person.
    """

    geometry: Any
    nucleus: Any
    kind: str
    name: str
    is_found: bool


def read_geojson(path: Path, *, whole_cells: bool = False) -> Drawing:
    """Outlines of objects in a ``.geojson`` or ``.geojson.gz``.

    Beside detections or cells only those annotations are taken that say where everything was
    outlined, or what is to be ignored: others are what the detections lie in. Of QuPath's cells
    ``whole_cells`` takes the outline; otherwise that of the nucleus is taken, where there is one.

    InputError if the file cannot be read or is no GeoJSON.
    """
    found = Drawing()
    for number, one in enumerate(_features(path), start=1):
        said = f"feature {number}" + (f" ({one.kind or one.name})" if one.kind or one.name else "")
        try:
            shape = _area(one.geometry if whole_cells or not one.nucleus else one.nucleus)
        except _NO_SHAPE as error:
            found.faults.append(f"{said}: no geometry: {line_of(error)[:100]}")
            continue
        if shape is None:
            found.left_out["points and lines"] += 1
            continue
        rings = shapely.get_rings(shapely.get_parts(shapely.get_parts(shape)))
        outlines = [shapely.get_coordinates(ring) for ring in rings]
        found.add(outlines, kind=one.kind, name=one.name, said=said, is_found=one.is_found)
    detected = [one for one in found.objects if one.is_found]
    if detected and len(detected) < len(found.objects):
        found.left_out["annotations around detections"] = len(found.objects) - len(detected)
        found.objects = detected
    return found


def read_regions(
    path: str | Path, *, content: bytes | None = None, is_named: bool = False
) -> Regions:
    """Regions of a GeoJSON file: (x, y) in level-0 pixels, 0 at the corner of the first pixel.

    Of QuPath's objects the annotations; where there are none, tiles and detections too. ``content``
    is taken in place of what the file holds.

    InputError if the file cannot be read, is no GeoJSON, or holds no polygon with an area. With
    ``is_named`` also where a region has no name, or two have one.
    """
    features = [one for one in _features(Path(path), content) if one.geometry is not None]
    if is_named:
        for name, count in Counter(stored_name(one.name) for one in features).items():
            if count > 1 or not name:
                why = f"{count} regions are called {name!r}" if name else "one has no name"
                raise InputError(f"each region needs a name of its own: {why}")
    drawn = [one for one in features if not one.is_found]
    left_out: Counter[str] = Counter()
    if drawn and len(drawn) < len(features):
        left_out["detections and tiles beside annotations"] = len(features) - len(drawn)
    regions, crossed = [], 0
    for number, one in enumerate(drawn or features, start=1):
        try:
            if (shape := _area(one.geometry)) is None:
                left_out["points and lines"] += 1
                continue
            regions.append(Region(enclosed(shape), one.name, one.kind))
            crossed += not shape.is_valid
        except SettingsError as error:
            if "area" not in str(error):
                raise InputError(f"{path}: region number {number}: {error}") from error
            left_out["regions without an area"] += 1
        except _NO_SHAPE as error:
            raise InputError(
                f"{path}: region number {number} is no polygon: {line_of(error)}"
            ) from error
    said = [f"left out: {what} ({count:,})" for what, count in left_out.items()]
    if not regions:
        why = f" ({'; '.join(said)})" if said else ""
        raise InputError(f"{path}: no GeoJSON with polygons{why}")
    if crossed:
        said.append(f"{crossed:,} outlines cross or overlap: what they enclose is counted once")
    return Regions.of(regions, notes=(f"{Path(path).name}: {line}" for line in said))


def is_empty(content: bytes) -> bool:
    """Whether a GeoJSON holds no feature at all; what cannot be read is not empty."""
    try:
        return bool(json.loads(content).get("features") == [])
    except _WRONG:
        return False


def _features(path: Path, content: bytes | None = None) -> list[Feature]:
    """All objects of a file, packed by gzip or not, which unpacks to no more than outlines do."""
    with input_errors(path, EOFError, zlib.error, *_WRONG, what="no GeoJSON of objects"):
        raw = path.read_bytes() if content is None else content
        raw = _unpacked(raw) if raw[:2] == _GZIP_HEAD else raw
        return [_feature(one) for one in _objects(json.loads(raw.decode("utf-8-sig")))]


def _unpacked(raw: bytes) -> bytes:
    most = max(_SPARE_BYTES, _MOST_PACKED * len(raw))
    out = GzipFile(fileobj=BytesIO(raw)).read(most + 1)
    if len(out) > most:
        raise ValueError(f"unpacks to more than {most / 1e6:,.0f} MB")
    return out


def _objects(data: Any) -> Iterator[Mapping[str, Any]]:  # noqa: ANN401 - whatever the file holds
    todo = [data]
    while todo:
        one = todo.pop()
        if isinstance(one, list):
            todo += one[::-1]
        elif not isinstance(one, dict):
            raise ValueError(f"expected an object, got {type(one).__name__}")
        elif one.get("type") == "FeatureCollection":
            todo += list(one["features"])[::-1]
        elif one.get("type") == "Feature":
            yield one
        elif "coordinates" in one or "geometries" in one:
            yield {"geometry": one}
        else:
            kind = f"of type {str(one['type'])[:40]!r}" if "type" in one else "without a type"
            raise ValueError(f"expected features or geometries, got an object {kind}")


def _feature(one: Mapping[str, Any]) -> Feature:
    about = one.get("properties")
    about = about if isinstance(about, dict) else {}
    return Feature(
        geometry=one.get("geometry"),
        nucleus=one.get("nucleusGeometry") or about.get("nucleusGeometry"),
        kind=_kind(about.get("classification")),
        name=_text(about.get("name")),
        is_found=about.get("objectType") in _FOUND,
    )


def _kind(found: object) -> str:
    """The class; QuPath's derived ones, ``Tumor: Positive``, come as a list of names."""
    if not isinstance(found, dict):
        return found if isinstance(found, str) else ""
    names = found.get("names")
    return ": ".join(map(str, names)) if isinstance(names, list) else _text(found.get("name"))


def _text(found: object) -> str:
    return str(found) if isinstance(found, str | int | float) else ""


def _area(geometry: Any) -> shapely.Geometry | None:  # noqa: ANN401 - whatever the file holds
    """A geometry that encloses an area; None for points and lines."""
    with np.errstate(invalid="ignore"):  # NaN is refused later, with a line
        shape = shapely.geometry.shape(geometry)
    return shape if shapely.get_dimensions(shape) == 2 else None
