"""TIFF and what is built on it: OME-TIFF, SVS, NDPI, ImageJ, generic pyramids.

Its samples become grey values, channels or red, green and blue.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from cellseg.errors import InputError
from cellseg.slide import _pixelsize as sizes
from cellseg.slide._content import (
    Content,
    Planes,
    Request,
    channel_names,
    choose_planes,
    choose_series,
    native,
)
from cellseg.slide._guard import reading
from cellseg.slide._ome import OmeImage, parse_ome
from cellseg.slide._raster import ChunkCache, Pixels, Raster, Recolour, recoloured, round_to, turned
from cellseg.slide._tiffcheck import check_data, check_metadata, check_size, compression
from cellseg.slide._tiffpages import Layout, TiffSource, lay_out, plane_raster
from cellseg.slide.formats import OPENSLIDE
from cellseg.storage import Location, RemotePath

MINISWHITE, _, RGB, PALETTE, _, _, YCBCR = range(7)
_REFUSED = {
    5: "CMYK", 8: "CIELAB", 9: "ICCLAB", 10: "ITULAB", 32803: "camera raw (CFA)",
    34892: "linear raw", 32844: "LogL", 32845: "LogLuv",
}  # fmt: skip
_JPEG_FAMILY = {6, 7, 34892, 33007, 33003, 33004, 33005, 34712, 50001}
_APERIO_YCBCR = 33003


def open_content(path: Location, request: Request) -> Content:
    what = "is no readable TIFF, is cut off or damaged"
    advice = "try to open it in the program that wrote it and save it again"
    with ExitStack() as files, reading(path, what, advice=advice):
        # Of a set of files only this one, until it is known where the others lie.
        file = files.enter_context(path.open()) if isinstance(path, RemotePath) else path
        tif = tifffile.TiffFile(file, name=path.name, _multifile=False)
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
        # The resolution tags are px per ImageJ's unit.
        unit_um = sizes.micrometres((tif.imagej_metadata or {}).get("unit", ""))
        said = sizes.from_density(x, y, unit_um, "ImageJ calibration")
        return sizes.first_known(ome.pixel_size, said)
    if tif.is_svs:  # a thumbnail's description has the size of the slide's pixels
        is_whole = key.index == tif.series[0].keyframe.index
        return sizes.from_aperio(str(key.description)) if is_whole else sizes.NO_SIZE
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


@dataclass(frozen=True)
class Colour:
    """How samples become bands: which are read, and what turns them into bands, if anything."""

    samples: tuple[int, ...]
    recolour: Recolour | None
    bands: int
    dtype: np.dtype[Any]
    is_rgb: bool
    notes: tuple[str, ...] = ()


def interpret(name: str, key: Any, count: int, *, is_imagej: bool) -> Colour:  # noqa: ANN401
    """Settle what the samples of a page, a tifffile.TiffPage, mean.

    ImageJ has no colour of 16 bits: such a file holds three channels.

    InputError if the colour space cannot be turned into grey or RGB.
    """
    kind, compression, stored = int(key.photometric), int(key.compression), np.dtype(key.dtype)
    if kind in _REFUSED:
        raise InputError(
            f"{name}: its colour space, {_REFUSED[kind]}, is not supported; convert it to RGB"
        )
    if stored.kind not in "buif":
        raise InputError(f"{name}: its pixels are {stored}, expected integers or floats")
    dtype, top = native(stored), _full(stored, key.bitspersample)
    palette = getattr(key, "colormap", None)
    if kind == PALETTE and palette is not None and count == 1:
        return _palette(dtype, top, palette, is_imagej=is_imagej)
    if compression == _APERIO_YCBCR and count == 3:
        return Colour((0, 1, 2), _from_ycbcr, 3, dtype, True)
    if kind == YCBCR and count >= 3:
        return _rgb(stored, count, top, None if compression in _JPEG_FAMILY else _from_ycbcr)
    extra = [int(one) for one in key.extrasamples]
    # More than four samples of which the rest is no alpha are channels stored as RGB.
    is_composite = (is_imagej and stored.itemsize > 1) or (count > 4 and not any(extra))
    if kind == RGB and count >= 3 and not is_composite:
        return _rgb(stored, count, top, None)
    kept = max(1, count - sum(one in (1, 2) for one in extra))
    notes = ["alpha dropped"] if kept < count else []
    recolour: Recolour | None = None
    if kind == MINISWHITE and dtype.kind == "f":
        notes.append("stored as white-is-zero in floats: values are left as they are")
    elif kind == MINISWHITE:
        recolour = _inverted(dtype, top)
        notes.append("stored as white-is-zero: values are inverted")
    elif kind == RGB and is_imagej and count == 3:
        notes.append("an ImageJ composite: three channels, not a colour picture")
    if stored.kind == "b":
        notes.append("1 bit per pixel: read as 0 and 255")
    elif stored.kind == "u" and top < np.iinfo(stored).max:
        notes.append(f"{top.bit_length()} bits per sample: values up to {top}")
    return Colour(tuple(range(kept)), recolour, kept, dtype, False, tuple(notes))


def _full(stored: np.dtype[Any], bits: object) -> int:
    """The value of full intensity, by how many bits are used (a tuple where samples differ)."""
    if stored.kind == "b":
        return 255
    used = bits if isinstance(bits, int) and 0 < bits < 64 else 8 * stored.itemsize
    return int((1 << used) - 1)


def _rgb(stored: np.dtype[Any], count: int, top: int, recolour: Recolour | None) -> Colour:
    notes: list[str] = []
    if count > 3:
        what = "alpha" if count == 4 else f"{count - 3} extra samples"
        notes.append(f"{what} dropped: only red, green and blue are read")
    if recolour is None and stored.kind == "u" and top < (full := np.iinfo(stored).max):
        notes.append(f"{top.bit_length()} bits per sample: stretched to {stored}")

        def recolour(pixels: Pixels) -> Pixels:
            return round_to(pixels * np.float64(full / top), pixels.dtype)

    return Colour((0, 1, 2), recolour, 3, native(stored), True, tuple(notes))


def _inverted(dtype: np.dtype[Any], top: int) -> Recolour:
    if dtype.kind == "i":
        return np.invert

    def invert(pixels: Pixels) -> Pixels:
        white = dtype.type(top)
        out: Pixels = white - np.minimum(pixels, white)
        return out

    return invert


def _from_ycbcr(pixels: Pixels) -> Pixels:
    """BT.601 full range, as in JPEG (ITU-T T.871)."""
    values = pixels.astype(np.float32)
    half = (float(np.iinfo(pixels.dtype).max) + 1) / 2 if pixels.dtype.kind != "f" else 0.5
    y, cb, cr = values[..., 0], values[..., 1] - half, values[..., 2] - half
    rgb = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=-1)
    return round_to(rgb, pixels.dtype)


def _palette(
    dtype: np.dtype[Any], top: int, table: NDArray[np.uint16], *, is_imagej: bool
) -> Colour:
    """Grey data with a colour map stays grey; a picture of indexed colours is expanded."""
    entries = table.astype(np.int64).T
    lit = np.flatnonzero(entries.any(axis=1))
    used = entries[: lit[-1] + 1 if len(lit) else 1]
    is_grey = bool((used == used[:, :1]).all())
    is_ramp = len(np.unique(used, axis=0)) > 2 and bool((np.diff(used, axis=0) >= 0).all())
    if is_imagej or (is_ramp and not is_grey):
        what = "an ImageJ lookup table: grey" if is_imagej else "a colour map on grey values: the"
        note = f"{what} values are read, not its colours"
        return Colour((0,), None, 1, dtype, False, (note,))
    # Palettes have 16 bits; some writers fill only the lower 8.
    eight = entries if entries.max(initial=0) < 256 else entries >> 8
    full = eight.astype(np.uint8) if top < 256 else entries.astype(np.uint16)
    colours = full[:, :1] if is_grey else full

    def recolour(pixels: Pixels) -> Pixels:
        return colours[np.clip(pixels[..., 0].astype(np.int64), 0, len(colours) - 1)]

    note = "a grey palette: looked up" if is_grey else "a palette of colours: expanded to RGB"
    return Colour((0,), recolour, colours.shape[1], colours.dtype, not is_grey, (note,))
