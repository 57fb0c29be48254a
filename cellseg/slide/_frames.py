"""Frames: planes of a camera or a laser scan that a library hands out whole."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cellseg.errors import InputError
from cellseg.geometry import Box
from cellseg.slide._content import Content, Request, channel_names, choose_planes, native
from cellseg.slide._pixelsize import PixelSize
from cellseg.slide._raster import ChunkCache, Pixels, Raster, Source, chunked
from cellseg.slide.limits import MAX_CHANNELS, MAX_PLANES, check_count, check_whole
from cellseg.storage import Location


@dataclass(frozen=True)
class Frames:
    """What a library says of an image of frames."""

    format: str
    size: dict[str, int]
    """Lengths of the axes Y, X, and of those of Z, T, C and S (red, green, blue) that it has."""

    dtype: np.dtype[np.generic]
    names: Sequence[str | None]
    pixel_size: PixelSize
    count: int  # Images in the file.
    read: Callable[[int, int, int], Pixels]  # From (z, t, c) to a frame, (h, w) or (h, w, S).
    close: Callable[[], None]
    notes: tuple[str, ...] = ()


def content_of(path: Location, frames: Frames, request: Request) -> Content:
    """The frames that are asked for."""
    size = frames.size
    others = [axis for axis, n in size.items() if axis not in "YXZTCS" and n > 1]
    if others or not {"Y", "X"} <= set(size) or frames.dtype.kind not in "buif":
        raise InputError(
            f"{path.name}: axes {', '.join(size)} of {frames.dtype} are not supported; "
            "expected y and x, and z, t or channels"
        )
    channels, z_planes, t_planes, samples = (size.get(axis, 1) for axis in "CZTS")
    height, width = size["Y"], size["X"]
    check_count(path.name, "channels", channels * samples, MAX_CHANNELS)
    check_count(path.name, "planes", z_planes * t_planes, MAX_PLANES)
    check_whole(path.name, "a frame", height * width * samples * frames.dtype.itemsize)
    planes = choose_planes(path.name, request, z_planes, t_planes)
    source, lock = Source(path, 0, ChunkCache()), threading.Lock()

    def frame(z: int, channel: int) -> Raster:
        def decode(_: Box) -> Pixels:
            with lock:
                pixels = np.array(frames.read(z, planes.t, channel))
            return pixels if pixels.ndim == 3 else pixels[..., None]

        what = f"frame z {z}, t {planes.t}, channel {channel},"
        shape, dtype = (height, width, samples), native(frames.dtype)
        return chunked(source, shape, dtype, decode, grid=shape[:2], what=what)

    is_rgb = channels == 1 and samples == 3
    return Content(
        format=frames.format,
        levels=(planes.raster(range(channels), frame),),
        channels=channel_names(frames.names, channels * samples, is_rgb=is_rgb),
        is_rgb=is_rgb,
        pixel_size=frames.pixel_size,
        size_z=z_planes,
        size_t=t_planes,
        notes=(*planes.notes, *frames.notes),
        tiled=False,
        n_series=frames.count,
        close=frames.close,
    )
