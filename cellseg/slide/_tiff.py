"""TIFF and what is built on it: OME-TIFF, SVS, NDPI, ImageJ, generic pyramids."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import IO, Any
from xml.etree.ElementTree import Element

import numpy as np
import tifffile

from cellseg.errors import InputError
from cellseg.slide._colour import Colour, Samples, interpret
from cellseg.slide._content import (
    Content,
    Request,
    channel_names,
    choose_planes,
    choose_series,
)
from cellseg.slide._declared import alone, are_neighbours, check_declared
from cellseg.slide._guard import reading
from cellseg.slide._ome import OmeImage, parse_ome
from cellseg.slide._raster import (
    ChunkCache,
    Raster,
    RecolouredRaster,
    TurnedRaster,
    stacked,
)
from cellseg.slide._tiffcheck import OpenTiff, check_data
from cellseg.slide._tifflayout import Layout, lay_out
from cellseg.slide._tiffpages import (
    PageRaster,
    Place,
    RowsRaster,
)
from cellseg.slide._tifftags import (
    compression,
    first_page,
    format_name,
    is_stitched,
    orientation,
    pixel_size,
)
from cellseg.slide.formats import OPENSLIDE
from cellseg.slide.limits import MAX_LEVELS, check_count, check_plane
from cellseg.storage import Location, RemotePath

_CONTIGUOUS_BYTES = 4_000_000
_PAGES = 100
"""That are asked for their levels: a slide's come first."""

_BAD = "is no readable TIFF, is cut off or damaged"
_ADVICE = "try to open it in the program that wrote it and save it again"


def open_content(path: Location, request: Request) -> Content:
    """Open a TIFF of any kind.

    Raises
    ------
    InputError, SettingsError
    """
    with reading(path, _BAD, advice=_ADVICE):
        tif, file = _opened(path)
    try:
        with reading(path, _BAD, advice=_ADVICE):
            if not is_stitched(tif):
                return _content(path, tif, request, file)
    except BaseException:
        _close(tif, file)
        raise
    _close(tif, file)
    return OPENSLIDE.open_content(path, request)


def _opened(path: Location) -> tuple[tifffile.TiffFile, IO[bytes] | None]:
    """The TIFF and, where it is not on a disk, the file that it reads, to be closed after it."""
    if not isinstance(path, RemotePath):
        return tifffile.TiffFile(path, _multifile=False), None
    file = path.open()
    try:
        # Of a set of files only this one: the others' names mean paths on this machine.
        return tifffile.TiffFile(file, name=path.name, _multifile=False), file
    except BaseException:
        file.close()
        raise


def _described(path: Location, tif: tifffile.TiffFile) -> tuple[Element | None, tuple[str, ...]]:
    """The OME-XML, checked, and notes on other files; from then on series can be made.

    Of an OME set the files that are neighbours of this one are read, and no others: a file's
    content never leads out of its folder.
    """
    root = check_declared(path.name, tif)
    if not isinstance(path, Path):
        return root, ()
    notes = alone(path.resolve(), tif)
    tif._multifile = are_neighbours(path.resolve(), root)
    return root, notes


def _content(
    path: Location, tif: tifffile.TiffFile, request: Request, file: IO[bytes] | None
) -> Content:
    root, told = _described(path, tif)
    series = _series(path.name, tif, request.series)
    key = series.keyframe
    if not isinstance(getattr(key, "dtype", None), np.dtype):
        raise InputError(f"{path.name}: its sample format is not supported; convert it")
    layout = lay_out(path.name, series, z_asked=request.z is not None)
    samples = _samples(tif, key, layout)
    planes = choose_planes(path.name, request, layout.size("z"), layout.size("t"))
    opened = OpenTiff(
        path, tif, series, layout, interpret(path.name, samples), planes, threading.RLock(),
        ChunkCache(),
    )  # fmt: skip
    levels, notes = _levels(opened)
    ome = parse_ome(root, request.series)
    names, is_rgb = _channels(opened, levels[0].bands, ome)
    return Content(
        format=format_name(tif, key),
        levels=levels,
        channels=names,
        is_rgb=is_rgb,
        pixel_size=pixel_size(tif, key, ome),
        size_z=layout.size("z"),
        size_t=layout.size("t"),
        notes=(*told, *layout.notes, *planes.notes, *opened.colour.notes, *notes),
        compression=compression(key),
        tiled=bool(key.is_tiled),
        n_series=len(tif.series),
        close=lambda: _close(tif, file, opened.cache),
        pictures=tuple(
            (number, str(one.name).lower())
            for number, one in enumerate(tif.series)
            if _is_extra(one)
        ),
    )


