"""Rasters over the strips and tiles of TIFF pages, decoded one at a time."""

# Not by tifffile's aszarr: it hands out decoded pixels, so that JPEG data are not looked at for
# damage (400 zeroed bytes of a tile pass in silence), and an uncompressed page is one chunk.

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from cellseg.errors import RegionError
from cellseg.slide._guard import reading
from cellseg.slide._jpeg import check_jpeg, joined
from cellseg.slide._raster import CACHE_BYTES, ChunkCache, ChunkedRaster, Pixels
from cellseg.storage import Location

_ROWS_BYTES = 2_000_000
"""About how much of an uncompressed page is read at once."""

_JPEG = {6, 7, 34892, 33007}
LARGE_CHUNK_BYTES = CACHE_BYTES // 4
"""A compressed strip or tile above this is kept once decoded."""


@dataclass(frozen=True)
class Place:
    """Where a raster's data lie.

    Attributes
    ----------
    lock : threading.RLock
        Held while the file's position is used.
    level : int
        Number of the pyramid level, for messages.
    blank : int
        Value of tiles that the file leaves out on purpose.
    """

    path: Location
    lock: threading.RLock
    cache: ChunkCache
    level: int
    blank: int


class PageRaster(ChunkedRaster):
    """One sample plane (or the interleaved samples) of a TIFF page.

    Parameters
    ----------
    page : tifffile.TiffPage or tifffile.TiffFrame
    plane : int
        Which separate sample plane (planar configuration 2).
    depth : int
        Which z of a volumetric page.
    """

    def __init__(self, page: Any, place: Place, *, plane: int = 0, depth: int = 0) -> None:  # noqa: ANN401
        key = page.keyframe
        _, _, height, width, bands = key.shaped
        tile = (key.tilelength, key.tilewidth) if key.is_tiled else (key.rowsperstrip, width)
        self._rows, self._columns = math.ceil(height / tile[0]), math.ceil(width / tile[1])
        pinned = tile[0] * tile[1] * bands * key.dtype.itemsize > LARGE_CHUNK_BYTES
        pinned |= self._rows * self._columns == 1
        super().__init__(
            (height, width, bands), np.dtype(key.dtype), tile, cache=place.cache, pin=pinned
        )
        self._page, self._place = page, place
        # Writers round a tile up to whole blocks, and a strip to whole rows of them.
        self._most = (tile[0] + 64, tile[1] + 64)
        self._depth = depth % key.tiledepth if key.is_tiled else 0
        layers, layer = key.shaped[1], depth
        if key.is_tiled:
            layers, layer = math.ceil(layers / key.tiledepth), depth // key.tiledepth
        self._first = (plane * layers + layer) * self._rows * self._columns

    def decode(self, row: int, column: int) -> Pixels:
        """One strip or tile, (h, w, bands)."""
        index = self._first + row * self._columns + column
        where = (
            f"the {'tile' if self._page.keyframe.is_tiled else 'strip'} at "
            f"y {row * self._grid[0]}, x {column * self._grid[1]} of level {self._place.level} "
            "does not decode"
        )
        with reading(self._place.path, where, kind=RegionError):
            data = self._segment(index)
            if data is None:
                size = (*self.chunk, self.bands)
                return np.full(size, self._place.blank, self.dtype)
            extra: dict[str, Any] = {}
            if self._page.keyframe.compression in _JPEG:
                tables, header = self._page.jpegtables, self._page.keyframe.jpegheader
                extra = {"jpegtables": tables, "jpegheader": header}
                if header is None:
                    check_jpeg(joined(data, tables), self._most)
            decoded, _, _ = self._page.keyframe.decode(data, index, **extra)
            chunk: Pixels = decoded[min(self._depth, decoded.shape[0] - 1)]
            self._check(chunk, row, column)
            return chunk

    def _segment(self, index: int) -> bytes | None:
        """A segment's bytes; None where the file leaves it out on purpose."""
        offsets, counts = self._page.dataoffsets, self._page.databytecounts
        if index >= len(offsets) or index >= len(counts):
            raise ValueError("it is not in the file's index")
        offset, count = int(offsets[index]), int(counts[index])
        if offset == 0 and count == 0:
            return None
        return read_bytes(self._page.parent.filehandle, self._place.lock, offset, count)

    def _check(self, chunk: Pixels, row: int, column: int) -> None:
        height = min(self._grid[0], self.height - row * self._grid[0])
        width = min(self._grid[1], self.width - column * self._grid[1])
        if chunk.shape[0] < height or chunk.shape[1] < width or chunk.shape[2] != self.bands:
            raise ValueError(
                f"expected {height} × {width} × {self.bands} px, decoded {chunk.shape}"
            )


