"""What a TIFF claims, checked before lists are made, files opened or pixels decoded for it."""

from __future__ import annotations

import math
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
import tifffile

from cellseg.errors import InputError
from cellseg.slide import limits
from cellseg.slide._content import Planes
from cellseg.slide._ome import check_claims, file_names, read_xml
from cellseg.slide._tiffpages import LARGE_CHUNK_BYTES, Layout
from cellseg.storage import Location

_CUT = "cut off: its pixel data reach beyond the end of the file; copy it again"
_LERC = 34887  # Of maps, never of slides; its packed data may claim any size.
_PAGES = 100  # That are asked for their levels: a slide's come first.


def check_metadata(path: Location, tif: tifffile.TiffFile) -> tuple[Element | None, list[str]]:
    """Refuse claims that no file keeps; from then on tifffile may make series.

    Of a set only files beside this one are read: a file's content never leads out of its folder.
    Returns the root of the OME-XML, and notes on other files.
    """
    name, root, notes = path.name, None, []
    if len(tif.pages) == 0:
        return None, []
    if tif.is_shaped:
        for page in _described(tif):
            if (text := page.shaped_description) is not None:
                shape = tifffile.tifffile.shaped_description_metadata(text)["shape"]
                limits.check_count(name, "dimensions", len(shape), limits.MAX_AXES)
    if tif.is_mmstack:
        _check_stack(name, tif.micromanager_metadata or {})
    if tif.is_ome:
        root = read_xml(name, tif.ome_metadata or "")
    if root is not None:
        check_claims(name, root, len(tif.pages))
    for number in range(min(len(tif.pages), _PAGES)):
        try:
            listed = getattr(tif.pages[number], "subifds", None)
        except Exception:
            listed = None
        limits.check_count(name, "levels of one page", len(listed or ()), limits.MAX_LEVELS)
    if isinstance(path, Path):
        file = path.resolve()
        notes = _keep_to_folder(file, tif)
        others = file_names(root) - {file.name} if root is not None else set()
        tif._multifile = bool(others) and all(_is_beside(file, other) for other in others)
    return root, notes


def _keep_to_folder(path: Path, tif: tifffile.TiffFile) -> list[str]:
    """Keep tifffile from opening what Micro-Manager's files name elsewhere; notes on it."""
    if tif.is_mmstack:
        stack = path.parent.glob(f"{path.name.partition('_MMStack')[0]}_MMStack*.tif")
        if not all(_is_beside(path, other.name) for other in stack):
            tif.is_mmstack = False
            return ["other files of its stack lie elsewhere: only this one is read"]
    if tif.is_ndtiff and not _is_own_index(path):
        tif.is_ndtiff = False
        return ["its NDTiff.index names other files: only this one is read"]
    return []


def _is_own_index(path: Path) -> bool:
    """Whether the index of a folder names this file alone; refuses more planes than can be."""
    index = path.parent / "NDTiff.index"
    if not _is_beside(path, index.name) or index.stat().st_size > limits.MAX_METADATA_BYTES:
        return False
    for place, name, *_ in tifffile.tifffile.read_ndtiff_index(index):
        if name != path.name:
            return False
        numbers = (abs(value) + 1 for value in place.values() if isinstance(value, int))
        limits.check_count(path.name, "planes", math.prod(numbers), limits.MAX_PLANES)
    return True


def _is_beside(path: Path, name: str) -> bool:
    """Whether a name is that of a regular file in the same folder, or of none at all."""
    if set(name) & set("/\\:\0") or name in ("", ".", ".."):
        return False
    found = (path.parent / name).resolve()
    return found.parent == path.parent and (
        not found.exists() or stat.S_ISREG(found.stat().st_mode)
    )