def _close(tif: tifffile.TiffFile, file: IO[bytes] | None, cache: ChunkCache | None = None) -> None:
    if cache is not None:
        cache.clear()
    tif.close()
    if file is not None:
        file.close()


def _series(name: str, tif: tifffile.TiffFile, number: int) -> Any:  # noqa: ANN401
    """The wanted series; a label or macro picture is never the first."""
    _check_levels(name, tif)
    if len(tif.pages) == 0 or len(tif.series) == 0:
        size = tif.filehandle.size
        if first_page(tif) >= size:
            raise InputError(
                f"{name}: cut off: its index lies beyond its end at {size:,} bytes; copy it again"
            )
        raise InputError(f"{name}: has no image in it; expected at least one page")
    number = choose_series(name, number, len(tif.series))
    chosen = tif.series[number]
    if number == 0 and _is_extra(chosen):
        chosen = max(tif.series, key=lambda series: int(np.prod(series.shape, dtype=np.int64)))
    return chosen


def _check_levels(name: str, tif: tifffile.TiffFile) -> None:
    """Refuse pages that list more smaller copies than any has: each of them would be read."""
    for number in range(min(len(tif.pages), _PAGES)):
        listed = None
        with suppress(Exception):  # what is wrong with a page is told where it is needed
            listed = getattr(tif.pages[number], "subifds", None)
        check_count(name, "levels of one page", len(listed or ()), MAX_LEVELS)


def _is_extra(series: Any) -> bool:  # noqa: ANN401
    """Whether a series is a picture beside the slide: of its label, or of all of it."""
    return str(series.name).lower() in ("label", "macro", "thumbnail", "overview", "map")


def _samples(tif: tifffile.TiffFile, key: Any, layout: Layout) -> Samples:  # noqa: ANN401
    bits = key.bitspersample
    return Samples(
        photometric=int(key.photometric),
        count=layout.samples,
        bits=bits if isinstance(bits, int) else 0,
        extra=tuple(int(kind) for kind in key.extrasamples),
        palette=key.colormap if getattr(key, "colormap", None) is not None else None,
        compression=int(key.compression),
        dtype=np.dtype(key.dtype),
        is_imagej=bool(tif.is_imagej),
    )


def _levels(opened: OpenTiff) -> tuple[tuple[Raster, ...], list[str]]:
    """The pyramid of the chosen planes, largest first."""
    _check_size(opened, opened.series.levels[0])
    notes = check_data(opened)
    levels: list[Raster] = []
    for number, series in enumerate(opened.series.levels):
        key = series.keyframe
        if number and (0 in key.shaped or key.dtype != opened.key.dtype):
            continue
        if number:
            _check_size(opened, series)
        place = Place(opened.path, opened.lock, opened.cache, number,
                      _blank(opened.colour, key.dtype))  # fmt: skip
        planes = [
            stacked([
                _coloured(_page_rasters(opened, series, place, z, channel), opened.colour)
                for channel in range(opened.layout.size("c"))
            ])
            for z in opened.planes.z
        ]  # fmt: skip
        raster = opened.planes.project(planes)
        levels.append(_turned(raster, key))
    if orientation(opened.key) != 1:
        notes.append(f"orientation {orientation(opened.key)}: turned upright")
    return tuple(levels), notes


