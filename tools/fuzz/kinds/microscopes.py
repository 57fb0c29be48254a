"""Files of microscopes whose readers are other libraries, and tiles of rarer compressions."""

from __future__ import annotations

import io
import re
import struct
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any

import imagecodecs
import numpy as np
import pydicom
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit

from cellseg.slide import _czi, _dicom, _lif, _nd2, _openslide  # noqa: F401 - loaded once, for all

from ..child import Make
from ..dice import TEXTS, WHOLE, damaged, number
from ._command import COLOURED, GREY, looked_at
from .tiff import assembled

sys.path.append(str(Path(__file__).parents[3] / "tests"))

import microscopes

_DYES = np.stack([GREY, GREY // 2]).astype(np.uint16) * 100
_WRITERS: dict[str, Callable[[Path, np.ndarray], object]] = {
    "a.czi": lambda path, pixels: microscopes.czi(path, pixels, corners=((0, 0), (0, 500))),
    "dyes.czi": microscopes.czi,
    "a.nd2": microscopes.nd2,
    "a.lif": lambda path, pixels: microscopes.lif(path, {"first": pixels, "other": pixels}),
    "a.dcm": partial(microscopes.dicom, tile=64),
    "a.tif": microscopes.trestle,
    "a.tiff": microscopes.philips,
}  # fmt: skip


@cache
def _written(name: str) -> tuple[bytes, tuple[int, ...]]:
    """A whole file, and which of its bytes are no pixels."""
    pixels = _DYES if name in ("dyes.czi", "a.nd2", "a.lif") else COLOURED
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for one in (pixels, np.zeros_like(pixels), np.full_like(pixels, 255)):
            path = Path(folder, name)
            path.unlink(missing_ok=True)
            _WRITERS[name](path, one)
            found.append(np.frombuffer(path.read_bytes(), np.uint8))
    data, black, white = found
    if len({len(one) for one in found}) > 1:  # packed
        return data.tobytes(), tuple(range(len(data)))
    return data.tobytes(), tuple(np.flatnonzero((black == white) & (data > 0)).tolist())


def _changed(dice: Random, name: str) -> bytes:
    """A file with bytes changed: most of the time such as say something, and are no pixels."""
    data, telling = _written(name)
    match dice.randrange(4):
        case 0:
            return damaged(dice, data)
        case 1:
            return _figures(dice, data)
    out = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 4))):
        at, size = dice.choice(telling), dice.choice((1, 2, 4, 8))
        new = dice.choice(WHOLE[:30]) % (1 << 8 * size)
        out[at : at + size] = new.to_bytes(size, "little")
    return bytes(out[: len(data)])


def _figures(dice: Random, data: bytes) -> bytes:
    """Figures and names in a file's XML replaced by others of the same length."""
    wide = b"<\0" in data and b"DimensionDescription"[:1] + b"\0" in data
    texts = rb'"((?:[^"<>\0]\0)+)"\0' if wide else rb'[">]([^"<>\0]{1,60})["<]'
    places = [found.span(1) for found in re.finditer(texts, data)]
    out = bytearray(data)
    for first, last in dice.sample(places, min(len(places), dice.choice((1, 1, 2, 5)))):
        new = dice.choice((str(number(dice)), str(dice.choice(WHOLE)), dice.choice(TEXTS)))
        code = new.encode("utf-16-le" if wide else "utf-8", "replace")
        out[first:last] = code[: last - first].ljust(last - first, b"0\0" if wide else b"0")[
            : last - first
        ]
    return bytes(out)


def _damaged_file(names: tuple[str, ...], dice: Random, folder: Path) -> list[str]:
    name = dice.choice(names)
    (folder / "in" / name).write_bytes(_changed(dice, name))
    return looked_at(dice, f"{{here}}/in/{name}")


@cache
def _jpeg_dicom() -> bytes:
    one = pydicom.dcmread(io.BytesIO(_written("a.dcm")[0]))
    tiles = np.frombuffer(one.PixelData, np.uint8).reshape(-1, 64, 64, 3)
    one.PixelData = encapsulate([imagecodecs.jpeg_encode(tile) for tile in tiles])
    one["PixelData"].is_undefined_length = True
    one.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    one.PhotometricInterpretation = "YBR_FULL_422"
    file = io.BytesIO()
    one.save_as(file)
    return file.getvalue()


