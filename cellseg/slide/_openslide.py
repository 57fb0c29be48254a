"""What OpenSlide reads and no other library of this room: MIRAX, Ventana, Trestle and the like."""

from __future__ import annotations

import math
import re
import threading
from functools import partial

import numpy as np
import openslide

from cellseg.geometry import Box
from cellseg.slide import _pixelsize as sizes
from cellseg.slide._content import Content, Request, choose_planes, choose_series
from cellseg.slide._guard import reading
from cellseg.slide._raster import WINDOW_PX, ChunkCache, Pixels, Raster, Source, chunked
from cellseg.slide.limits import check_count, check_plane
from cellseg.storage import Location

_VENDORS = {
    "mirax": "MIRAX", "ventana": "Ventana BIF", "trestle": "Trestle TIFF", "sakura": "Sakura",
    "hamamatsu": "Hamamatsu VMS", "philips": "Philips TIFF", "dicom": "DICOM",
}  # fmt: skip


_MOSAIC = re.compile(rb"^\s*No(?:Layers|JpegColumns|JpegRows)\s*=\s*(\d+)", re.MULTILINE)
_COUNTS = re.compile(rb"^\s*\w+_COUNT\s*=\s*(-?\d+)", re.MULTILINE)
_MOST = 100_000
_INDEX_BYTES = 1_000_000
_MOST_TILE_PX = 8192 * 8192


def _check_claims(path: Location) -> None:
    """Refuse a VMS of more pictures, a MIRAX of more levels or files than any has.

    OpenSlide asks for memory for all of them at once, and ends the program where it gets none.
    """
    kind = path.suffix.lower()
    if kind in (".vms", ".vmu"):
        claimed = math.prod(int(number[:12]) for number in _MOSAIC.findall(_start(path)))
        if claimed > _MOST:
            raise ValueError(f"claims {claimed:,} pictures")
    index = path.parent / path.name.removesuffix(path.suffix) / "Slidedat.ini"
    if kind == ".mrxs" and index.is_file():
        for number in _COUNTS.findall(_start(index)):
            if not 0 <= (claimed := int(number[:12])) <= _MOST:
                raise ValueError(f"{index.name} claims {claimed:,} levels or files")


def _start(path: Location) -> bytes:
    with path.open("rb") as file:
        return file.read(_INDEX_BYTES)


class _Handle:
    """An open slide that is opened anew after an error: OpenSlide then answers nothing more."""

    def __init__(self, path: Location) -> None:
        self._path = str(path)
        self._lock = threading.Lock()
        self.slide = openslide.OpenSlide(self._path)

    def close(self) -> None:
        self.slide.close()

    def read(self, level: int, box: Box) -> Pixels:
        """Pixels of a box of a level, on the slide's background, (h, w, 3)."""
        slide = self.slide
        scale = slide.level_downsamples[level]
        corner = (round(box.x0 * scale), round(box.y0 * scale))
        try:
            picture = slide.read_region(corner, level, (box.width, box.height))
        except openslide.OpenSlideError:
            with self._lock:
                if self.slide is slide:
                    self.slide = openslide.OpenSlide(self._path)
            raise
        pixels = np.asarray(picture)
        colour = slide.properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR, "ffffff")
        out: Pixels = pixels[..., :3].copy()
        # Where nothing was scanned, alpha is 0.
        out[pixels[..., 3] == 0] = tuple(bytes.fromhex(colour))
        return out


def open_content(path: Location, request: Request) -> Content:
    """Open a slide through OpenSlide."""
    with reading(path, "is no slide that OpenSlide reads, or is damaged"):
        choose_series(path.name, request.series, 1)
        planes = choose_planes(path.name, request, 1, 1)
        _check_claims(path)
        handle, cache = _Handle(path), ChunkCache()
        said = handle.slide.properties
        count = handle.slide.level_count
        levels = tuple(_raster(handle, Source(path, level, cache)) for level in range(count))

    vendor = said.get(openslide.PROPERTY_NAME_VENDOR, "")
    mpp = (said.get(openslide.PROPERTY_NAME_MPP_X), said.get(openslide.PROPERTY_NAME_MPP_Y))
    return Content(
        format=_VENDORS.get(vendor, vendor),
        levels=levels,
        channels=("red", "green", "blue"),
        is_rgb=True,
        pixel_size=sizes.from_scale(mpp[1], mpp[0], ("µm", "µm"), "OpenSlide"),
        notes=planes.notes,
        close=handle.close,
    )


def _raster(handle: _Handle, source: Source) -> Raster:
    """One level, in the tiles that OpenSlide decodes at once: it asks for memory for all of one."""
    name, said = source.path.name, handle.slide.properties
    sides = (f"openslide.level[{source.level}].tile-{side}" for side in ("height", "width"))
    tile_height, tile_width = (int(said.get(side, WINDOW_PX)) for side in sides)
    check_count(name, "pixels in a tile", tile_height * tile_width, _MOST_TILE_PX)
    width, height = handle.slide.level_dimensions[source.level]
    check_plane(name, height, width, (tile_height, tile_width))
    shape, grid = (height, width, 3), (tile_height, tile_width)
    return chunked(source, shape, np.dtype(np.uint8), partial(handle.read, source.level), grid=grid)
