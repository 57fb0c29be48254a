"""The objects of a GeoJSON file, and what QuPath says of each."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellseg.errors import InputError, line_of

_FOUND = ("detection", "cell", "tile")
_GZIP, _GZIP_HEAD = 31, b"\x1f\x8b"  # as zlib's wbits
_SPARE_BYTES, _MOST_PACKED = 64_000_000, 100
"""Packed text may grow to the one, or by the other: coordinates are packed ten to one."""


@dataclass(frozen=True, eq=False)
class Feature:
    """One object.

    Attributes
    ----------
    geometry, nucleus : mapping or None
        Its outline, and that of its nucleus where QuPath has both; as the file has them.
    kind, name : str
        Its class and its name; empty where it has none.
    is_found : bool
        A program found it, in place of a person.
    """

    geometry: Any
    nucleus: Any = None
    kind: str = ""
    name: str = ""
    is_found: bool = False


def read_features(path: Path) -> list[Feature]:
    """All objects of a ``.geojson``, packed by gzip or not.

    Raises
    ------
    InputError
        If the file cannot be read, is no GeoJSON, or unpacks to far more than outlines do.
    """
    try:
        raw = path.read_bytes()
        raw = _unpacked(raw) if raw[:2] == _GZIP_HEAD else raw
        return [_feature(one) for one in _features(json.loads(raw.decode("utf-8-sig")))]
    except (EOFError, zlib.error) as error:
        raise InputError(f"{path}: is a damaged gzip file: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise InputError(f"{path}: no GeoJSON of objects: {line_of(error)}") from error


def _unpacked(raw: bytes) -> bytes:
    most, out = max(_SPARE_BYTES, _MOST_PACKED * len(raw)), b""
    while raw:
        unpacker = zlib.decompressobj(_GZIP)
        out += unpacker.decompress(raw, most - len(out) + 1)
        if len(out) > most:
            raise ValueError(f"unpacks to more than {most / 1e6:,.0f} MB")
        if not unpacker.eof:
            raise EOFError("it ends too early")
        raw = unpacker.unused_data.lstrip(b"\0")
    return out


def _features(data: Any) -> Iterator[Mapping[str, Any]]:  # noqa: ANN401 - whatever the file holds
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
            yield {"geometry": None, **one}
        elif "coordinates" in one or "geometries" in one:
            yield {"geometry": one}
        else:
            raise ValueError(f"an object of type {str(one.get('type'))[:40]!r}")


def _feature(one: Mapping[str, Any]) -> Feature:
    about = one.get("properties")
    about = about if isinstance(about, dict) else {}
    nucleus = one.get("nucleusGeometry") or about.get("nucleusGeometry")
    is_found = about.get("objectType") in _FOUND
    return Feature(one["geometry"], nucleus, _kind(about), _text(about, "name"), is_found)


def _kind(about: Mapping[str, Any]) -> str:
    """The class; QuPath's derived ones, ``Tumor: Positive``, come as a list of names."""
    found = about.get("classification")
    if not isinstance(found, dict):
        return found if isinstance(found, str) else ""
    names = found.get("names")
    return ": ".join(map(str, names)) if isinstance(names, list) else _text(found, "name")


def _text(about: Mapping[str, Any], key: str) -> str:
    found = about.get(key)
    return str(found) if isinstance(found, str | int | float) else ""
