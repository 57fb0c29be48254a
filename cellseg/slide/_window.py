"""Levels of which another library reads any window, for formats that belong to that library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cellseg.errors import RegionError
from cellseg.geometry import Box
from cellseg.slide._guard import reading
from cellseg.slide._raster import ChunkCache, ChunkedRaster, Pixels
from cellseg.slide.limits import check_plane
from cellseg.storage import Location

CHUNK_PX = 512
"""Side of the windows where a file does not say how it is cut."""


@dataclass(frozen=True)
class Place:
    """Where windows come from.

    Attributes
    ----------
    level : int
        Of the pyramid.
    """

    path: Location
    level: int
    cache: ChunkCache


class WindowRaster(ChunkedRaster):
    """A level that is read a window at a time.

    Parameters
    ----------
    shape : tuple of int
        (height, width, bands), px.
    read : callable
        From a box of this level to its pixels, (h, w, bands); what it raises, a damaged tile
        for instance, belongs to that window alone.
    chunk : tuple of int
        (height, width) of a window, px; best the file's own tiles.

    Raises
    ------
    InputError
        The level claims too much.
    """

    def __init__(
        self,
        place: Place,
        shape: tuple[int, int, int],
        dtype: np.dtype[np.generic],
        read: Callable[[Box], Pixels],
        chunk: tuple[int, int] = (CHUNK_PX, CHUNK_PX),
    ) -> None:
        check_plane(place.path.name, shape[0], shape[1], chunk)
        super().__init__(shape, dtype, chunk, cache=place.cache)
        self._place, self._read = place, read

    def decode(self, row: int, column: int) -> Pixels:
        """One window, (h, w, bands)."""
        y, x = row * self._grid[0], column * self._grid[1]
        box = Box(
            y, x, min(y + self._grid[0], self.height), min(x + self._grid[1], self.width)
        )  # fmt: skip
        where = f"the window at y {y}, x {x} of level {self._place.level} does not decode"
        with reading(self._place.path, where, kind=RegionError):
            pixels = self._read(box)
            if pixels.shape != (*box.shape, self.bands):
                raise ValueError(f"expected {(*box.shape, self.bands)}, decoded {pixels.shape}")
            return np.ascontiguousarray(pixels, self.dtype)
