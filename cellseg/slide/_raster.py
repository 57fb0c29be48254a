"""Rasters: rectangles of one level of one plane, and what is built from them.

A raster hands out any box of itself as (h, w, bands) in native pixels. Rasters are stacked
(bands from several pages), projected (along z), turned (orientation) and recoloured; only the
innermost ones decode, a chunk at a time.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cellseg.errors import RegionError
from cellseg.geometry import Box
from cellseg.slide._guard import reading
from cellseg.slide.limits import check_plane
from cellseg.storage import Location

Pixels = NDArray[Any]
Recolour = Callable[[Pixels], Pixels]

CACHE_BYTES = 128_000_000
"""Decoded chunks that a slide keeps, so that neighbouring tiles do not decode them again."""

WINDOW_PX = 512  # Side of the chunks that are read where a file does not say how it is cut.


class ChunkCache:
    """Decoded chunks, least recently used out first; each is decoded by one thread only.

    ``max_bytes`` is for all chunks but the pinned ones.
    """

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._chunks: OrderedDict[Hashable, Pixels] = OrderedDict()
        self._pinned: dict[Hashable, Pixels] = {}
        self._making: dict[Hashable, threading.Lock] = {}
        self._bytes = 0

    def get(self, key: Hashable, make: Callable[[], Pixels], *, pin: bool = False) -> Pixels:
        """The chunk under ``key``, made when it is not there; ``pin`` keeps it for good."""
        if (found := self.find(key)) is not None:
            return found
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        with making:
            if (found := self.find(key)) is not None:
                return found
            try:
                chunk = make()
                self.keep(key, chunk, pin=pin)
            finally:
                with self._lock:
                    self._making.pop(key, None)
        return chunk

    def clear(self) -> None:
        with self._lock:
            self._chunks.clear()
            self._pinned.clear()
            self._bytes = 0

    def find(self, key: Hashable) -> Pixels | None:
        with self._lock:
            if key in self._chunks:
                self._chunks.move_to_end(key)
            return self._chunks.get(key, self._pinned.get(key))

    def keep(self, key: Hashable, chunk: Pixels, *, pin: bool = False) -> None:
        with self._lock:
            if pin:
                self._pinned[key] = chunk
                return
            self._chunks[key] = chunk
            self._bytes += chunk.nbytes
            while self._bytes > self.max_bytes and len(self._chunks) > 1:
                _, gone = self._chunks.popitem(last=False)
                self._bytes -= gone.nbytes


@dataclass(frozen=True, eq=False)
class Raster:
    """One level of one plane."""

    height: int
    width: int
    bands: int
    dtype: np.dtype[Any]
    chunk: tuple[int, int]  # (height, width) of what is decoded at once.
    region: Callable[[Box, Sequence[int]], Pixels]
    """From a box inside the raster and numbers of bands to pixels, (h, w, len(bands))."""


@dataclass(frozen=True)
class Source:
    """The file and the pyramid level that a raster decodes, and where it keeps its chunks."""

    path: Location
    level: int
    cache: ChunkCache


def chunked(
    source: Source,
    shape: tuple[int, int, int],
    dtype: np.dtype[Any],
    decode: Callable[[Box], Pixels],
    *,
    grid: tuple[int, int] = (WINDOW_PX, WINDOW_PX),
    what: str = "window",
    pin: bool = False,
) -> Raster:
    """A raster (height, width, bands) that is decoded in chunks of a regular ``grid``, (h, w).

    ``decode`` goes from a chunk's box, cut at the raster's edges, to at least its pixels,
    (h, w, bands). What it raises, for a damaged tile for instance, belongs to that chunk alone.
    False and true become 0 and 255. ``what`` is what a chunk is called in messages; with ``pin`` a
    decoded chunk is kept for good (files that can only be decoded whole).

    InputError if it claims too much.
    """
    height, width, bands = shape
    check_plane(source.path.name, height, width, grid)
    raster = object()

    def chunk(box: Box) -> Pixels:
        at = f"the {what} at y {box.y0}, x {box.x0} of level {source.level} does not decode"
        with reading(source.path, at, kind=RegionError):
            pixels = decode(box)
            short = pixels.shape[0] < box.height or pixels.shape[1] < box.width
            if short or pixels.shape[2:] != (bands,):
                raise ValueError(f"expected {(*box.shape, bands)}, decoded {pixels.shape}")
            if pixels.dtype.kind == "b":
                pixels = pixels * np.uint8(255)
            return np.ascontiguousarray(pixels, dtype)

    def region(box: Box, wanted: Sequence[int]) -> Pixels:
        out = np.empty((*box.shape, len(wanted)), dtype)
        everything = tuple(wanted) == tuple(range(bands))
        for row, column in box.chunks(*grid) if out.size else ():
            y, x = row * grid[0], column * grid[1]
            whole = Box(y, x, min(y + grid[0], height), min(x + grid[1], width))
            part = whole.intersection(box)
            pixels = source.cache.get((raster, row, column), lambda: chunk(whole), pin=pin)  # noqa: B023
            piece = pixels[part.inside(whole)]
            out[part.inside(box)] = piece if everything else piece[:, :, list(wanted)]
        return out

    size = min(grid[0], height), min(grid[1], width)
    return Raster(height, width, bands, dtype, size, region)


def stacked(rasters: Sequence[Raster]) -> Raster:
    """Bands of several rasters of one size, one after another."""
    if len(rasters) == 1:
        return rasters[0]
    owners = [(raster, band) for raster in rasters for band in range(raster.bands)]

    def region(box: Box, bands: Sequence[int]) -> Pixels:
        wanted: dict[Raster, list[int]] = {}
        for place, band in enumerate(bands):
            wanted.setdefault(owners[band][0], []).append(place)
        if len(wanted) == 1:
            return owners[bands[0]][0].region(box, [owners[band][1] for band in bands])
        out = np.empty((*box.shape, len(bands)), rasters[0].dtype)
        for raster, places in wanted.items():
            out[:, :, places] = raster.region(box, [owners[bands[place]][1] for place in places])
        return out

    return replace(rasters[0], bands=len(owners), region=region)


def projected(planes: Sequence[Raster], how: Literal["max", "mean"]) -> Raster:
    """The maximum or the rounded mean of several planes of one size."""

    def region(box: Box, bands: Sequence[int]) -> Pixels:
        total = planes[0].region(box, bands)
        if how == "mean":
            total = total.astype(np.float64)
        for plane in planes[1:]:
            (np.maximum if how == "max" else np.add)(total, plane.region(box, bands), out=total)
        return total if how == "max" else round_to(total / len(planes), planes[0].dtype)

    return replace(planes[0], region=region)


def turned(inner: Raster, orientation: int) -> Raster:
    """A raster stored in another orientation (TIFF's or EXIF's number) than it is to be seen."""
    swap = orientation >= 5
    flip_y, flip_x = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    height, width, chunk = inner.height, inner.width, inner.chunk
    if swap:
        height, width, chunk = width, height, chunk[::-1]

    def region(box: Box, bands: Sequence[int]) -> Pixels:
        y0, x0, y1, x1 = box.corners
        if flip_y:
            y0, y1 = height - y1, height - y0
        if flip_x:
            x0, x1 = width - x1, width - x0
        pixels = inner.region(Box(x0, y0, x1, y1) if swap else Box(y0, x0, y1, x1), bands)
        if swap:
            pixels = pixels.swapaxes(0, 1)
        return np.ascontiguousarray(pixels[:: -1 if flip_y else 1, :: -1 if flip_x else 1])

    return replace(inner, height=height, width=width, chunk=chunk, region=region)


def recoloured(
    inner: Raster,
    samples: tuple[int, ...],
    recolour: Recolour | None,
    *,
    bands: int,
    dtype: np.dtype[Any],
) -> Raster:
    """Samples turned into the bands that a reader wants: palettes, inverted grey.

    ``recolour`` goes from (h, w, len(samples)) to (h, w, bands); None: samples are bands already.
    """
    if recolour is None and samples == tuple(range(inner.bands)):
        return inner

    def region(box: Box, wanted: Sequence[int]) -> Pixels:
        if recolour is None:
            return inner.region(box, [samples[band] for band in wanted])
        return recolour(inner.region(box, samples))[:, :, list(wanted)]

    return replace(inner, bands=bands, dtype=dtype, region=region)


def round_to(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Floats in another dtype: rounded and clipped for integers, as they are for floats."""
    if dtype.kind == "f":
        return values.astype(dtype, copy=False)
    limits = np.iinfo(dtype)
    rounded: NDArray[Any] = np.clip(np.rint(values), limits.min, limits.max)
    if dtype.itemsize < 8:
        return rounded.astype(dtype)
    # 2**63 - 1 is no float: what reaches it would wrap around.
    top = rounded >= float(limits.max)
    return np.where(top, limits.max, np.where(top, 0, rounded).astype(dtype))