def _check_size(opened: OpenTiff, series: Any) -> None:  # noqa: ANN401
    """Refuse a level that claims too much."""
    key = series.keyframe
    height, width = int(key.shaped[2]), int(key.shaped[3])
    whole = key.is_contiguous and not key.is_tiled
    chunk = (key.tilelength, key.tilewidth) if key.is_tiled else (key.rowsperstrip, width)
    if opened.layout.interleaved:
        height, width = int(series.shape[0]), height
    check_plane(opened.path.name, height, width, (height, width) if whole else chunk)


def _blank(colour: Colour, dtype: np.dtype[Any]) -> int:
    """White for tiles that a colour slide leaves out, black otherwise."""
    return int(np.iinfo(dtype).max) if colour.is_rgb and dtype.kind == "u" else 0


def _coloured(rasters: list[Raster], colour: Colour) -> Raster:
    """The bands of one page."""
    raster = stacked(rasters)
    if colour.recolour is None and colour.samples == tuple(range(raster.bands)):
        return raster
    return RecolouredRaster(
        raster, colour.samples, colour.recolour, bands=colour.bands, dtype=colour.dtype
    )


def _page_rasters(
    opened: OpenTiff,
    series: Any,  # noqa: ANN401
    place: Place,
    z: int,
    channel: int,
) -> list[Raster]:
    """The rasters of one channel: one, or one a sample plane."""
    layout, key = opened.layout, series.keyframe
    stored = np.dtype(key.parent.byteorder + key.dtype.char)
    file = opened.tif.filehandle
    if layout.interleaved:
        shape = (int(series.shape[0]), int(key.shaped[2]), layout.samples)
        return [RowsRaster(file, series.dataoffset, shape, stored, place)]
    number, depth = layout.page(z=z, t=opened.planes.t, c=channel)
    _, _, height, width, contig = key.shaped
    plane_bytes = height * width * contig * stored.itemsize
    if len(series.pages) < layout.pages:
        if series.dataoffset is None:
            raise InputError(
                f"{opened.path.name}: page {number} of {layout.pages} is missing; "
                "the file is cut off or part of a set"
            )
        first = series.dataoffset + (number * layout.separate * layout.depth) * plane_bytes
        return _rows(opened, file, first, key, place, depth)
    page = series.pages[number]
    if page is None:
        raise InputError(
            f"{opened.path.name}: the plane z = {z}, t = {opened.planes.t}, channel {channel} "
            "is not in the file; is it part of a set of files?"
        )
    chunk_bytes = int(np.prod(key.chunks, dtype=np.int64)) * stored.itemsize
    if key.is_contiguous and not key.is_tiled and chunk_bytes > _CONTIGUOUS_BYTES:
        return _rows(opened, page.parent.filehandle, int(page.dataoffsets[0]), key, place, depth)
    return [PageRaster(page, place, plane=plane, depth=depth) for plane in range(layout.separate)]


def _rows(
    opened: OpenTiff,
    file: Any,  # noqa: ANN401
    first: int,
    key: Any,  # noqa: ANN401
    place: Place,
    depth: int,
) -> list[Raster]:
    stored = np.dtype(key.parent.byteorder + key.dtype.char)
    separate, layers, height, width, contig = key.shaped
    plane_bytes = height * width * contig * stored.itemsize
    return [
        RowsRaster(
            file, first + (plane * layers + depth) * plane_bytes, (height, width, contig),
            stored, place,
        )
        for plane in range(separate)
    ]  # fmt: skip


def _channels(opened: OpenTiff, bands: int, ome: OmeImage) -> tuple[tuple[str, ...], bool]:
    if opened.colour.is_rgb and bands == 3:
        return ("red", "green", "blue"), True
    names: list[str | None] = []
    for number, name in enumerate(ome.channels):
        samples = ome.samples[number]
        names += [name] if samples == 1 else [f"{name or 'sample'} {i + 1}" for i in range(samples)]
    return channel_names(names, bands), False


def _turned(raster: Raster, key: Any) -> Raster:  # noqa: ANN401
    turn = orientation(key)
    return raster if turn == 1 else TurnedRaster(raster, turn)
