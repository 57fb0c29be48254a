"""Pages of a TIFF: which of them holds which plane, and rasters over their strips and tiles."""

# Not by tifffile's aszarr: it hands out decoded pixels, so that JPEG data are not looked at for
# damage (400 zeroed bytes of a tile pass in silence), and an uncompressed page is one chunk.

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.errors import InputError
from cellseg.geometry import Box
from cellseg.slide._content import native
from cellseg.slide._jpeg import check_jpeg, check_jpeg2000, joined
from cellseg.slide._raster import CACHE_BYTES, Pixels, Raster, Source, chunked, stacked
from cellseg.slide.limits import MAX_CHANNELS, MAX_PLANES, check_count

_ROWS_BYTES = 2_000_000  # About how much of an uncompressed page is read at once.
_CONTIGUOUS_BYTES = 4_000_000  # An uncompressed strip above this is read by rows.
_JPEG = {6, 7, 34892, 33007}
_JPEG_2000 = {33003, 33004, 33005, 34712}
LARGE_CHUNK_BYTES = CACHE_BYTES // 4  # A compressed strip or tile above this is kept once decoded.


@dataclass(frozen=True, eq=False)
class Layout:
    """The pages of a series."""

    numbers: NDArray[np.int64]  # (T, Z, C): the page of each time point, z and channel.
    count: int  # How many pages there should be; more than those where there are further axes.
    depth: int  # z planes inside a page (volumetric TIFF).
    separate: int  # Separate sample planes in a page.
    samples: int  # Samples of a pixel in a page, separate or interleaved.
    is_interleaved: bool = False
    """Pixels that tifffile's writer took for pages: the file's "pages" are its rows."""

    notes: tuple[str, ...] = ()

    @property
    def size_t(self) -> int:
        return int(self.numbers.shape[0])

    @property
    def size_z(self) -> int:
        return int(self.numbers.shape[1]) * self.depth

    @property
    def channels(self) -> int:
        return int(self.numbers.shape[2])


def lay_out(name: str, series: Any, *, z_asked: bool) -> Layout:  # noqa: ANN401
    """Read the layout of level 0 of a tifffile series.

    A stack of pages of unknown meaning is taken for z where that is asked for, and else for time.
    """
    key = series.keyframe
    separate, depth, height, width, contig = key.shaped
    if 0 in key.shaped or 0 in series.shape:
        raise InputError(f"{name}: the image has no pixels ({height} × {width}); nothing to read")
    inner = len(key.axes)
    axes = series.axes[: len(series.axes) - inner]
    shape = tuple(int(n) for n in series.shape[: len(series.shape) - inner])
    if "X" not in series.axes[-inner:] and width > 1:
        raise InputError(f"{name}: axes {series.axes} are not supported; expected y and x last")
    if _is_interleaved(series, axes, shape):
        return Layout(np.zeros((1, 1, 1), np.int64), 1, 1, 1, width, is_interleaved=True, notes=(
            f"stored as {shape[0]} pages of {height} × {width} px: read as one image with "
            f"{width} channels",
        ))  # fmt: skip
    roles, notes = _roles(axes, shape, z_asked=z_asked, has_z="Z" in axes or depth > 1)
    sizes = [math.prod(n for n, one in zip(shape, roles, strict=True) if one == role)
             for role in "tzc"]  # fmt: skip
    count = math.prod(shape)
    check_count(name, "planes", count * depth, MAX_PLANES)
    check_count(name, "channels", sizes[2] * separate * contig, MAX_CHANNELS)
    # A role can own several axes; the last one varies fastest.
    order = sorted(range(len(roles)), key=lambda axis: "tzc.".index(roles[axis]))
    numbers = np.arange(count).reshape(shape).transpose(order).reshape(*sizes, -1)[..., 0]
    return Layout(numbers, count, depth, separate, separate * contig, notes=notes)


def _is_interleaved(series: Any, axes: str, shape: tuple[int, ...]) -> bool:  # noqa: ANN401
    """A (Y, X, C) array that was written without saying so: thousands of pages 2 to 5 px wide."""
    _, _, height, width, _ = series.keyframe.shaped
    return (
        axes in ("Q", "I")
        and 2 <= width <= 5
        and shape[0] >= 16
        and height >= 16
        and series.dataoffset is not None
        and series.keyframe.samplesperpixel == 1
    )


def _roles(
    axes: str, shape: tuple[int, ...], *, z_asked: bool, has_z: bool
) -> tuple[str, tuple[str, ...]]:
    """``t``, ``z``, ``c`` or ``.`` (only the first is read) for each axis, and notes."""
    roles, notes = "", []
    for axis, length in zip(axes, shape, strict=True):
        role = {"Z": "z", "T": "t", "C": "c", "S": "c"}.get(axis, ".")
        if axis in "IQ" and length > 1:
            role = "z" if z_asked and not has_z else "t"
            notes.append(f"{length} pages of unknown meaning: taken as {role}")
        elif role == "." and length > 1:
            notes.append(f"axis {axis} of {length}: the first is read")
        roles += role
    return roles, tuple(notes)


@dataclass(frozen=True)
class TiffSource(Source):
    """A level of a TIFF; ``blank`` is the value of tiles that the file leaves out on purpose.

    The lock is held while the position of a file, a tifffile.FileHandle, is used.
    """

    file: Any
    lock: threading.Lock
    blank: int