def _described(tif: tifffile.TiffFile) -> Iterable[Any]:
    """The pages from whose description tifffile makes series."""
    number = 0
    while number < len(tif.pages):
        page: Any = tif.pages[number]
        if page.shaped_description is None:
            return
        yield page
        if page.subifds:
            yield from page.pages or ()
        shape = tifffile.tifffile.shaped_description_metadata(page.shaped_description)["shape"]
        # As whole numbers: a text for one of them would be repeated as often as the others say.
        number += max(1, math.prod(map(int, shape)) // max(1, math.prod(map(int, page.shape))))


def _check_stack(name: str, metadata: Mapping[str, Any]) -> None:
    """Micro-Manager's summary and map of a stack, (channel, slice, frame, position, offset)."""
    summary, places = metadata["Summary"], metadata["IndexMap"]
    keys = ("Channels", "Slices", "Frames", "Positions")
    found = (np.max(places[:, :4], axis=0).astype(object) + 1).tolist()
    most = (max(known, int(summary.get(key, 1))) for known, key in zip(found, keys, strict=True))
    limits.check_count(name, "planes", math.prod(most), limits.MAX_PLANES)


def check_size(name: str, series: Any, layout: Layout) -> None:  # noqa: ANN401
    """Refuse a level that claims too much."""
    key = series.keyframe
    height, width = int(key.shaped[2]), int(key.shaped[3])
    whole = key.is_contiguous and not key.is_tiled
    chunk = (key.tilelength, key.tilewidth) if key.is_tiled else (key.rowsperstrip, width)
    if layout.is_interleaved:
        height, width = int(series.shape[0]), height
    limits.check_plane(name, height, width, (height, width) if whole else chunk)


def check_data(path: Location, series: Any, layout: Layout, planes: Planes) -> list[str]:  # noqa: ANN401
    """Refuse pixels that cannot be read at all, and say what will be dear or missing."""
    name, key = path.name, series.keyframe
    size = key.parent.filehandle.size
    if layout.is_interleaved or len(series.pages) < layout.count:
        n_bytes = int(np.prod(series.shape, dtype=object)) * key.dtype.itemsize
        if (series.dataoffset or 0) + n_bytes > size:
            raise InputError(f"{name}: {_CUT}")
        return []
    _check_codec(name, key)
    numbers = layout.numbers[planes.t, sorted({z // layout.depth for z in planes.z})]
    pages = [series.pages[number] for number in sorted(numbers.ravel().tolist())]
    counts = [_missing(page) for page in pages if page is not None] or [(0, 0, 0, 0)]
    wanted, cut, sparse, stored = (sum(count) for count in zip(*counts, strict=True))
    chunk_bytes = int(np.prod(key.chunks, dtype=object)) * key.dtype.itemsize
    # Uncompressed, and less than a hundredth of it there, whatever the tags say.
    hollow = int(key.compression) == 1 and 100 * stored < (wanted - sparse) * chunk_bytes
    if (cut >= wanted - sparse and cut > 0) or hollow:
        raise InputError(f"{name}: {_CUT}")
    limits.check_count(
        name, f"bytes of pixels in a file of {size:,}", stored, size * limits.MAX_REUSE
    )
    kind = "tiles" if key.is_tiled else "strips"
    notes: list[str] = []
    if cut:
        notes.append(
            f"damaged: {cut} of {wanted} {kind} lie beyond the end of the file; "
            "regions that need them cannot be read"
        )
    if sparse:
        notes.append(f"{sparse} of {wanted} {kind} are left out of the file: read as blank")
    pixels = math.prod(int(n) for n in key.shaped[2:])
    if key.is_contiguous and not key.is_tiled:
        return notes
    if chunk_bytes <= LARGE_CHUNK_BYTES and chunk_bytes < pixels * key.dtype.itemsize:
        return notes
    whole = pixels * key.dtype.itemsize * layout.separate * layout.channels * len(planes.z)
    return notes + limits.check_whole(name, "the image", max(whole, chunk_bytes))


def _missing(page: Any) -> tuple[int, int, int, int]:  # noqa: ANN401
    """How many strips or tiles should be there, are cut off, are left out; bytes of the others."""
    wanted = math.prod(page.keyframe.chunked)
    offsets = np.asarray(page.dataoffsets[:wanted], dtype=np.float64)
    counts = np.asarray(page.databytecounts[:wanted], dtype=np.float64)
    known = min(len(offsets), len(counts))
    offsets, counts = offsets[:known], counts[:known]
    sparse = (offsets == 0) & (counts == 0)
    size = page.parent.filehandle.size
    cut = ~sparse & ((offsets + counts > size) | (offsets <= 0) | (counts <= 0))
    stored = int(counts[~sparse & ~cut].sum())
    return wanted, int(cut.sum()) + wanted - known, int(sparse.sum()), stored


def _check_codec(name: str, key: Any) -> None:  # noqa: ANN401
    """Refuse a compression or a predictor that cannot be decoded, before the first read."""
    number = int(key.compression)
    if number == _LERC or (number != 1 and number not in tifffile.TIFF.DECOMPRESSORS):
        raise InputError(
            f"{name}: its compression, {compression(key)}, is not supported; convert it"
        )
    if key.decode.__name__.startswith("decode_raise"):
        try:
            key.decode(None, 0)
        except (ValueError, NotImplementedError) as error:
            raise InputError(f"{name}: cannot be decoded ({error}); convert it") from error


def compression(key: Any) -> str:  # noqa: ANN401
    """The compression's name in small letters."""
    name = getattr(key.compression, "name", None) or f"number {key.compression}"
    return "none" if name in ("NONE", "number 1") else str(name).lower()