def dicom(dice: Random, folder: Path) -> list[str]:
    """A level of a slide, in plain or JPEG tiles, whose elements or bytes are changed."""
    data = _jpeg_dicom() if dice.randrange(2) else _written("a.dcm")[0]
    path = folder / "in" / "a.dcm"
    match dice.randrange(3):
        case 0:
            path.write_bytes(damaged(dice, data))
        case 1:
            path.write_bytes(_changed(dice, "a.dcm"))
        case _:
            pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
            one = pydicom.dcmread(io.BytesIO(data))
            for _ in range(dice.choice((1, 1, 2, 3))):
                _change(dice, one)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    one.save_as(path)
            except (ValueError, TypeError, struct.error, OverflowError, AttributeError, OSError):
                path.write_bytes(damaged(dice, data))
    if not dice.randrange(5):
        (folder / "in" / "b.dcm").write_bytes(damaged(dice, data))
        return looked_at(dice, "{here}/in")
    return looked_at(dice, "{here}/in/a.dcm")


def _change(dice: Random, one: Any) -> None:  # noqa: ANN401
    places = [(home, element) for home, element in _elements(one) if element.keyword != "PixelData"]
    home, element = dice.choice(places)
    match dice.randrange(6):
        case 0:
            del home[element.tag]
            return
        case 1:
            new: Any = dice.choice(TEXTS)
        case 2:
            new = [element.value] * dice.choice((2, 50))
        case 3:
            new = None
        case _:
            numbers = {"US": 2**16, "SS": 2**15, "UL": 2**32, "SL": 2**31}
            new = dice.choice(WHOLE) % numbers.get(element.VR, 2**31)
            new = new if element.VR in numbers else str(new)[:16]
    if element.VR != "SQ":
        element._value = new


def _elements(one: Any) -> list[tuple[Any, Any]]:  # noqa: ANN401
    found = []
    for element in one:
        found.append((one, element))
        if element.VR == "SQ":
            found += [pair for item in element.value for pair in _elements(item)]
    return found


_MIRAX = """[GENERAL]
SLIDE_VERSION = {a}
SLIDE_ID = {t}
IMAGENUMBER_X = {n}
IMAGENUMBER_Y = {n}
CURRENT_SLIDE_MAGNIFICATION = {n}
CameraImageDivisionsPerSide = {n}
[HIERARCHICAL]
HIER_COUNT = {n}
NONHIER_COUNT = {n}
INDEXFILE = {f}
HIER_0_NAME = Slide zoom level
HIER_0_COUNT = {n}
HIER_0_VAL_0_SECTION = LAYER_0
[DATAFILE]
FILE_COUNT = {n}
FILE_0 = {f}
[LAYER_0]
OVERLAP_X = {n}
OVERLAP_Y = {n}
MICROMETER_PER_PIXEL_X = {n}
MICROMETER_PER_PIXEL_Y = {n}
IMAGE_FORMAT = {t}
IMAGE_FILL_COLOR_BGR = {n}
DIGITIZER_WIDTH = {n}
DIGITIZER_HEIGHT = {n}
IMAGE_CONCAT_FACTOR = {n}
"""
_VMS = """[Virtual Microscope Specimen]
NoLayers={n}
NoJpegColumns={n}
NoJpegRows={n}
ImageFile={f}
ImageFile(1,0)={f}
MapFile={f}
MacroImage={f}
OptimisationFile={f}
SourceLens={n}
PhysicalWidth={n}
PhysicalHeight={n}
"""


