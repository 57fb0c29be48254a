"""Slide: any image as a pyramid from which regions are read at a wanted scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cellseg.errors import InputError, Notice, RegionError, SettingsError
from cellseg.geometry import Box
from cellseg.slide._content import Content, Request, ZChoice, numbered
from cellseg.slide._guard import reading
from cellseg.slide._pixelsize import PixelSize
from cellseg.slide._raster import Raster
from cellseg.slide._resample import resample, taps
from cellseg.slide.formats import recognised, slide_name
from cellseg.storage import Location, as_location, parts_of

_SOURCE_PX = 24_000_000  # Native pixels that one step of a read may hold; larger reads go in steps.
_SOURCE_BYTES = 200_000_000  # The same in bytes, for many channels.
_KEPT_OVERVIEW_BYTES = 64_000_000  # Of an overview that is kept, at most.
_LEAST_PX = 16  # An overview is read around damage in parts down to this side.
NO_DATA = 1e30  # A float of this magnitude is a no-data marker, read as NaN.
_NEAR = 1.01  # A level this little coarser than wanted still counts as fine enough.


@dataclass(frozen=True)
class Level:
    """One level of the pyramid."""

    height: int
    width: int
    downsample: float  # Level-0 pixels per pixel of this level, the mean of y and x.
    chunk: tuple[int, int]  # (height, width) of what is decoded at once.


class Slide:
    """An open image, a context manager; reading is safe from several threads at once.

    Attributes
    ----------
    name : str
        The file's name without its ending.
    format : str
        Such as ``"Aperio SVS"``.
    height, width : int
        Size of level 0, px.
    dtype : np.dtype
        Of what `read` returns.
    mpp : float or None
        µm per pixel at level 0.
    mpp_source : str
        Where ``mpp`` comes from, ``"none"`` without one.
    notes : tuple of str
        What a person should know: planes chosen, resolutions refused, what was converted.
    """

    def __init__(
        self, path: Location, content: Content, mpp: float | None = None, *, series: int = 0
    ) -> None:
        size = content.pixel_size if mpp is None else PixelSize(mpp, "given")
        self.path = path
        self.name = slide_name(path)
        self.format = content.format
        self._content = content
        self._closed = False
        self._overview: tuple[float, NDArray[Any]] | None = None
        self._pyramid = _pyramid(content.levels)
        base = self._pyramid[0][0]
        self.height, self.width = base.height, base.width
        self.dtype: np.dtype[Any] = base.dtype
        self.channels, self.is_rgb = content.channels, content.is_rgb
        self.mpp, self.mpp_source = size.mpp, size.source
        self.levels = tuple(
            Level(raster.height, raster.width, (y * x) ** 0.5, raster.chunk)
            for raster, (y, x) in self._pyramid
        )
        self.notes = (*content.notes, *size.notes)
        said = content.pixel_size.mpp
        if mpp and said and abs(mpp / said - 1) > 0.02:
            self.notes += (Notice(f"the file says {said:.4g} µm/px, {mpp:g} is taken", hint="mpp"),)
        n_images = content.n_series - len(content.pictures)
        if n_images > 1 and not series:
            first = f"the first of {n_images} images is read"
            self.notes += (Notice(first, hint="series"),)
        self.size_z, self.size_t = content.size_z, content.size_t

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Slide {self.name!r}: {self.format}, {self.height} × {self.width} px>"

    def close(self) -> None:
        """Close the file; reading is an error afterwards."""
        if not self._closed:
            self._closed = True
            self._overview = None
            self._content.close()
            # What was decoded goes with the rasters.
            self._pyramid, self._content = [], replace(self._content, levels=())

    def lattice_shape(self, downsample: float) -> tuple[int, int]:
        """(height, width) of the lattice with ``downsample`` level-0 px per lattice px."""
        if not (math.isfinite(downsample) and downsample > 0):
            raise SettingsError(f"expected a downsample above 0, got {downsample}")
        return _lattice_px(self.height, downsample), _lattice_px(self.width, downsample)

    def read(
        self, box: Box, *, downsample: float = 1.0, channels: Sequence[int] | None = None
    ) -> NDArray[Any]:
        """Read a region.

        A pixel's value does not depend on the box in which it is read: it is the mean of
        the area that it covers (or, for ``downsample`` below 1, interpolated linearly), from
        the coarsest level that is fine enough.

        Parameters
        ----------
        box : Box
            On the lattice of ``downsample``, inside its extent.
        downsample : float
            Level-0 px per lattice px.
        channels : sequence of int, optional
            Which channels, in which order; all by default.

        Returns
        -------
        ndarray, (box.height, box.width, C), the slide's dtype
            Integers are rounded; NaN and infinities stay, no-data markers of floats are NaN.

        Raises
        ------
        RegionError
            A part of the file that the region needs is damaged.
        SettingsError
            A box outside the slide, or a channel that it does not have.
        """
        if self._closed:
            raise InputError(f"{self.path.name}: read after it was closed")
        bands = self._bands(channels)
        height, width = self.lattice_shape(downsample)
        if box.y0 < 0 or box.x0 < 0 or box.y1 > height or box.x1 > width:
            raise SettingsError(
                f"{self.path.name}: expected a box inside {height} × {width} lattice px, got {box}"
            )
        if box.area == 0:
            return np.empty((*box.shape, len(bands)), self.dtype)
        with reading(self.path, f"{box} cannot be read", kind=RegionError):
            out = np.empty((*box.shape, len(bands)), self.dtype)
            self._fill(out, box, downsample, bands)
            return out

    def overview(self, max_side: int = 1024) -> tuple[NDArray[Any], float]:
        """The whole slide in at most ``max_side`` px a side.

        Returns
        -------
        ndarray, (h, w, C)
            Read-only: the last one is kept, because a file without a pyramid is read whole for it.
        float
            Level-0 px per overview px, 1 or more.

        Raises
        ------
        RegionError
            Nothing of it can be read. Where only parts are damaged, they get the median of
            the rest.
        """
        if max_side < 1:
            raise SettingsError(f"expected max_side of at least 1, got {max_side}")
        downsample = max(1.0, max(self.height, self.width) / max_side)
        if self._overview is not None and self._overview[0] == downsample:
            return self._overview[1], downsample
        whole = Box(0, 0, *self.lattice_shape(downsample))
        try:
            found = self.read(whole, downsample=downsample)
        except RegionError as error:
            found = self._around_damage(whole, downsample, error)
        found.setflags(write=False)
        if found.nbytes <= _KEPT_OVERVIEW_BYTES:
            self._overview = downsample, found
        return found, downsample

    def _around_damage(self, whole: Box, downsample: float, error: RegionError) -> NDArray[Any]:
        """What can be read; the rest in the median of each channel."""
        out = np.zeros((*whole.shape, len(self.channels)), self.dtype)
        good = np.zeros(whole.shape, dtype=bool)
        parts = [*_halves(whole, whole)]
        while parts:
            part = parts.pop()
            try:
                out[part.pixels] = self.read(part, downsample=downsample)
                good[part.pixels] = True
            except RegionError:
                if max(part.shape) > _LEAST_PX:
                    parts += _halves(part, part)
        if not good.any():
            raise error
        out[~good] = np.median(out[good], axis=0).astype(self.dtype)
        return out

    def channel_number(self, wanted: str, *, hint: str = "channel") -> int:
        """The place of a channel that a person named, or numbered; SettingsError without one."""
        names = self.channels
        # A number first: a file's names may be numbers of their own.
        if wanted.isdecimal() and int(wanted) < len(names):
            return int(wanted)
        if wanted in names:
            return names.index(wanted)
        alike = [number for number, name in enumerate(names) if name.lower() == wanted.lower()]
        if len(alike) == 1:
            return alike[0]
        raise SettingsError(
            f"{self.path}: no channel {wanted!r}; there are: {', '.join(numbered(names))}",
            hint=hint,
        )

    def describe(self) -> dict[str, object]:
        """All that the file says of the image, JSON-ready."""
        first = self.levels[0]
        return {
            "path": str(self.path),
            "files": [file.name for file in parts_of(self.path).values()] or [self.path.name],
            "name": self.name,
            "format": self.format,
            "height_px": self.height,
            "width_px": self.width,
            "channels": list(self.channels),
            "rgb": self.is_rgb,
            "dtype": str(self.dtype),
            "size_z": self.size_z,
            "size_t": self.size_t,
            "series": self._content.n_series,
            "pictures": {str(number): name for number, name in self._content.pictures},
            "mpp": self.mpp,
            "mpp_source": self.mpp_source,
            "compression": self._content.compression,
            "tiled": self._content.tiled,
            "chunk_px": list(first.chunk),
            "levels": [{**asdict(level), "chunk": list(level.chunk)} for level in self.levels],
            "notes": list(self.notes),
        }

    def _bands(self, channels: Sequence[int] | None) -> tuple[int, ...]:
        if channels is None:
            return tuple(range(len(self.channels)))
        for number in channels:
            if not 0 <= number < len(self.channels):
                raise SettingsError(
                    f"{self.path.name}: no channel {number}; the file has 0 … "
                    f"{len(self.channels) - 1} ({', '.join(self.channels)})"
                )
        return tuple(int(number) for number in channels)

    def _fill(self, out: NDArray[Any], box: Box, downsample: float, bands: tuple[int, ...]) -> None:
        """Read into ``out``, in halves when the source would be large."""
        fine = [i for i, level in enumerate(self.levels) if level.downsample <= downsample * _NEAR]
        raster, (scale_y, scale_x) = self._pyramid[fine[-1] if fine else 0]
        rows = taps(box.y0, box.y1, step=downsample / scale_y, size=raster.height)
        columns = taps(box.x0, box.x1, step=downsample / scale_x, size=raster.width)
        source = Box(rows.start, columns.start, rows.stop, columns.stop)
        pixel_bytes = len(bands) * self.dtype.itemsize
        if source.area > min(_SOURCE_PX, _SOURCE_BYTES // pixel_bytes) and box.area > 1:
            for part in _halves(box, source):
                self._fill(out[part.inside(box)], part, downsample, bands)
            return
        pixels = raster.region(source, bands)
        if pixels.dtype.kind == "f":
            pixels[np.isfinite(pixels) & (np.abs(pixels) >= NO_DATA)] = np.nan
        out[...] = resample(pixels, (source.y0, source.x0), rows, columns)


def open_slide(
    path: str | Location,
    *,
    mpp: float | None = None,
    z: ZChoice = None,
    t: int | None = None,
    series: int = 0,
) -> Slide:
    """Open an image file or an OME-Zarr folder.

    Parameters
    ----------
    path : str, Path or RemotePath
        An image file or an OME-Zarr folder, or its URL.
    mpp : float, optional
        µm per pixel at level 0; wins over what the file says.
    z : int, 'max' or 'mean', optional
        Plane (from 0) or projection; the middle plane by default.
    t : int, optional
        Time point (from 0); the first by default.
    series : int
        Which image of a file with several.

    Raises
    ------
    InputError
        The file is missing, no image, cut off, damaged, or of a kind that is not supported.
    SettingsError
        A plane or series that the file does not have, or no sensible ``mpp``.
    """
    if mpp is not None and not (math.isfinite(mpp) and mpp > 0):
        raise SettingsError(f"expected a pixel size above 0 µm, got {mpp}")
    file = as_location(path)
    with reading(file, "cannot be opened"):
        form = recognised(file)
    content = form.open_content(file, Request(z, t, series))
    return Slide(file, content, mpp, series=series)


def _halves(box: Box, source: Box) -> tuple[Box, Box]:
    """Cut across rows while the source is tall: files are stored in rows of chunks."""
    if box.height > 1 and (source.height >= source.width // 4 or box.width == 1):
        middle = (box.y0 + box.y1) // 2
        return Box(box.y0, box.x0, middle, box.x1), Box(middle, box.x0, box.y1, box.x1)
    middle = (box.x0 + box.x1) // 2
    return Box(box.y0, box.x0, box.y1, middle), Box(box.y0, middle, box.y1, box.x1)


def _pyramid(rasters: Sequence[Raster]) -> list[tuple[Raster, tuple[float, float]]]:
    """Levels from fine to coarse with their scales; those that are no reduction are left out."""
    base = rasters[0]
    kept = [(base, (1.0, 1.0))]
    for raster in rasters[1:]:
        if raster.bands == base.bands and raster.dtype == base.dtype:
            (y, x), (finer_y, finer_x) = _scale(base, raster), kept[-1][1]
            if y > finer_y and x > finer_x:
                kept.append((raster, (y, x)))
    return kept


def _scale(base: Raster, level: Raster) -> tuple[float, float]:
    """Level-0 px per px of a level, (y, x).

    Writers round a level's size, so a ratio of 2.0007 means 2: the next power of two or whole
    number that explains both sizes is taken, and the ratios themselves otherwise.
    """
    ratio_y, ratio_x = base.height / level.height, base.width / level.width
    mean = (ratio_y * ratio_x) ** 0.5
    power = 2.0 ** round(math.log2(mean))
    for whole in (power, float(round(ratio_y)), float(round(ratio_x)), float(round(mean))):
        if whole >= 1 and all(
            size in (math.floor(full / whole), math.ceil(full / whole))
            for size, full in ((level.height, base.height), (level.width, base.width))
        ):
            return whole, whole
    return ratio_y, ratio_x


def _lattice_px(size: int, downsample: float) -> int:
    """How many lattice px cover ``size`` level-0 px."""
    exact = size / downsample
    nearest = round(exact)
    return max(1, nearest if abs(exact - nearest) < 1e-6 else math.ceil(exact))