def plane_raster(
    source: TiffSource,
    series: Any,  # noqa: ANN401
    layout: Layout,
    at: tuple[int, int, int],
) -> Raster:
    """The samples of one channel of one plane, ``at`` (t, z, channel), of a level."""
    key = series.keyframe
    stored = np.dtype(key.parent.byteorder + key.dtype.char)
    if layout.is_interleaved:
        shape = (int(series.shape[0]), int(key.shaped[2]), layout.samples)
        return _rows(source, source.file, series.dataoffset, shape, stored)
    t, z, channel = at
    number, depth = int(layout.numbers[t, z // layout.depth, channel]), z % layout.depth
    _, layers, height, width, contig = key.shaped

    def rows(file: Any, first: int) -> Raster:  # noqa: ANN401
        step = height * width * contig * stored.itemsize
        offsets = [first + (plane * layers + depth) * step for plane in range(layout.separate)]
        shape = (height, width, contig)
        return stacked([_rows(source, file, offset, shape, stored) for offset in offsets])

    if len(series.pages) < layout.count:
        if series.dataoffset is None:
            raise InputError(
                f"{source.path.name}: page {number} of {layout.count} is missing; "
                "the file is cut off or part of a set"
            )
        page_bytes = layout.separate * layout.depth * height * width * contig * stored.itemsize
        return rows(source.file, series.dataoffset + number * page_bytes)
    page = series.pages[number]
    if page is None:
        raise InputError(
            f"{source.path.name}: the plane z = {z}, t = {t}, channel {channel} "
            "is not in the file; is it part of a set of files?"
        )
    chunk_bytes = int(np.prod(key.chunks, dtype=np.int64)) * stored.itemsize
    if key.is_contiguous and not key.is_tiled and chunk_bytes > _CONTIGUOUS_BYTES:
        return rows(page.parent.filehandle, int(page.dataoffsets[0]))
    return stacked([_page(source, page, plane, depth) for plane in range(layout.separate)])


def _page(source: TiffSource, page: Any, plane: int, depth: int) -> Raster:  # noqa: ANN401
    """One sample plane (or the interleaved samples) of a page, at one z of a volumetric one."""
    key = page.keyframe
    _, layers, height, width, bands = key.shaped
    kind, grid, layer, inner = "strip", (key.rowsperstrip, width), depth, 0
    if key.is_tiled:
        kind, grid = "tile", (key.tilelength, key.tilewidth)
        layers = math.ceil(layers / key.tiledepth)
        layer, inner = divmod(depth, key.tiledepth)
    rows, columns = math.ceil(height / grid[0]), math.ceil(width / grid[1])
    first = (plane * layers + layer) * rows * columns

    def decode(box: Box) -> Pixels:
        index = first + box.y0 // grid[0] * columns + box.x0 // grid[1]
        if index >= min(len(page.dataoffsets), len(page.databytecounts)):
            raise ValueError("it is not in the file's index")
        offset, count = int(page.dataoffsets[index]), int(page.databytecounts[index])
        if offset == 0 and count == 0:  # left out on purpose
            return np.full((*box.shape, bands), source.blank, key.dtype)
        data = _bytes(source, page.parent.filehandle, offset, count)
        tables: dict[str, Any] = {}
        # Writers round a tile up to whole blocks, and a strip to whole rows of them.
        most = grid[0] + 64, grid[1] + 64
        if key.compression in _JPEG_2000:
            check_jpeg2000(data, most)
        elif key.compression in _JPEG:
            tables = {"jpegtables": page.jpegtables, "jpegheader": key.jpegheader}
            if key.jpegheader is None:
                check_jpeg(joined(data, page.jpegtables), most)
        decoded = key.decode(data, index, **tables)[0]
        pixels: Pixels = decoded[min(inner, len(decoded) - 1)]
        return pixels

    n_bytes = math.prod(grid) * bands * key.dtype.itemsize
    pin = n_bytes > LARGE_CHUNK_BYTES or rows * columns == 1
    shape = (height, width, bands)
    dtype = native(np.dtype(key.dtype))
    return chunked(source, shape, dtype, decode, grid=grid, what=kind, pin=pin)


def _rows(
    source: TiffSource,
    file: Any,  # noqa: ANN401
    offset: int,
    shape: tuple[int, int, int],
    stored: np.dtype[Any],
) -> Raster:
    """Uncompressed (height, width, bands) in one run of bytes, read a few rows at a time."""
    row_bytes = shape[1] * shape[2] * stored.itemsize

    def decode(box: Box) -> Pixels:
        data = _bytes(source, file, offset + box.y0 * row_bytes, box.height * row_bytes)
        return np.frombuffer(data, stored).reshape(box.height, *shape[1:])

    grid = max(1, min(shape[0], _ROWS_BYTES // max(1, row_bytes))), shape[1]
    dtype = native(stored)
    return chunked(source, shape, dtype, decode, grid=grid, what="strip")


def _bytes(source: TiffSource, file: Any, offset: int, count: int) -> bytes:  # noqa: ANN401
    """Bytes of a tifffile handle that several threads share."""
    with source.lock:
        if file.closed:
            file.open()
        if offset < 0 or count <= 0 or offset + count > file.size:
            raise ValueError("it lies beyond the end of the file, which was cut off")
        file.seek(offset)
        data: bytes = file.read(count)
    if len(data) != count:
        raise ValueError(f"expected {count} bytes, got {len(data)}")
    return data
