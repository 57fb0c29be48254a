"""Regions from GeoJSON files, as QuPath exports them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from cellseg.annotations.region import Region, Regions, enclosed
from cellseg.errors import InputError, SettingsError

FOUND = ("detection", "cell", "tile")
"""What QuPath calls objects that a program found: beside annotations they are no regions."""


def read_regions(path: str | Path) -> Regions:
    """Regions of a GeoJSON file: (x, y) in level-0 pixels, 0 at the corner of the first pixel.

    Of QuPath's objects the annotations; where there are none, tiles and detections too.

    Raises
    ------
    InputError
        If the file cannot be read, is no GeoJSON, or holds no polygon with an area.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8-sig"))
        features = [*_features(data)]
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: no GeoJSON with polygons: {_line(error)}") from error
    drawn = [feature for feature in features if _text(feature[1], "objectType") not in FOUND]
    left_out: Counter[str] = Counter()
    if drawn and len(drawn) < len(features):
        left_out["detections and tiles beside annotations"] = len(features) - len(drawn)
    regions, crossed = [], 0
    for number, (geometry, about) in enumerate(drawn or features, start=1):
        try:
            with np.errstate(invalid="ignore"):  # NaN is refused below, with a line
                shape = shapely.geometry.shape(geometry)
            if not _has_polygons(shape):
                left_out["points and lines"] += 1
                continue
            regions.append(Region(enclosed(shape), _text(about, "name"), _kind(about)))
            crossed += not shape.is_valid
        except SettingsError as error:
            if "area" not in str(error):
                raise InputError(f"{path}: region number {number}: {error}") from error
            left_out["regions without an area"] += 1
        except (
            ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError,
            shapely.errors.ShapelyError,
        ) as error:  # fmt: skip
            raise InputError(
                f"{path}: region number {number} is no polygon: {_line(error)}"
            ) from error
    said = [f"{count:,} {what} are left out" for what, count in left_out.items()]
    if not regions:
        why = f" ({'; '.join(said)})" if said else ""
        raise InputError(f"{path}: no GeoJSON with polygons{why}")
    if crossed:
        said.append(f"{crossed:,} outlines cross or overlap: what they enclose is counted once")
    return Regions.of(regions, notes=(f"{Path(path).name}: {line}" for line in said))


def _features(data: object) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Geometry and properties of each object."""
    if isinstance(data, list):
        for entry in data:
            yield from _features(entry)
        return
    if not isinstance(data, dict):
        raise ValueError(f"expected an object, got {type(data).__name__}")
    match data.get("type"):
        case "FeatureCollection":
            yield from _features(data["features"])
        case "Feature":
            about = data.get("properties")
            if data["geometry"] is not None:
                yield data["geometry"], about if isinstance(about, dict) else {}
        case _ if "coordinates" in data or "geometries" in data:
            yield data, {}
        case other:
            raise ValueError(f"type {str(other)[:40]!r}")


def _has_polygons(shape: shapely.Geometry) -> bool:
    return bool(shapely.get_dimensions(shape) == 2)


def _text(about: Mapping[str, Any], key: str) -> str:
    found = about.get(key)
    return str(found) if isinstance(found, str | int | float) else ""


def _kind(about: Mapping[str, Any]) -> str:
    """The class; QuPath's derived ones, ``Tumor: Positive``, come as a list of names."""
    found = about.get("classification")
    if not isinstance(found, dict):
        return str(found) if isinstance(found, str) else ""
    if isinstance(names := found.get("names"), list):
        return ": ".join(str(name) for name in names)
    return _text(found, "name")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
