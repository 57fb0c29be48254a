"""Zeiss CZI, through pylibCZIrw: scenes are series, subblocks of a pyramid are levels."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from pylibCZIrw.czi import CziReader, Rectangle

from cellseg.errors import InputError
from cellseg.geometry import Box
from cellseg.slide import _pixelsize as sizes
from cellseg.slide._content import Content, Request, channel_names, choose_planes, choose_series
from cellseg.slide._guard import opened
from cellseg.slide._raster import ChunkCache, Pixels, Raster, Source, chunked
from cellseg.slide.limits import MAX_CHANNELS, MAX_PLANES, check_count
from cellseg.storage import Location

_KINDS = {
    "Gray8": (1, np.uint8), "Gray16": (1, np.uint16), "Gray32Float": (1, np.float32),
    "Bgr24": (3, np.uint8), "Bgr48": (3, np.uint16), "Bgr96Float": (3, np.float32),
}  # fmt: skip
"""Bands and type of Zeiss's pixel types."""

_SURE_PX = 64


def open_content(path: Location, request: Request) -> Content:
    return opened(
        path, "is no readable CZI", lambda: CziReader(str(path)),
        lambda czi: _content(path, czi, request),
    )  # fmt: skip


def _content(path: Location, czi: CziReader, request: Request) -> Content:
    scenes = czi.scenes_bounding_rectangle_no_pyramid
    count = max(1, len(scenes))
    number = choose_series(path.name, request.series, count)
    scene = sorted(scenes)[number] if scenes else None
    frame = scenes[scene] if scene is not None else czi.total_bounding_rectangle_no_pyramid
    if frame.w < 1 or frame.h < 1:
        raise InputError(f"{path.name}: the image has no pixels; nothing to read")
    box = {axis: czi.total_bounding_box.get(axis, (0, 1)) for axis in "CZT"}
    start = {axis: first for axis, (first, _) in box.items()}
    size = {axis: end - first for axis, (first, end) in box.items()}
    check_count(path.name, "channels", size["C"], MAX_CHANNELS)
    check_count(path.name, "planes", size["Z"] * size["T"], MAX_PLANES)
    kinds = set(czi.pixel_types.values())
    if len(kinds) != 1 or not kinds <= set(_KINDS):
        raise InputError(f"{path.name}: pixels of {', '.join(sorted(kinds))} are not supported")
    planes = choose_planes(path.name, request, size["Z"], size["T"])
    cache = ChunkCache()
    levels = tuple(
        planes.raster(
            range(size["C"]),
            partial(
                _raster, czi, Source(path, level, cache), (scene, frame, step), start, planes.t
            ),
        )
        for level, step in enumerate(_steps(czi))
    )
    is_rgb = levels[0].bands == _KINDS[kinds.pop()][0] == 3

    metadata = czi.metadata["ImageDocument"]["Metadata"]
    dimensions = metadata["Information"]["Image"].get("Dimensions") or {}
    names = [one.get("@Name") for one in _several(dimensions.get("Channels"), "Channel")]
    return Content(
        format="Zeiss CZI",
        levels=levels,
        channels=channel_names(names, levels[0].bands, is_rgb=is_rgb),
        is_rgb=is_rgb,
        pixel_size=_pixel_size(metadata),
        size_z=size["Z"],
        size_t=size["T"],
        notes=planes.notes,
        n_series=count,
        close=czi.close,
    )


def _steps(czi: CziReader) -> list[int]:
    """Level-0 px per px of the levels that are stored: reading at others would skip pixels."""
    found = {1}

    def seen(_: int, block: Any) -> bool:  # noqa: ANN401
        # Of small blocks, at the edges, the sides are rounded too much.
        if block.physicalSize.w >= _SURE_PX:
            found.add(round(block.logicalRect.w / block.physicalSize.w))
        return True

    czi.enumerate_subblocks(seen)
    return sorted(found)


def _raster(
    czi: CziReader,
    source: Source,
    where: tuple[int | None, Rectangle, int],
    start: Mapping[str, int],
    t: int,
    z: int,
    channel: int,
) -> Raster:
    scene, frame, step = where
    plane = {"C": start["C"] + channel, "Z": start["Z"] + z, "T": start["T"] + t}
    bands, dtype = _KINDS[czi.pixel_types[plane["C"]]]

    def read(box: Box) -> Pixels:
        roi = (frame.x + box.x0 * step, frame.y + box.y0 * step,
               box.width * step, box.height * step)  # fmt: skip
        # White glass where a colour scan has no tile, darkness where a fluorescence scan has none.
        empty = (1.0, 1.0, 1.0) if bands == 3 else (0.0, 0.0, 0.0)
        pixels = czi.read(roi, plane, scene, 1 / step, background_pixel=empty)
        return np.asarray(pixels)[..., ::-1]

    height, width = max(1, frame.h // step), max(1, frame.w // step)
    return chunked(source, (height, width, bands), np.dtype(dtype), read)


def _pixel_size(metadata: Mapping[str, Any]) -> sizes.PixelSize:
    """From ``Scaling``, whose values are metres."""
    items = _several((metadata.get("Scaling") or {}).get("Items"), "Distance")
    side = {entry.get("@Id"): entry.get("Value") for entry in items}
    return sizes.from_scale(side.get("Y"), side.get("X"), ("m", "m"), "CZI scaling")


def _several(parent: Mapping[str, Any] | None, name: str) -> list[Mapping[str, Any]]:
    """Children of an element; one alone comes without a list."""
    found = (parent or {}).get(name) or []
    return found if isinstance(found, list) else [found]
