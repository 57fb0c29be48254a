"""Fields whose channels, planes or time points are files of their own."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import numpy as np

from cellseg.errors import InputError
from cellseg.pattern import AXES, FilePattern, natural
from cellseg.slide._content import Content, Request, channel_names, choose_planes
from cellseg.slide._pixelsize import first_known
from cellseg.slide._raster import Pixels, Raster, recoloured
from cellseg.slide.formats import recognised
from cellseg.slide.limits import MAX_CHANNELS, MAX_PLANES, check_count
from cellseg.storage import Location, parts_of


def open_content(path: Location, request: Request) -> Content:
    """Open the files of a field, of one size and type; those of planes not read stay closed."""
    parts = parts_of(path)
    channels, z_planes, times = (
        sorted({key[axis] for key in parts}, key=natural) for axis in range(len(AXES))
    )
    check_count(path.name, "channels", len(channels), MAX_CHANNELS)
    check_count(path.name, "planes", len(z_planes) * len(times), MAX_PLANES)
    # Planes may be files, or lie in each file.
    are_files = len(z_planes) > 1, len(times) > 1
    outer = Request(request.z if are_files[0] else None, request.t if are_files[1] else None)
    inner = Request(None if are_files[0] else request.z, None if are_files[1] else request.t,
                    request.series)  # fmt: skip
    planes = choose_planes(path.name, outer, len(z_planes), len(times))
    opened: dict[tuple[int, str], Content] = {}
    with ExitStack() as files:
        for z in planes.z:
            for channel in channels:
                file = parts.get((channel, z_planes[z], times[planes.t]))
                if file is None:
                    raise InputError(f"{path.name}: lacks a file of channel {channel}, plane {z}")
                content = recognised(file).open_content(file, inner)
                files.callback(content.close)
                opened[z, channel] = one = _of_one_channel(file, content)
                found, expected = one.levels[0], next(iter(opened.values())).levels[0]
                if _shape(found) != _shape(expected):
                    raise InputError(
                        f"{file.name}: {found.height} × {found.width} px of {found.dtype}, other "
                        f"channels of the field have {expected.height} × {expected.width} px of "
                        f"{expected.dtype}"
                    )
        contents = list(opened.values())
        first, pattern = contents[0], FilePattern(path.name)

        def raster(level: int, z: int, channel: str) -> Raster:
            return opened[z, channel].levels[level]

        alike = [
            level
            for level in range(min(len(one.levels) for one in contents))
            if len({_shape(one.levels[level]) for one in contents}) == 1
        ]
        names = channel_names([pattern.channel_name(text) for text in channels], len(channels))
        return replace(
            first,
            format=f"{first.format}, {len(parts)} files",
            levels=tuple(planes.raster(channels, partial(raster, level)) for level in alike),
            channels=names,
            is_rgb=False,
            pixel_size=first_known(*(one.pixel_size for one in contents)),
            size_z=len(z_planes) if are_files[0] else first.size_z,
            size_t=len(times) if are_files[1] else first.size_t,
            notes=tuple(dict.fromkeys((*planes.notes, *(n for c in contents for n in c.notes)))),
            close=files.pop_all().close,
        )


def _of_one_channel(file: Location, content: Content) -> Content:
    """A file's content as one channel: of a colour picture the brightest of red, green, blue."""
    if content.is_rgb:

        def brightest(pixels: Pixels) -> Pixels:
            return np.asarray(pixels.max(axis=-1, keepdims=True))

        levels = tuple(
            recoloured(level, (0, 1, 2), brightest, bands=1, dtype=level.dtype)
            for level in content.levels
        )
        said = "channels are colour pictures: the brightest of red, green and blue is read"
        return replace(content, levels=levels, notes=(*content.notes, said))
    if content.levels[0].bands != 1:
        several = content.levels[0].bands
        raise InputError(f"{file.name}: holds {several} channels; expected a file for each channel")
    return content


def _shape(level: Raster) -> tuple[int, int, str]:
    return level.height, level.width, str(level.dtype)
