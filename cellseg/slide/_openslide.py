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
from cellseg.slide.limits import check_count
from cellseg.storage import Location

_VENDORS = {
    "mirax": "MIRAX", "ventana": "Ventana BIF", "trestle": "Trestle TIFF", "sakura": "Sakura",
    "hamamatsu": "Hamamatsu VMS", "philips": "Philips TIFF", "dicom": "DICOM",
}  # fmt: skip

_MOSAIC = re.compile(rb"^\s*No(?:Layers|JpegColumns|JpegRows)\s*=\s*(\d+)", re.MULTILINE)
_MOST = 100_000
_MOST_IMAGES = 10_000_000
_INDEX_BYTES = 2**20
_MOST_TILE_PX = 8192 * 8192

_MIRAX: dict[bytes, int] = {
    b"IMAGENUMBER_X": _MOST, b"IMAGENUMBER_Y": _MOST, b"CameraImageDivisionsPerSide": 64,
    b"DIGITIZER_WIDTH": 8192, b"DIGITIZER_HEIGHT": 8192, b"OVERLAP_X": 8192, b"OVERLAP_Y": 8192,
    b"IMAGE_CONCAT_FACTOR": 20,
}  # fmt: skip
"""What ``Slidedat.ini`` may say at most; of names that end in ``_COUNT``, :data:`_MOST`."""

_LEAST_STEP_PX = 0.05
"""Between neighbouring pictures: OpenSlide looks at each place where one could lie."""


def _check_claims(path: Location) -> None:
    """Refuse a VMS or a MIRAX that claims more pictures, levels or files than any has.

    OpenSlide asks for memory for all of them at once, and ends the program where it gets none.
    """
    kind = path.suffix.lower()
    if kind in (".vms", ".vmu"):
        claimed = math.prod(max(1, int(n[:12])) for n in _MOSAIC.findall(_start(path)))
        if claimed > _MOST:
            raise ValueError(f"claims {claimed:,} pictures")
    index = path.parent / path.name.removesuffix(path.suffix) / "Slidedat.ini"
    if kind == ".mrxs" and index.is_file():
        _check_mirax(_start(index))


def _check_mirax(text: bytes) -> None:
    said: dict[tuple[bytes, bytes], float] = {}
    sections: dict[bytes, bytes] = {}
    section = b""
    for line in map(bytes.strip, text.split(b"\n")):
        key, _, value = map(bytes.strip, line.partition(b"="))
        most = _MOST if key.endswith(b"_COUNT") else _MIRAX.get(key)
        if line.startswith(b"["):
            section = line[1:-1]
        elif key.endswith(b"_SECTION"):
            sections[key] = value
        elif most is not None:
            said[section, key] = number = float(value)
            if not 0 <= number <= most:
                raise ValueError(f"claims {number:,g} for {key.decode('ascii', 'replace')}")
    divisions = int(said.get((b"GENERAL", b"CameraImageDivisionsPerSide"), 1))
    sides = [int(said.get((b"GENERAL", b"IMAGENUMBER_" + axis), 0)) for axis in (b"X", b"Y")]
    if math.prod(sides) > _MOST_IMAGES or not divisions or any(n % divisions for n in sides):
        raise ValueError(f"claims {sides[0]:,} × {sides[1]:,} pictures, {divisions} a shot's side")
    doublings = 0
    for level in range(int(said.get((b"HIERARCHICAL", b"HIER_0_COUNT"), 0))):
        section = sections.get(b"HIER_0_VAL_%d_SECTION" % level, b"")
        doublings += int(said.get((section, b"IMAGE_CONCAT_FACTOR"), 0))
        joined = 2 ** min(doublings, 30)
        for side, axis in ((b"WIDTH", b"X"), (b"HEIGHT", b"Y")):
            width = said.get((section, b"DIGITIZER_" + side), 0) / max(1, joined // divisions)
            overlap = said.get((section, b"OVERLAP_" + axis), 0) / max(1, divisions // joined)
            if width - overlap < _LEAST_STEP_PX:
                raise ValueError(f"claims pictures of {width:g} px that overlap by {overlap:g} px")


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
        close=lambda: handle.slide.close(),
    )


def _raster(handle: _Handle, source: Source) -> Raster:
    """One level, in the tiles that OpenSlide decodes at once: it asks for memory for all of one."""
    name, said = source.path.name, handle.slide.properties
    sides = (f"openslide.level[{source.level}].tile-{side}" for side in ("height", "width"))
    tile_height, tile_width = (int(said.get(side, WINDOW_PX)) for side in sides)
    check_count(name, "pixels in a tile", tile_height * tile_width, _MOST_TILE_PX)
    width, height = handle.slide.level_dimensions[source.level]
    shape, grid = (height, width, 3), (tile_height, tile_width)
    return chunked(source, shape, np.dtype(np.uint8), partial(handle.read, source.level), grid=grid)
