"""What TIFF tags say about a file: format, pixel size, orientation, compression."""

from __future__ import annotations

from typing import Any, Literal

import tifffile

from cellseg.slide import _pixelsize as sizes
from cellseg.slide._ome import OmeImage


def first_page(tif: tifffile.TiffFile) -> int:
    """Where the header says that the first page's description lies, bytes."""
    start, length = (8, 8) if tif.is_bigtiff else (4, 4)
    tif.filehandle.seek(start)
    order: Literal["little", "big"] = "big" if tif.byteorder == ">" else "little"
    return int.from_bytes(tif.filehandle.read(length), order)


def pixel_size(tif: tifffile.TiffFile, key: Any, ome: OmeImage) -> sizes.PixelSize:  # noqa: ANN401
    """µm per pixel from the most trustworthy tag that the format has."""
    x, y, unit = (key.tags.valueof(code) for code in (282, 283, 296))
    if tif.is_imagej:
        return sizes.first_known(ome.pixel_size, sizes.from_imagej(tif.imagej_metadata or {}, x, y))
    if tif.is_svs:
        return sizes.from_aperio(str(key.description))
    if tif.is_ndpi:
        return sizes.from_tags(x, y, unit, "NDPI tags")
    if tif.is_philips:
        return sizes.from_philips(tif.philips_metadata or "")
    return sizes.first_known(ome.pixel_size, sizes.from_tags(x, y, unit))


def is_stitched(tif: tifffile.TiffFile) -> bool:
    """Whether its tiles overlap, as those of Ventana and Trestle: OpenSlide puts them in place."""
    try:
        page: Any = tif.pages[0]
    except IndexError:
        return False
    return bool(tif.is_bif) or str(page.tags.valueof(305, default="")).startswith("MedScan")


def orientation(key: Any) -> int:  # noqa: ANN401
    """TIFF orientation, 1 when it is absent or nonsense."""
    value = key.tags.valueof(274, default=1)
    return value if isinstance(value, int) and 2 <= value <= 8 else 1


def compression(key: Any) -> str:  # noqa: ANN401
    """The compression's name in small letters."""
    name = getattr(key.compression, "name", None) or f"number {key.compression}"
    return "none" if name in ("NONE", "number 1") else str(name).lower()


def format_name(tif: tifffile.TiffFile, key: Any) -> str:  # noqa: ANN401
    """What a person calls the format."""
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
