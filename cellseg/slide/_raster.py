"""Rasters: rectangles of one level of one plane, and what is built from them.

A raster hands out any box of itself as (h, w, bands) in native pixels. Rasters are stacked
(bands from several pages), projected (along z), turned (orientation) and recoloured by
wrapping one another; only the innermost ones decode.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from cellseg.geometry import Box
from cellseg.slide._rounding import round_to

Pixels = NDArray[Any]

CACHE_BYTES = 128_000_000
"""Decoded chunks that a slide keeps, so that neighbouring tiles do not decode them again."""


class Raster(Protocol):
    """One level of one plane.

    Attributes
    ----------
    chunk : tuple of int
        (height, width) of what is decoded at once.
    """

    height: int
    width: int
    bands: int
    dtype: np.dtype[Any]
    chunk: tuple[int, int]

    def region(self, box: Box, bands: Sequence[int]) -> Pixels:
        """Pixels of a box inside the raster, (h, w, len(bands))."""
        ...


class ChunkCache:
    """Decoded chunks, least recently used out first; each is decoded by one thread only.

    Parameters
    ----------
    max_bytes : int
        Budget of all chunks but the pinned ones.
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
        with self._lock:
            found = self._find(key)
            if found is not None:
                return found
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                found = self._find(key)
            if found is not None:
                return found
            try:
                chunk = make()
                self._keep(key, chunk, pin=pin)
            finally:
                with self._lock:
                    self._making.pop(key, None)
        return chunk

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._chunks.clear()
            self._pinned.clear()
            self._bytes = 0

    def _find(self, key: Hashable) -> Pixels | None:
        if key in self._pinned:
            return self._pinned[key]
        chunk = self._chunks.get(key)
        if chunk is not None:
            self._chunks.move_to_end(key)
        return chunk

    def _keep(self, key: Hashable, chunk: Pixels, *, pin: bool) -> None:
        with self._lock:
            if pin:
                self._pinned[key] = chunk
                return
            self._chunks[key] = chunk
            self._bytes += chunk.nbytes
            while self._bytes > self.max_bytes and len(self._chunks) > 1:
                _, gone = self._chunks.popitem(last=False)
                self._bytes -= gone.nbytes


