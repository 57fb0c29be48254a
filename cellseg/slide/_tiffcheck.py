"""An open TIFF, and whether its pixels can be had at all before the first is asked for."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import tifffile

from cellseg.errors import InputError
from cellseg.slide._colour import Colour
from cellseg.slide._content import Planes
from cellseg.slide._guard import check_whole
from cellseg.slide._raster import ChunkCache
from cellseg.slide._tifflayout import Layout
from cellseg.slide._tiffpages import LARGE_CHUNK_BYTES, missing_segments
from cellseg.slide._tifftags import compression
from cellseg.slide.limits import MAX_REUSE, check_count
from cellseg.storage import Location

_CUT = "cut off: its pixel data reach beyond the end of the file; copy it again"


@dataclass(frozen=True)
class OpenTiff:
    """An open file and what is read of it."""

    path: Location
    tif: tifffile.TiffFile
    series: Any
    layout: Layout
    colour: Colour
    planes: Planes
    lock: threading.RLock
    cache: ChunkCache

    @property
    def key(self) -> Any:  # noqa: ANN401
        return self.series.keyframe


def check_data(opened: OpenTiff) -> list[str]:
    """Refuse what cannot be read at all, and say what will be dear or missing."""
    name, key = opened.path.name, opened.key
    size = opened.tif.filehandle.size
    if opened.layout.interleaved or len(opened.series.pages) < opened.layout.pages:
        n_bytes = int(np.prod(opened.series.shape, dtype=object)) * key.dtype.itemsize
        if (opened.series.dataoffset or 0) + n_bytes > size:
            raise InputError(f"{name}: {_CUT}")
        return []
    _check_codec(name, key)
    wanted = cut = sparse = stored = 0
    for page in _pages(opened):
        counts = missing_segments(page, page.parent.filehandle.size)
        wanted, cut, sparse, stored = (
            a + b for a, b in zip((wanted, cut, sparse, stored), counts, strict=True)
        )
    if (cut >= wanted - sparse and cut > 0) or _is_hollow(key, wanted - sparse, stored):
        raise InputError(f"{name}: {_CUT}")
    check_count(name, f"bytes of pixels in a file of {size:,}", stored, size * MAX_REUSE)
    kind = "tiles" if key.is_tiled else "strips"
    notes: list[str] = []
    if cut:
        notes.append(
            f"damaged: {cut} of {wanted} {kind} lie beyond the end of the file; "
            "regions that need them cannot be read"
        )
    if sparse:
        notes.append(f"{sparse} of {wanted} {kind} are left out of the file: read as blank")
    return notes + _check_cost(opened)


def _is_hollow(key: Any, chunks: int, stored: int) -> bool:  # noqa: ANN401
    """Whether less than a hundredth of uncompressed pixels is there, whatever the tags say."""
    chunk_bytes = int(np.prod(key.chunks, dtype=object)) * key.dtype.itemsize
    return int(key.compression) == 1 and 100 * stored < chunks * chunk_bytes


def _pages(opened: OpenTiff) -> list[Any]:
    """The pages of level 0 that the chosen planes need and the file has."""
    layout, planes = opened.layout, opened.planes
    numbers = {
        layout.page(z=z, t=planes.t, c=channel)[0]
        for z in planes.z
        for channel in range(layout.size("c"))
    }
    pages = (opened.series.pages[number] for number in sorted(numbers))
    return [page for page in pages if page is not None]


def _check_codec(name: str, key: Any) -> None:  # noqa: ANN401
    """Refuse a compression or a predictor that cannot be decoded, before the first read."""
    if int(key.compression) != 1 and int(key.compression) not in tifffile.TIFF.DECOMPRESSORS:
        raise InputError(
            f"{name}: its compression, {compression(key)}, is not supported; convert it"
        )
    decode = key.decode.__name__
    if decode.startswith("decode_raise"):
        try:
            key.decode(None, 0)
        except (ValueError, NotImplementedError) as error:
            raise InputError(f"{name}: cannot be decoded ({error}); convert it") from error


def _check_cost(opened: OpenTiff) -> list[str]:
    key = opened.key
    chunk_px = int(np.prod(key.chunks[:2], dtype=object)) if len(key.chunks) > 1 else 0
    chunk_bytes = int(np.prod(key.chunks, dtype=object)) * key.dtype.itemsize
    _, _, height, width, contig = (int(n) for n in key.shaped)
    alone = chunk_px >= height * width
    if key.is_contiguous and not key.is_tiled:
        return []
    if not alone and chunk_bytes <= LARGE_CHUNK_BYTES:
        return []
    count = opened.layout.separate * opened.layout.size("c") * len(opened.planes.z)
    pixels = height * width
    n_bytes = max(pixels * contig * key.dtype.itemsize * count, chunk_bytes)
    chunk_px = max(pixels, chunk_px)
    return check_whole(opened.path, pixels=chunk_px, n_bytes=n_bytes, what="the image")