class RowsRaster(ChunkedRaster):
    """Uncompressed pixels in one run of bytes, read a few rows at a time.

    Parameters
    ----------
    offset : int
        Of the first pixel, bytes.
    shape : tuple of int
        (height, width, bands), bands interleaved.
    stored : np.dtype
        With the file's byte order.
    """

    def __init__(
        self,
        file: Any,  # noqa: ANN401
        offset: int,
        shape: tuple[int, int, int],
        stored: np.dtype[Any],
        place: Place,
    ) -> None:
        self._row_bytes = shape[1] * shape[2] * stored.itemsize
        rows = max(1, min(shape[0], _ROWS_BYTES // max(1, self._row_bytes)))
        super().__init__(shape, stored.newbyteorder("="), (rows, shape[1]), cache=place.cache)
        self._file, self._offset, self._stored, self._place = file, offset, stored, place

    def decode(self, row: int, column: int) -> Pixels:
        """A run of rows, (h, width, bands)."""
        first = row * self._grid[0]
        count = min(self._grid[0], self.height - first)
        where = f"rows {first} … {first + count - 1} of level {self._place.level} cannot be read"
        with reading(self._place.path, where, kind=RegionError):
            data = read_bytes(
                self._file,
                self._place.lock,
                self._offset + first * self._row_bytes,
                count * self._row_bytes,
            )
            rows = np.frombuffer(data, self._stored).reshape(count, self.width, self.bands)
            return rows.astype(self.dtype, copy=False)


def read_bytes(file: Any, lock: threading.RLock, offset: int, count: int) -> bytes:  # noqa: ANN401
    """Bytes of a tifffile handle that several threads share.

    Raises
    ------
    ValueError
        The file ends before.
    """
    with lock:
        if file.closed:
            file.open()
        if offset < 0 or count <= 0 or offset + count > file.size:
            raise ValueError("it lies beyond the end of the file, which was cut off")
        file.seek(offset)
        data: bytes = file.read(count)
    if len(data) != count:
        raise ValueError(f"expected {count} bytes, got {len(data)}")
    return data


def missing_segments(page: Any, size: int) -> tuple[int, int, int, int]:  # noqa: ANN401
    """How many strips or tiles there should be, are cut off, and are left out; the others' bytes.

    Parameters
    ----------
    page : tifffile.TiffPage or tifffile.TiffFrame
        The page to look at.
    size : int
        The file's size, bytes.
    """
    wanted = math.prod(page.keyframe.chunked)
    offsets = np.asarray(page.dataoffsets[:wanted], dtype=np.float64)
    counts = np.asarray(page.databytecounts[:wanted], dtype=np.float64)
    known = min(len(offsets), len(counts))
    offsets, counts = offsets[:known], counts[:known]
    sparse = (offsets == 0) & (counts == 0)
    cut = ~sparse & ((offsets + counts > size) | (offsets <= 0) | (counts <= 0))
    stored = int(counts[~sparse & ~cut].sum())
    return wanted, int(cut.sum()) + wanted - known, int(sparse.sum()), stored
