"""Outlines from GeoJSON, as QuPath exports objects."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cellseg.annotations.drawn import Drawing
from cellseg.errors import InputError

_FOUND = ("detection", "cell", "tile")
"""What QuPath calls objects that a program found: annotations beside them hold them."""


def read_geojson(path: Path, *, whole_cells: bool = False) -> Drawing:
    """Read the objects of a ``.geojson`` or ``.geojson.gz``.

    Beside detections or cells only those annotations are taken that say where everything was
    outlined, or what is to be ignored: others are what the detections lie in.

    Parameters
    ----------
    path : Path
    whole_cells : bool
        Of QuPath's cells take the cell's outline; otherwise that of its nucleus, where it has one.

    Raises
    ------
    InputError
        If the file cannot be read or is no GeoJSON.
    """
    try:
        raw = path.read_bytes()
        data = json.loads(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw)
        features = list(_features(data))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: is a damaged gzip file: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: no GeoJSON of objects: {said}") from error
    found = Drawing()
    for number, feature in enumerate(features, start=1):
        about = feature.get("properties")
        about = about if isinstance(about, Mapping) else {}
        geometry = feature.get("nucleusGeometry") or about.get("nucleusGeometry")
        geometry = feature.get("geometry") if whole_cells or not geometry else geometry
        kind, name = _kind(about), str(about.get("name") or "")
        said = f"feature {number}" + (f" ({kind or name})" if kind or name else "")
        try:
            rings = _rings(geometry)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            found.faults.append(f"{said}: no geometry: {' '.join(str(error).split())[:100]}")
            continue
        if rings is None:
            found.left_out["points and lines"] += 1
        else:
            is_found = about.get("objectType") in _FOUND
            found.add(rings, kind=kind, name=name, said=said, is_found=is_found)
    detected = [one for one in found.objects if one.is_found]
    if detected and len(detected) < len(found.objects):
        found.left_out["annotations around detections"] = len(found.objects) - len(detected)
        found.objects = detected
    return found


def _features(data: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(data, list):
        for entry in data:
            yield from _features(entry)
    elif not isinstance(data, dict):
        raise ValueError(f"expected an object, got {type(data).__name__}")
    elif data.get("type") == "FeatureCollection":
        yield from _features(data["features"])
    elif data.get("type") == "Feature":
        yield data
    elif "coordinates" in data or "geometries" in data:
        yield {"geometry": data}
    else:
        raise ValueError(f"an object of type {str(data.get('type'))[:40]!r}")


def _kind(about: Mapping[str, Any]) -> str:
    """The class; QuPath's derived ones, as ``Tumor: Positive``, come as a list of names."""
    found = about.get("classification")
    if not isinstance(found, Mapping):
        return found if isinstance(found, str) else ""
    names = found.get("names")
    return ": ".join(map(str, names)) if isinstance(names, list) else str(found.get("name") or "")


def _rings(geometry: Any) -> list[Any] | None:  # noqa: ANN401 - whatever the file holds
    """All rings of all polygons; None for what has no area."""
    match geometry["type"]:
        case "Polygon":
            return list(geometry["coordinates"])
        case "MultiPolygon":
            return [ring for polygon in geometry["coordinates"] for ring in polygon]
        case "GeometryCollection":
            parts = [_rings(part) for part in geometry["geometries"]]
            return [ring for part in parts for ring in part or ()] or None
        case "Point" | "MultiPoint" | "LineString" | "MultiLineString":
            return None
    raise ValueError(f"of type {str(geometry['type'])[:40]!r}")
