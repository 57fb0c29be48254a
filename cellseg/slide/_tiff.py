"""TIFF and what is built on it: OME-TIFF, SVS, NDPI, ImageJ, generic pyramids."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import tifffile

from cellseg.errors import InputError
from cellseg.slide import _pixelsize as sizes
from cellseg.slide._colour import Colour, interpret
from cellseg.slide._content import (
    Content,
    Planes,
    Request,
    channel_names,
    choose_planes,
    choose_series,
)
from cellseg.slide._guard import reading
from cellseg.slide._ome import OmeImage, parse_ome
from cellseg.slide._raster import ChunkCache, Raster, recoloured, turned
from cellseg.slide._tiffcheck import check_data, check_metadata, check_size, compression
from cellseg.slide._tiffpages import Layout, TiffSource, lay_out, plane_raster
from cellseg.slide.formats import OPENSLIDE
from cellseg.storage import Location, RemotePath


def open_content(path: Location, request: Request) -> Content:
    """Open a TIFF of any kind."""
    what = "is no readable TIFF, is cut off or damaged"
    advice = "try to open it in the program that wrote it and save it again"
    with ExitStack() as files, reading(path, what, advice=advice):
        # Of a set of files only this one, until it is known where the others lie.
        if isinstance(path, RemotePath):
            file = files.enter_context(path.open())
            tif = tifffile.TiffFile(file, name=path.name, _multifile=False)
        else:
            tif = tifffile.TiffFile(path, _multifile=False)
        files.callback(tif.close)
        if not _is_stitched(tif):
            content = _content(path, tif, request, files)
            return replace(content, close=files.pop_all().close)
    return OPENSLIDE.open_content(path, request)


def _is_stitched(tif: tifffile.TiffFile) -> bool:
    """Whether its tiles overlap, as those of Ventana and Trestle: OpenSlide puts them in place."""
    if not len(tif.pages):
        return False
    page: Any = tif.pages[0]
    return bool(tif.is_bif) or str(page.tags.valueof(305, default="")).startswith("MedScan")


def _content(path: Location, tif: tifffile.TiffFile, request: Request, files: ExitStack) -> Content:
    root, told = check_metadata(path, tif)
    series = _series(path.name, tif, request.series)
    key = series.keyframe
    if not isinstance(getattr(key, "dtype", None), np.dtype):
        raise InputError(f"{path.name}: its sample format is not supported; convert it")
    layout = lay_out(path.name, series, z_asked=request.z is not None)
    colour = interpret(path.name, key, layout.samples, is_imagej=bool(tif.is_imagej))
    planes = choose_planes(path.name, request, layout.size_z, layout.size_t)
    check_size(path.name, series.levels[0], layout)
    notes = check_data(path, series, layout, planes)
    # White for tiles that a colour slide leaves out, black otherwise.
    blank = int(np.iinfo(key.dtype).max) if colour.is_rgb and key.dtype.kind == "u" else 0
    source = TiffSource(path, 0, ChunkCache(), tif.filehandle, threading.Lock(), blank)
    levels = []
    for number, level in enumerate(series.levels):
        if number and (0 in level.keyframe.shaped or level.keyframe.dtype != key.dtype):
            continue
        check_size(path.name, level, layout)
        levels.append(_level(replace(source, level=number), level, layout, colour, planes))
    if (turn := _orientation(key)) != 1:
        notes.append(f"orientation {turn}: turned upright")
    ome = parse_ome(root, request.series)
    bands = levels[0].bands
    is_rgb = colour.is_rgb and bands == 3
    return Content(
        format=_format_name(tif, key),
        levels=tuple(levels),
        channels=channel_names(ome.sample_names, bands, is_rgb=is_rgb),
        is_rgb=is_rgb,
        pixel_size=_pixel_size(tif, key, ome),
        size_z=layout.size_z,
        size_t=layout.size_t,
        notes=(*told, *layout.notes, *planes.notes, *colour.notes, *notes),
        compression=compression(key),
        tiled=bool(key.is_tiled),
        n_series=len(tif.series),
        close=files.close,
        pictures=tuple(
            (number, str(one.name).lower())
            for number, one in enumerate(tif.series)
            if _is_extra(one)
        ),
    )


def _series(name: str, tif: tifffile.TiffFile, number: int) -> Any:  # noqa: ANN401
    """The wanted series; a label or macro picture is never the first."""
    if len(tif.pages) == 0 or len(tif.series) == 0:
        raise InputError(
            f"{name}: has no image in it, or is cut off before its index; copy it again"
        )
    number = choose_series(name, number, len(tif.series))
    chosen = tif.series[number]
    if number == 0 and _is_extra(chosen):
        chosen = max(tif.series, key=lambda series: int(np.prod(series.shape, dtype=np.int64)))
    return chosen


def _is_extra(series: Any) -> bool:  # noqa: ANN401
    """Whether a series is a picture beside the slide: of its label, or of all of it."""
    return str(series.name).lower() in ("label", "macro", "thumbnail", "overview", "map")


def _level(
    source: TiffSource,
    series: Any,  # noqa: ANN401
    layout: Layout,
    colour: Colour,
    planes: Planes,
) -> Raster:

    def channel(z: int, number: int) -> Raster:
        raster = plane_raster(source, series, layout, (planes.t, z, number))
        return recoloured(
            raster, colour.samples, colour.recolour, bands=colour.bands, dtype=colour.dtype
        )

    raster = planes.raster(range(layout.channels), channel)
    turn = _orientation(series.keyframe)
    return raster if turn == 1 else turned(raster, turn)


def _orientation(key: Any) -> int:  # noqa: ANN401
    """TIFF orientation, 1 when it is absent or nonsense."""
    value = key.tags.valueof(274, default=1)
    return value if isinstance(value, int) and 2 <= value <= 8 else 1


def _pixel_size(tif: tifffile.TiffFile, key: Any, ome: OmeImage) -> sizes.PixelSize:  # noqa: ANN401
    """µm per pixel from the most trustworthy tag that the format has."""
    x, y, unit = (key.tags.valueof(code) for code in (282, 283, 296))
    if tif.is_imagej:
        return sizes.first_known(ome.pixel_size, sizes.from_imagej(tif.imagej_metadata or {}, x, y))
    if tif.is_svs:
        return sizes.from_aperio(str(key.description))
    if tif.is_ndpi:
        return sizes.from_tags(x, y, unit, "NDPI tags")
    if tif.is_philips:
        return sizes.from_philips(tif.philips_metadata or "")
    return sizes.first_known(ome.pixel_size, sizes.from_tags(x, y, unit))


def _format_name(tif: tifffile.TiffFile, key: Any) -> str:  # noqa: ANN401
    known = {
        "is_svs": "Aperio SVS", "is_ndpi": "Hamamatsu NDPI", "is_ome": "OME-TIFF",
        "is_imagej": "ImageJ TIFF", "is_scn": "Leica SCN", "is_qpi": "PerkinElmer QPTIFF",
        "is_philips": "Philips TIFF", "is_bif": "Ventana BIF", "is_lsm": "Zeiss LSM",
    }  # fmt: skip
    for flag, label in known.items():
        if getattr(tif, flag, False):
            return label
    plain = "BigTIFF" if tif.is_bigtiff else "TIFF"
    if len(tif.series[0].levels) > 1:
        return f"pyramidal {plain}"
    return f"tiled {plain}" if key.is_tiled else plain
