"""What OpenSlide reads and no other library of this room: MIRAX, Ventana, Trestle and the like."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Mapping
from functools import partial

import numpy as np
import openslide

from cellseg.geometry import Box
from cellseg.slide import _pixelsize as sizes
from cellseg.slide._content import Content, Request, choose_planes, choose_series
from cellseg.slide._guard import reading
from cellseg.slide._raster import ChunkCache, Pixels
from cellseg.slide._window import CHUNK_PX, Place, WindowRaster
from cellseg.slide.limits import check_count
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


def _tile_size(path: Location, said: Mapping[str, str], level: int) -> tuple[int, int]:
    """Height and width of what OpenSlide decodes at once: it asks for memory for all of it."""
    sides = (f"openslide.level[{level}].tile-{side}" for side in ("height", "width"))
    height, width = (int(said.get(side, CHUNK_PX)) for side in sides)
    check_count(path.name, "pixels in a tile", height * width, _MOST_TILE_PX)
    return height, width


def _start(path: Location) -> bytes:
    with path.open("rb") as file:
        return file.read(_INDEX_BYTES)


class _Handle:
    """An open slide that is opened anew after an error: OpenSlide then answers nothing more."""

    def __init__(self, path: Location) -> None:
        self._path = str(path)
        self._lock = threading.Lock()
        self.slide = openslide.OpenSlide(self._path)

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
    """Open a slide through OpenSlide.

    Raises
    ------
    InputError, SettingsError
    """
    with reading(path, "is no slide that OpenSlide reads, or is damaged"):
        choose_series(path.name, request.series, 1)
        planes = choose_planes(path.name, request, 1, 1)
        _check_claims(path)
        handle, cache = _Handle(path), ChunkCache()
        slide = handle.slide
        said = slide.properties
        levels = tuple(
            WindowRaster(
                Place(path, level, cache),
                (height, width, 3),
                np.dtype(np.uint8),
                partial(handle.read, level),
                _tile_size(path, said, level),
            )
            for level, (width, height) in enumerate(slide.level_dimensions)
        )

    def close() -> None:
        cache.clear()
        handle.slide.close()

    vendor = said.get(openslide.PROPERTY_NAME_VENDOR, "")
    mpp = (said.get(openslide.PROPERTY_NAME_MPP_X), said.get(openslide.PROPERTY_NAME_MPP_Y))
    return Content(
        format=_VENDORS.get(vendor, vendor),
        levels=levels,
        channels=("red", "green", "blue"),
        is_rgb=True,
        pixel_size=sizes.from_scale(mpp[1], mpp[0], ("µm", "µm"), "OpenSlide"),
        notes=planes.notes,
        close=close,
    )
