"""Frames: planes of a camera or a laser scan that a library hands out whole."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cellseg.errors import InputError, RegionError
from cellseg.slide._content import Content, Request, channel_names, check_kind, choose_planes
from cellseg.slide._guard import check_whole, reading
from cellseg.slide._pixelsize import PixelSize
from cellseg.slide._raster import ChunkCache, ChunkedRaster, Pixels, Raster, stacked
from cellseg.slide.limits import MAX_CHANNELS, MAX_PLANES, check_count, check_plane
from cellseg.storage import Location


@dataclass(frozen=True)
class Frames:
    """What a library says of an image of frames.

    Attributes
    ----------
    size : dict of str to int
        Lengths of the axes Y, X, and of those of Z, T, C and S (red, green, blue) that it has.
    names : sequence of (str or None)
        Of the channels.
    count : int
        Images in the file.
    read : callable
        From (z, t, c) to that frame, (h, w) or (h, w, S).
    close : callable
    """

    format: str
    size: dict[str, int]
    dtype: np.dtype[np.generic]
    names: Sequence[str | None]
    pixel_size: PixelSize
    count: int
    read: Callable[[int, int, int], Pixels]
    close: Callable[[], None]
    notes: tuple[str, ...] = ()


class _FrameRaster(ChunkedRaster):
    """One frame, decoded whole."""

    def __init__(self, path: Location, frames: Frames, at: tuple[int, int, int],
                 rest: tuple[ChunkCache, threading.Lock]) -> None:  # fmt: skip
        shape = (frames.size["Y"], frames.size["X"], frames.size.get("S", 1))
        cache, self._lock = rest
        super().__init__(shape, check_kind(path.name, frames.dtype), shape[:2], cache=cache)
        self._path, self._frames, self._at = path, frames, at

    def decode(self, row: int, column: int) -> Pixels:
        """The frame, (h, w, bands)."""
        z, t, c = self._at
        where = f"the frame z {z}, t {t}, channel {c} does not decode"
        with self._lock, reading(self._path, where, kind=RegionError):
            pixels = np.asarray(self._frames.read(z, t, c))
            pixels = pixels if pixels.ndim == 3 else pixels[..., None]
            if pixels.shape != (self.height, self.width, self.bands):
                raise ValueError(f"expected {self.height} × {self.width}, decoded {pixels.shape}")
            return np.array(pixels, self.dtype)


def content_of(path: Location, frames: Frames, request: Request) -> Content:
    """The frames that are asked for.

    Raises
    ------
    InputError, SettingsError
    """
    size = frames.size
    others = [axis for axis, n in size.items() if axis not in "YXZTCS" and n > 1]
    if others or not {"Y", "X"} <= set(size) or frames.dtype.kind not in "buif":
        raise InputError(
            f"{path.name}: axes {', '.join(size)} of {frames.dtype} are not supported; "
            "expected y and x, and z, t or channels"
        )
    channels, z_planes, t_planes = (size.get(axis, 1) for axis in "CZT")
    bands = channels * size.get("S", 1)
    check_count(path.name, "channels", bands, MAX_CHANNELS)
    check_count(path.name, "planes", z_planes * t_planes, MAX_PLANES)
    check_plane(path.name, size["Y"], size["X"], (size["Y"], size["X"]))
    pixels = size["Y"] * size["X"]
    n_bytes = pixels * size.get("S", 1) * frames.dtype.itemsize
    check_whole(path, pixels=pixels, n_bytes=n_bytes, what="a frame")
    planes = choose_planes(path.name, request, z_planes, t_planes)
    rest = ChunkCache(), threading.Lock()
    level: Raster = planes.project([
        stacked([_FrameRaster(path, frames, (z, planes.t, c), rest) for c in range(channels)])
        for z in planes.z
    ])  # fmt: skip
    is_rgb = size.get("S", 1) == bands == 3

    def close() -> None:
        rest[0].clear()
        frames.close()

    return Content(
        format=frames.format,
        levels=(level,),
        channels=channel_names(frames.names, bands, is_rgb=is_rgb),
        is_rgb=is_rgb,
        pixel_size=frames.pixel_size,
        size_z=z_planes,
        size_t=t_planes,
        notes=(*planes.notes, *frames.notes),
        tiled=False,
        n_series=frames.count,
        close=close,
    )
