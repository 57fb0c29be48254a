"""Leica LIF, through liffile: its images are series."""

from __future__ import annotations

from typing import Any

from liffile import LifFile, LifImage

from cellseg.errors import InputError
from cellseg.slide import _pixelsize as sizes
from cellseg.slide._content import Content, Request, choose_series
from cellseg.slide._frames import Frames, content_of
from cellseg.slide._guard import opened
from cellseg.slide._raster import Pixels
from cellseg.storage import Location


def open_content(path: Location, request: Request) -> Content:
    """Open one image of a LIF; InputError or SettingsError if it cannot be read."""
    return opened(
        path, "is no readable LIF", lambda: LifFile(str(path)),
        lambda file: content_of(path, _frames(path, file, request.series), request),
    )  # fmt: skip


def _frames(path: Location, file: LifFile, series: int) -> Frames:
    images = file.images
    if len(images) == 0:
        raise InputError(f"{path.name}: has no image in it; expected at least one")
    image = images[choose_series(path.name, series, len(images))]
    if not isinstance(image, LifImage):
        raise InputError(f"{path.name}: image {series} holds lifetimes, which are not read")

    def read(z: int, t: int, c: int) -> Pixels:
        at: dict[str, Any] = {
            axis: n for axis, n in (("Z", z), ("T", t), ("C", c)) if axis in image.sizes
        }
        frame: Pixels = image.frame(**at)
        return frame

    return Frames(
        format="Leica LIF",
        size=dict(image.sizes),
        dtype=image.dtype,
        names=[],
        pixel_size=_pixel_size(image),
        count=len(images),
        read=read,
        close=file.close,
    )


def _pixel_size(image: LifImage) -> sizes.PixelSize:
    """From where the first and the last pixel lie, in metres."""
    side = {}
    for axis in "YX":
        places = image.coords.get(axis)
        if places is not None and len(places) > 1:
            side[axis] = float(places[-1] - places[0]) / (len(places) - 1)
    return sizes.from_scale(side.get("Y"), side.get("X"), ("m", "m"), "LIF dimensions")
