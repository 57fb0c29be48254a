"""Outlines from GeoJSON, as QuPath exports objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cellseg.annotations.drawn import Drawing
from cellseg.annotations.features import read_features
from cellseg.errors import line_of


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
    found = Drawing()
    for number, one in enumerate(read_features(path), start=1):
        said = f"feature {number}" + (f" ({one.kind or one.name})" if one.kind or one.name else "")
        try:
            rings = _rings(one.geometry if whole_cells or not one.nucleus else one.nucleus)
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            found.faults.append(f"{said}: no geometry: {line_of(error)[:100]}")
            continue
        if rings is None:
            found.left_out["points and lines"] += 1
        else:
            found.add(rings, kind=one.kind, name=one.name, said=said, is_found=one.is_found)
    detected = [one for one in found.objects if one.is_found]
    if detected and len(detected) < len(found.objects):
        found.left_out["annotations around detections"] = len(found.objects) - len(detected)
        found.objects = detected
    return found


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