def described(dice: Random, folder: Path) -> list[str]:
    """MIRAX and Hamamatsu VMS: a text that names other files, and what lies beside it."""
    home = folder / "in"
    jpeg = imagecodecs.jpeg_encode(COLOURED)
    (folder / "secret.jpg").write_bytes(jpeg)
    is_vms = bool(dice.randrange(2))
    text = _VMS if is_vms else _MIRAX
    for mark, values in (
        ("{n}", ("1", "1", "1", "2", "80", "120", *map(str, WHOLE[:28]), "nan", "0.25")),
        ("{f}", ("b.jpg", "b.jpg", "b.jpg", "../secret.jpg", "../../secret.jpg", "/etc/passwd",
                 *TEXTS[:12])),
        ("{t}", ("JPEG", "PNG", "BMP24", *TEXTS)), ("{a}", ("01.02", "2.2", "99")),
    ):  # fmt: skip
        while mark in text:
            text = text.replace(mark, dice.choice(values), 1)
    said = text.encode("utf-8", "surrogatepass")
    said = damaged(dice, said) if not dice.randrange(4) else said
    if is_vms:
        path = home / "a.vms"
        path.write_bytes(said)
        (home / "b.jpg").write_bytes(damaged(dice, jpeg) if dice.randrange(2) else jpeg)
    else:
        path = home / "a.mrxs"
        path.write_bytes(jpeg)
        (home / "a").mkdir()
        (home / "a" / "Slidedat.ini").write_bytes(said)
        index = b"01.02" + b"x" * 32 + b"".join(
            struct.pack("<i", dice.choice((37, 41, 45, 49, 0, 1, -1, 2**31 - 1)))
            for _ in range(40)
        )  # fmt: skip
        (home / "a" / "b.jpg").write_bytes(index if dice.randrange(2) else jpeg)
    return looked_at(dice, f"{{here}}/in/{path.name}")


_CODECS: dict[str, tuple[int, Callable[[], bytes]]] = {
    "jpeg2000": (34712, lambda: imagecodecs.jpeg2k_encode(GREY)),
    "jpeg2000 of Aperio": (33005, lambda: imagecodecs.jpeg2k_encode(GREY, codecformat="j2k")),
    "jpegxl": (50002, lambda: imagecodecs.jpegxl_encode(GREY)),
    "jpegxr": (34934, lambda: imagecodecs.jpegxr_encode(GREY)),
    "webp": (50001, lambda: imagecodecs.webp_encode(COLOURED)),
    "png": (34933, lambda: imagecodecs.png_encode(GREY)),
    "zstd": (50000, lambda: imagecodecs.zstd_encode(GREY.tobytes())),
    "lzma": (34925, lambda: imagecodecs.lzma_encode(GREY.tobytes())),
    "lzw": (5, lambda: imagecodecs.lzw_encode(GREY.tobytes())),
    "deflate": (8, lambda: imagecodecs.zlib_encode(GREY.tobytes())),
    "jpeg": (7, lambda: imagecodecs.jpeg_encode(GREY)),
    "jpeg, 12 bit": (7, lambda: imagecodecs.jpeg_encode(GREY.astype(np.uint16), bitspersample=12)),
    "lossless jpeg": (7, lambda: imagecodecs.ljpeg_encode(GREY)),
    "fax": (4, lambda: GREY.tobytes()[:500]),
    "lerc": (34887, lambda: imagecodecs.lerc_encode(GREY)),
}  # fmt: skip


@cache
def _packed(name: str) -> bytes:
    return bytes(_CODECS[name][1]())


def codec(dice: Random, folder: Path) -> list[str]:
    """A TIFF of one strip of damaged packed pixels, half of the time in their first bytes."""
    name = dice.choice(tuple(_CODECS))
    data = _packed(name)
    if dice.randrange(2):
        head = dice.choice((16, 64, 200))
        data = damaged(dice, data[:head])[:head] + data[head:]
    else:
        data = damaged(dice, data)
    height, width, samples = 80, 120, 3 if name == "webp" else 1
    bits = 16 if "12 bit" in name else 8
    tags: dict[int, Any] = {
        256: (4, [width]), 257: (4, [height]), 258: (3, [bits] * samples),
        259: (3, [_CODECS[name][0]]), 262: (3, [2 if samples == 3 else 1]), 277: (3, [samples]),
        278: (4, [height]), 273: (4, [0]), 279: (4, [len(data)]), 65000: (7, data),
    }  # fmt: skip
    whole = assembled([tags])
    tags[273] = (4, [whole.index(data)]) if len(data) > 4 else (4, [8])
    (folder / "in" / "a.tif").write_bytes(assembled([tags]))
    return looked_at(dice, "{here}/in/a.tif")


KINDS: dict[str, Make] = {
    "czi": partial(_damaged_file, ("a.czi", "dyes.czi")),
    "nd2": partial(_damaged_file, ("a.nd2",)),
    "lif": partial(_damaged_file, ("a.lif",)),
    "dicom": dicom,
    "openslide": partial(_damaged_file, ("a.tif", "a.tiff")),
    "mirax-vms": described,
    "codec": codec,
}