class ChunkedRaster(ABC):
    """A raster that decodes chunks of a regular grid.

    Parameters
    ----------
    shape : tuple of int
        (height, width, bands).
    chunk : tuple of int
        (height, width) of a chunk; chunks at the far edges may be cut.
    pin : bool
        Whether a decoded chunk is kept for good (files that can only be decoded whole).
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        dtype: np.dtype[Any],
        chunk: tuple[int, int],
        *,
        cache: ChunkCache,
        pin: bool = False,
    ) -> None:
        self.height, self.width, self.bands = shape
        self.dtype = dtype
        self.chunk = (min(chunk[0], self.height), min(chunk[1], self.width))
        self._grid = chunk
        self._cache = cache
        self._pin = pin
        self._key = object()

    @abstractmethod
    def decode(self, row: int, column: int) -> Pixels:
        """One chunk, (h, w, bands); at least the part that lies inside the raster."""

    def region(self, box: Box, bands: Sequence[int]) -> Pixels:
        """Pixels of a box inside the raster, (h, w, len(bands))."""
        out = np.empty((box.height, box.width, len(bands)), self.dtype)
        if out.size == 0:
            return out
        everything = tuple(bands) == tuple(range(self.bands))
        height, width = self._grid
        for row, column in box.chunks(height, width):
            chunk = Box(0, 0, height, width).shifted(row * height, column * width)
            part = chunk.intersection(box)
            piece = self._cached(row, column)[part.inside(chunk)]
            out[part.inside(box)] = piece if everything else piece[:, :, list(bands)]
        return out

    def _cached(self, row: int, column: int) -> Pixels:
        key = (self._key, row, column)
        return self._cache.get(key, lambda: self.decode(row, column), pin=self._pin)


class StackedRaster:
    """Bands of several rasters of one size, one after another."""

    def __init__(self, rasters: Sequence[Raster]) -> None:
        first = rasters[0]
        self.height, self.width = first.height, first.width
        self.dtype, self.chunk = first.dtype, first.chunk
        self._bands = [(raster, band) for raster in rasters for band in range(raster.bands)]
        self.bands = len(self._bands)

    def region(self, box: Box, bands: Sequence[int]) -> Pixels:
        """Pixels of a box inside the raster, (h, w, len(bands))."""
        wanted: list[tuple[Raster, list[int], list[int]]] = []
        for place, number in enumerate(bands):
            raster, band = self._bands[number]
            if wanted and wanted[-1][0] is raster:
                wanted[-1][1].append(band)
                wanted[-1][2].append(place)
            else:
                wanted.append((raster, [band], [place]))
        if len(wanted) == 1:
            return wanted[0][0].region(box, wanted[0][1])
        out = np.empty((box.height, box.width, len(bands)), self.dtype)
        for raster, inner, places in wanted:
            out[:, :, places] = raster.region(box, inner)
        return out


def stacked(rasters: Sequence[Raster]) -> Raster:
    """Rasters of one size as one."""
    return rasters[0] if len(rasters) == 1 else StackedRaster(rasters)


class ProjectedRaster:
    """The maximum or the mean of several planes of one size."""

    def __init__(self, planes: Sequence[Raster], how: Literal["max", "mean"]) -> None:
        first = planes[0]
        self.height, self.width, self.bands = first.height, first.width, first.bands
        self.dtype, self.chunk = first.dtype, first.chunk
        self._planes, self._how = planes, how

    def region(self, box: Box, bands: Sequence[int]) -> Pixels:
        """Pixels of a box inside the raster, (h, w, len(bands)); means are rounded."""
        if self._how == "max":
            highest = self._planes[0].region(box, bands)
            for plane in self._planes[1:]:
                np.maximum(highest, plane.region(box, bands), out=highest)
            return highest
        total = np.zeros((box.height, box.width, len(bands)), np.float64)
        for plane in self._planes:
            total += plane.region(box, bands)
        total /= len(self._planes)
        return round_to(total, self.dtype)


class TurnedRaster:
    """A raster stored in another orientation than it is meant to be seen.

    Parameters
    ----------
    orientation : int
        TIFF or EXIF orientation, 2 to 8.
    """

    def __init__(self, inner: Raster, orientation: int) -> None:
        self._inner = inner
        self._swap = orientation >= 5
        self._flip_y = orientation in (3, 4, 7, 8)
        self._flip_x = orientation in (2, 3, 6, 7)
        size, chunk = (inner.height, inner.width), inner.chunk
        self.height, self.width = size[::-1] if self._swap else size
        self.chunk = (chunk[1], chunk[0]) if self._swap else chunk
        self.dtype, self.bands = inner.dtype, inner.bands

    def region(self, box: Box, bands: Sequence[int]) -> Pixels:
        """Pixels of a box inside the turned raster, (h, w, len(bands))."""
        y0, y1 = box.y0, box.y1
        x0, x1 = box.x0, box.x1
        if self._flip_y:
            y0, y1 = self.height - y1, self.height - y0
        if self._flip_x:
            x0, x1 = self.width - x1, self.width - x0
        stored = Box(x0, y0, x1, y1) if self._swap else Box(y0, x0, y1, x1)
        pixels = self._inner.region(stored, bands)
        if self._swap:
            pixels = pixels.swapaxes(0, 1)
        return np.ascontiguousarray(
            pixels[:: -1 if self._flip_y else 1, :: -1 if self._flip_x else 1]
        )


class RecolouredRaster:
    """Samples turned into the bands that a reader wants: palettes, CMYK, inverted grey.

    Parameters
    ----------
    samples : tuple of int
        The inner bands that are read.
    recolour : callable, optional
        From (h, w, len(samples)) to (h, w, bands); absent when samples are bands already.
    """

    def __init__(
        self,
        inner: Raster,
        samples: tuple[int, ...],
        recolour: Callable[[Pixels], Pixels] | None,
        *,
        bands: int,
        dtype: np.dtype[Any],
    ) -> None:
        self.height, self.width, self.chunk = inner.height, inner.width, inner.chunk
        self.bands, self.dtype = bands, dtype
        self._inner, self._samples, self._recolour = inner, samples, recolour

    def region(self, box: Box, bands: Sequence[int]) -> Pixels:
        """Pixels of a box inside the raster, (h, w, len(bands))."""
        if self._recolour is None:
            return self._inner.region(box, [self._samples[band] for band in bands])
        pixels = self._recolour(self._inner.region(box, self._samples))
        if tuple(bands) == tuple(range(self.bands)):
            return pixels
        return pixels[:, :, list(bands)]
