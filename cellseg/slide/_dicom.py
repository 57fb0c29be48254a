"""DICOM whole-slide microscopy, through wsidicom: a file, and what lies beside it of its series."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataelem import RawDataElement
from wsidicom import WsiDicom

from cellseg.errors import InputError
from cellseg.geometry import Box
from cellseg.slide import _pixelsize as sizes
from cellseg.slide._content import Content, Request, channel_names, choose_planes, choose_series
from cellseg.slide._guard import opened
from cellseg.slide._jpeg import check_jpeg
from cellseg.slide._raster import ChunkCache, Pixels, Raster, Source, chunked
from cellseg.storage import Location

_DEFERRED_BYTES, _UNDEFINED = 1024, 0xFFFFFFFF
"""Of a value: longer ones are passed over at first; the length of one that says where it ends."""

_NATIVE = "1.2.840.10008.1.2"
"""Transfer syntaxes that begin so, and end here or in ".1" or ".2", are not compressed."""


def open_content(path: Location, request: Request) -> Content:
    """Open a DICOM slide: a file with the rest of its series, or a folder with one slide."""
    return opened(
        path, "is no readable DICOM slide", lambda: WsiDicom.open(_files(Path(str(path)))),
        lambda slide: _content(path, slide, request),
    )  # fmt: skip


def _files(path: Path) -> list[Path]:
    """The files of one slide; a folder with several is refused."""
    series = _series(path if path.is_dir() else path.parent)
    if path.is_file():
        return next(files for files in series.values() if path in files)
    if len(series) != 1:
        first = ", ".join(files[0].name for files in list(series.values())[:3])
        raise InputError(
            f"{path.name}: holds {len(series)} DICOM series; pass one file of the slide "
            f"that is meant ({first}, …)"
        )
    return next(iter(series.values()))


def _series(folder: Path) -> Mapping[str, list[Path]]:
    found = defaultdict(list)
    for file in sorted(folder.iterdir()):
        if file.is_file() and pydicom.misc.is_dicom(file):
            try:
                tags = pydicom.dcmread(file, stop_before_pixels=True, defer_size=_DEFERRED_BYTES)
            except MemoryError as error:  # asked for at once, whatever the file's own length
                raise ValueError(f"{file.name} claims more bytes than it has") from error
            _check_lengths(file, tags)
            if "SeriesInstanceUID" in tags:  # DICOMDIR has none
                found[str(tags.SeriesInstanceUID)].append(file)
    return found


def _check_lengths(file: Path, tags: pydicom.Dataset) -> None:
    """Refuse a file that claims more bytes than it has, before they are asked for."""
    size = file.stat().st_size
    for tag in tags.values():
        ends = tag.value_tell + tag.length if isinstance(tag, RawDataElement) else 0
        if size < ends < _UNDEFINED:
            raise ValueError(f"{file.name} claims more bytes than it has")


def _content(path: Location, slide: WsiDicom, request: Request) -> Content:
    choose_series(path.name, request.series, 1)
    first = slide.levels[0]
    depths = sorted(first.focal_planes)
    planes = choose_planes(path.name, request, len(depths), 1)
    cache = ChunkCache()
    levels = tuple(
        planes.raster(
            first.optical_paths, partial(_raster, slide, Source(path, number, cache), depths)
        )
        for number in range(len(slide.levels))
    )
    is_rgb = levels[0].bands == 3 and levels[0].dtype == np.uint8
    syntax = first.default_instance.image_data.transfer_syntax

    return Content(
        format="DICOM",
        levels=levels,
        channels=channel_names((), levels[0].bands, is_rgb=is_rgb),
        is_rgb=is_rgb,
        pixel_size=sizes.judged(first.mpp.width, first.mpp.height, "DICOM pixel spacing"),
        size_z=len(depths),
        notes=planes.notes,
        compression="none" if _is_native(syntax) else str(syntax.name).lower(),
        close=slide.close,
    )


def _is_native(syntax: Any) -> bool:  # noqa: ANN401
    return str(syntax) in (_NATIVE, f"{_NATIVE}.1", f"{_NATIVE}.2")


def _raster(
    slide: WsiDicom, source: Source, depths: Sequence[float], z: int, optical: str
) -> Raster:
    level = slide.levels[source.level]
    data, depth = level.default_instance.image_data, depths[z]
    height, width = level.tile_size.height, level.tile_size.width

    def read(box: Box) -> Pixels:
        if not _is_native(data.transfer_syntax):
            tile = slide.read_encoded_tile(
                level.level, (box.x0 // width, box.y0 // height), depth, optical,
                crop_to_image_boundary=False,
            )  # fmt: skip
            if tile.startswith(b"\xff\xd8"):
                check_jpeg(tile, (height, width))
        pixels: Pixels = slide.read_region(
            (box.x0, box.y0), level.level, (box.width, box.height), depth, optical, as_array=True
        )
        return pixels if pixels.ndim == 3 else pixels[..., None]

    shape = (level.size.height, level.size.width, data.samples_per_pixel)
    dtype = np.dtype(np.uint8 if data.bits <= 8 else np.uint16)
    return chunked(source, shape, dtype, read, grid=(height, width))
