"""Single fields in PNG and JPEG: small enough to be decoded whole."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import imagecodecs
import numpy as np

from cellseg.errors import InputError, RegionError
from cellseg.slide import _pixelsize as sizes
from cellseg.slide._content import Content, Request, channel_names, choose_planes, choose_series
from cellseg.slide._guard import check_whole, reading
from cellseg.slide._jpeg import check_jpeg, markers
from cellseg.slide._limits import check_plane
from cellseg.slide._raster import (
    ChunkCache,
    ChunkedRaster,
    Pixels,
    Raster,
    RecolouredRaster,
    TurnedRaster,
)
from cellseg.storage import Location, file_size

PNG_MAGIC, JPEG_MAGIC = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_ADVICE = "copy it again or export it as TIFF"
_PNG_SAMPLES = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}


@dataclass(frozen=True)
class _Header:
    """What a file says before it is decoded; ``unit`` is TIFF's (2: inch, 3: cm)."""

    kind: str
    height: int
    width: int
    samples: int
    bits: int
    alpha: bool = False
    resolution: tuple[float, float] = (0.0, 0.0)
    unit: int = 1
    orientation: int = 1
    notes: tuple[str, ...] = ()


class _FieldRaster(ChunkedRaster):
    """The whole picture as one chunk."""

    def __init__(self, path: Location, header: _Header, cache: ChunkCache) -> None:
        dtype = np.dtype(np.uint16 if header.bits > 8 else np.uint8)
        size = (header.height, header.width)
        super().__init__((*size, header.samples), dtype, size, cache=cache, pin=True)
        self._path, self._kind = path, header.kind

    def decode(self, row: int, column: int) -> Pixels:
        """The picture, (height, width, samples)."""
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
        header = _png(data) if data.startswith(PNG_MAGIC) else _jpeg(data)
        if header.height < 1 or header.width < 1:
            raise InputError(f"{path.name}: the image has no pixels; nothing to read")
        check_plane(path.name, header.height, header.width, (header.height, header.width))
        choose_series(path.name, request.series, 1)
        planes = choose_planes(path.name, request, 1, 1)
        pixels = header.height * header.width
        n_bytes = pixels * header.samples * (2 if header.bits > 8 else 1)
        check_whole(path, pixels=pixels, n_bytes=n_bytes, what="the image")
    cache = ChunkCache()
    raster, notes = _bands(_FieldRaster(path, header, cache), header)
    if header.orientation != 1:
        raster = TurnedRaster(raster, header.orientation)
        notes.append(f"orientation {header.orientation}: turned upright")
    is_rgb = raster.bands == 3
    x, y = header.resolution
    cost = f"decoded whole: {n_bytes / 1e6:.1f} MB of memory while it is open"
    return Content(
        format=header.kind,
        levels=(raster,),
        channels=("red", "green", "blue") if is_rgb else channel_names((), raster.bands),
        is_rgb=is_rgb,
        pixel_size=sizes.from_tags(x, y, header.unit, f"{header.kind} resolution"),
        size_z=1,
        size_t=1,
        notes=(*planes.notes, *header.notes, *notes, cost),
        compression="deflate" if header.kind == "PNG" else "jpeg",
        tiled=False,
        n_series=1,
        n_images=1,
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


def _png(data: bytes) -> _Header:
    width, height, bits, colour = struct.unpack(">IIBB", data[16:26])
    if data[12:16] != b"IHDR" or colour not in _PNG_SAMPLES:
        raise ValueError("no image header")
    resolution, unit, orientation, alpha, ended = (0.0, 0.0), 1, 1, colour in (4, 6), False
    at = 8
    while at + 12 <= len(data):
        size, name = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + size]
        if name == b"pHYs" and len(body) == 9 and body[8] == 1:
            per_m = struct.unpack(">II", body[:8])
            resolution, unit = (per_m[0] / 100, per_m[1] / 100), 3
        elif name == b"tRNS" and colour == 3:
            alpha = True
        elif name == b"eXIf":
            orientation = _exif_orientation(body)
        ended = ended or name == b"IEND"
        at += 12 + size
    if not ended:
        raise ValueError("it ends too early")
    samples = _PNG_SAMPLES[colour]
    palette = ("a palette of colours: expanded to RGB",) if colour == 3 else ()
    # Transparent palettes come out as RGBA, of which the decoder's caller keeps RGB.
    alpha_note = ("alpha dropped",) if colour == 3 and alpha else ()
    return _Header(
        "PNG", height, width, samples, bits, alpha and colour != 3, resolution, unit, orientation,
        (*palette, *alpha_note),
    )  # fmt: skip


def _jpeg(data: bytes) -> _Header:
    frame: tuple[int, int, int, int] | None = None
    resolution, unit, orientation = (0.0, 0.0), 1, 1
    for marker, body in markers(data):
        if marker in (0xC0, 0xC1, 0xC2, 0xC3):
            bits, height, width, samples = struct.unpack(">BHHB", body[:6])
            frame = (height, width, samples, bits)
        elif marker == 0xE0 and body[:5] == b"JFIF\0" and body[7] in (1, 2):
            per = struct.unpack(">HH", body[8:12])
            resolution, unit = (float(per[0]), float(per[1])), body[7] + 1
        elif marker == 0xE1 and body[:6] == b"Exif\0\0":
            orientation = _exif_orientation(body[6:])
    if frame is None or frame[2] not in (1, 3, 4):
        raise ValueError("no image header")
    if b"\xff\xd9" not in data[-65536:]:
        raise ValueError("it ends too early")
    return _Header("JPEG", *frame, False, resolution, unit, orientation)


def _exif_orientation(data: bytes) -> int:
    """Tag 274 of an EXIF block, 1 when it is absent or damaged."""
    try:
        order = {b"II": "<", b"MM": ">"}[data[:2]]
        (first,) = struct.unpack(f"{order}I", data[4:8])
        (count,) = struct.unpack(f"{order}H", data[first : first + 2])
        for number in range(min(count, 512)):
            at = first + 2 + 12 * number
            tag, kind = struct.unpack(f"{order}HH", data[at : at + 4])
            if tag == 274 and kind == 3:
                (value,) = struct.unpack(f"{order}H", data[at + 8 : at + 10])
                return value if 1 <= value <= 8 else 1
    except (KeyError, struct.error):
        pass
    return 1
