"""Single fields in PNG and JPEG: small enough to be decoded whole."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
from PIL import ExifTags, ImageMode
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from cellseg.errors import InputError
from cellseg.geometry import Box
from cellseg.slide import _pixelsize as sizes
from cellseg.slide._content import Content, Request, channel_names, choose_planes, choose_series
from cellseg.slide._guard import reading
from cellseg.slide._jpeg import check_jpeg
from cellseg.slide._raster import ChunkCache, Pixels, Source, chunked, recoloured, turned
from cellseg.slide.limits import check_plane, check_whole
from cellseg.storage import Location, file_size

JPEG_PX_PER_BYTE = 512  # At the most: each block of 8 × 8 px takes a bit or more.


def open_content(path: Location, request: Request) -> Content:
    advice = "copy it again or export it as TIFF"
    what = "is no readable picture, is cut off or damaged"
    with reading(path, what, advice=advice), warnings.catch_warnings():
        # Damaged EXIF says so on the terminal, several lines long; here it says nothing.
        warnings.simplefilter("ignore")
        size = file_size(path)
        check_whole(path.name, "the file", size)
        picture = _picture(path.read_bytes())
        height, width = picture.height, picture.width
        if height < 1 or width < 1:
            raise InputError(f"{path.name}: the image has no pixels; nothing to read")
        check_plane(path.name, height, width, (height, width))
        choose_series(path.name, request.series, 1)
        planes = choose_planes(path.name, request, 1, 1)
        is_png = isinstance(picture, PngImageFile)
        if not is_png and height * width > JPEG_PX_PER_BYTE * size:
            raise ValueError(f"it claims {height * width:,} px, more than {size:,} bytes can hold")
        # Of the pixels in the file; Pillow does not know 16-bit colour, so it never decodes.
        stored: Any = picture.tile[0].args or ""
        kind, _, rest = (stored if isinstance(stored, str) else stored[0]).partition(";")
        if kind == "CMYK":
            raise InputError(f"{path.name}: CMYK is not supported; convert it to RGB")
        samples = 3 if kind == "P" else len(ImageMode.getmode(kind).bands)
        dtype = np.dtype(np.uint16 if "16" in rest else np.uint8)
        orientation = _orientation(picture)
        cost = check_whole(path.name, "the image", height * width * samples * dtype.itemsize)
    cache = ChunkCache()
    shape, source = (height, width, samples), Source(path, 0, cache)
    decode = _decoder(path, shape, dtype, is_png=is_png)
    raster = chunked(source, shape, dtype, decode, grid=shape[:2], what="image", pin=True)
    notes = ["a palette of colours: expanded to RGB"] if kind == "P" else []
    if kind in ("LA", "RGBA"):
        kept = tuple(range(samples - 1))
        raster = recoloured(raster, kept, None, bands=len(kept), dtype=dtype)
    if kind in ("LA", "RGBA") or (kind == "P" and "transparency" in picture.info):
        notes.append("alpha dropped")
    if orientation != 1:
        raster = turned(raster, orientation)
        notes.append(f"orientation {orientation}: turned upright")
    is_rgb, form = raster.bands == 3, "PNG" if is_png else "JPEG"
    # Without a unit Pillow makes up 72 dpi.
    has_unit = is_png or picture.info.get("jfif_unit")
    dpi = picture.info.get("dpi", (0, 0)) if has_unit else (0, 0)
    return Content(
        format=form,
        levels=(raster,),
        channels=channel_names((), raster.bands, is_rgb=is_rgb),
        is_rgb=is_rgb,
        pixel_size=sizes.from_tags(dpi[0], dpi[1], 2, f"{form} resolution"),
        notes=(*planes.notes, *notes, *cost),
        compression="deflate" if is_png else "jpeg",
        tiled=False,
        close=cache.clear,
    )


def _decoder(
    path: Location, shape: tuple[int, int, int], dtype: np.dtype[Any], *, is_png: bool
) -> Callable[[Box], Pixels]:
    """What decodes the whole picture: once, also where that fails, as it is dear."""
    failed: list[str] = []

    def decode(_: Box) -> Pixels:
        if failed:
            raise ValueError(failed[0])
        try:
            data = path.read_bytes()
            if not is_png:
                check_jpeg(data, shape[:2])
            decoder = imagecodecs.png_decode if is_png else imagecodecs.jpeg_decode
            pixels: Pixels = np.asarray(decoder(data)).reshape(*shape[:2], -1)
            if pixels.dtype != dtype:
                raise ValueError(f"expected {dtype}, decoded {pixels.dtype}")
        except (ValueError, RuntimeError) as error:
            # libpng's errors leave the decoded pixels in memory, so they are not kept.
            failed.append(str(error))
            raise ValueError(failed[0]) from None
        # What names one colour as transparent comes out with alpha.
        return pixels[..., :3] if shape[2] == 3 else pixels

    return decode


def _picture(data: bytes) -> PngImageFile | JpegImageFile:
    """What Pillow finds before the pixels."""
    # Not by Image.open, whose limit of pixels belongs to the whole process.
    is_png = data.startswith(b"\x89PNG")
    picture = (PngImageFile if is_png else JpegImageFile)(io.BytesIO(data))
    # Behind the end there may be a camera's preview.
    if (b"IEND" if is_png else b"\xff\xd9") not in data[-65536:]:
        raise ValueError("it ends too early")
    return picture


def _orientation(picture: PngImageFile | JpegImageFile) -> int:
    """EXIF orientation, 1 when it is absent or nonsense."""
    exif = picture.getexif() if "exif" in picture.info else {}
    turn = exif.get(ExifTags.Base.Orientation, 1)
    return turn if turn in range(1, 9) else 1
