"""Single fields in PNG and JPEG: small enough to be decoded whole."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import imagecodecs
import numpy as np
from PIL import ExifTags, ImageMode
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from cellseg.errors import InputError, RegionError
from cellseg.slide import _pixelsize as sizes
from cellseg.slide._content import Content, Request, channel_names, choose_planes, choose_series
from cellseg.slide._guard import check_whole, reading
from cellseg.slide._jpeg import check_jpeg
from cellseg.slide._raster import (
    ChunkCache,
    ChunkedRaster,
    Pixels,
    Raster,
    RecolouredRaster,
    TurnedRaster,
)
from cellseg.slide.limits import check_plane
from cellseg.storage import Location, file_size

JPEG_PX_PER_BYTE = 512
"""At the most: each block of 8 × 8 px takes a bit or more."""

_ADVICE = "copy it again or export it as TIFF"


@dataclass(frozen=True)
class _Header:
    """What a file says before it is decoded."""

    kind: str
    height: int
    width: int
    samples: int
    bits: int
    alpha: bool
    dpi: tuple[float, float]
    orientation: int
    notes: tuple[str, ...]


class _FieldRaster(ChunkedRaster):
    """The whole picture as one chunk."""

    def __init__(self, path: Location, header: _Header, cache: ChunkCache) -> None:
        dtype = np.dtype(np.uint16 if header.bits > 8 else np.uint8)
        size = (header.height, header.width)
        super().__init__((*size, header.samples), dtype, size, cache=cache, pin=True)
        self._path, self._kind, self._broken = path, header.kind, ""

    def decode(self, row: int, column: int) -> Pixels:
        """The picture, (height, width, samples)."""
        # Not once a tile: it is dear, and libpng's errors leave the decoded pixels in memory.
        if self._broken:
            raise RegionError(self._broken)
        try:
            return self._decoded()
        except RegionError as error:
            self._broken = str(error)
            raise

    def _decoded(self) -> Pixels:
        with reading(self._path, "does not decode", kind=RegionError, advice=_ADVICE):
            data = self._path.read_bytes()
            if self._kind == "JPEG":
                check_jpeg(data, (self.height, self.width))
            decode = imagecodecs.png_decode if self._kind == "PNG" else imagecodecs.jpeg_decode
            pixels: Pixels = np.asarray(decode(data))
            pixels = pixels if pixels.ndim == 3 else pixels[..., None]
            expected = (self.height, self.width, self.bands)
            if pixels.shape == (*expected[:2], 4) and self.bands == 3:
                pixels = pixels[..., :3]
            if pixels.shape != expected or pixels.dtype != self.dtype:
                raise ValueError(f"expected {expected} {self.dtype}, decoded {pixels.shape}")
            return pixels


def open_content(path: Location, request: Request) -> Content:
    """Open a PNG or a JPEG.

    Raises
    ------
    InputError, SettingsError
    """
    with reading(path, "is no readable picture, is cut off or damaged", advice=_ADVICE):
        size = file_size(path)
        check_whole(path, pixels=0, n_bytes=size, what="the file")
        data = path.read_bytes()
        header = _header(data)
        if header.height < 1 or header.width < 1:
            raise InputError(f"{path.name}: the image has no pixels; nothing to read")
        check_plane(path.name, header.height, header.width, (header.height, header.width))
        choose_series(path.name, request.series, 1)
        planes = choose_planes(path.name, request, 1, 1)
        pixels = header.height * header.width
        if header.kind == "JPEG" and pixels > JPEG_PX_PER_BYTE * size:
            raise ValueError(f"it claims {pixels:,} px, more than {size:,} bytes can hold")
        n_bytes = pixels * header.samples * (2 if header.bits > 8 else 1)
        cost = check_whole(path, pixels=pixels, n_bytes=n_bytes, what="the image")
    cache = ChunkCache()
    raster, notes = _bands(_FieldRaster(path, header, cache), header)
    if header.orientation != 1:
        raster = TurnedRaster(raster, header.orientation)
        notes.append(f"orientation {header.orientation}: turned upright")
    is_rgb = raster.bands == 3
    return Content(
        format=header.kind,
        levels=(raster,),
        channels=channel_names((), raster.bands, is_rgb=is_rgb),
        is_rgb=is_rgb,
        pixel_size=sizes.from_tags(*header.dpi, 2, f"{header.kind} resolution"),
        notes=(*planes.notes, *header.notes, *notes, *cost),
        compression="deflate" if header.kind == "PNG" else "jpeg",
        tiled=False,
        close=cache.clear,
    )


def _bands(raster: Raster, header: _Header) -> tuple[Raster, list[str]]:
    """Red, green and blue or grey; alpha goes."""
    if header.kind == "JPEG" and header.samples == 4:

        def recolour(pixels: Pixels) -> Pixels:
            # Adobe's JPEGs hold inverted inks, so this is a product, not 1 − ink.
            values = pixels.astype(np.float32)
            return np.rint(values[..., :3] * values[..., 3:4] / 255).astype(np.uint8)

        turned = RecolouredRaster(raster, (0, 1, 2, 3), recolour, bands=3, dtype=raster.dtype)
        return turned, ["CMYK inks turned into RGB without a colour profile"]
    if not header.alpha:
        return raster, []
    kept = tuple(range(header.samples - 1))
    shown = RecolouredRaster(raster, kept, None, bands=len(kept), dtype=raster.dtype)
    return shown, ["alpha dropped"]


def _header(data: bytes) -> _Header:
    """What Pillow finds before the pixels; it does not know 16-bit colour, so it never decodes."""
    # Not by Image.open, whose limit of pixels belongs to the whole process.
    is_png = data.startswith(b"\x89PNG")
    with warnings.catch_warnings():
        # Damaged EXIF says so on the terminal, several lines long; here it says nothing.
        warnings.simplefilter("ignore")
        picture = (PngImageFile if is_png else JpegImageFile)(io.BytesIO(data))
        turn = picture.getexif().get(ExifTags.Base.Orientation, 1) if "exif" in picture.info else 1
    # Behind the end there may be a camera's preview.
    if (b"IEND" if is_png else b"\xff\xd9") not in data[-65536:]:
        raise ValueError("it ends too early")
    stored = picture.tile[0].args or ""
    kind, _, rest = (stored if isinstance(stored, str) else stored[0]).partition(";")
    info = picture.info
    return _Header(
        kind="PNG" if is_png else "JPEG",
        height=picture.height,
        width=picture.width,
        samples=3 if kind == "P" else len(ImageMode.getmode(kind).bands),
        bits=16 if "16" in rest else 8,
        alpha=kind in ("LA", "RGBA"),
        # Without a unit Pillow makes up 72 dpi.
        dpi=info["dpi"] if "dpi" in info and (is_png or info.get("jfif_unit")) else (0, 0),
        orientation=turn if turn in range(1, 9) else 1,
        notes=_notes(kind, "transparency" in info),
    )


def _notes(kind: str, transparent: bool) -> tuple[str, ...]:
    if kind != "P":
        return ()
    # Transparent palettes come out as RGBA, of which the decoder's caller keeps RGB.
    return ("a palette of colours: expanded to RGB", *(["alpha dropped"] if transparent else []))
