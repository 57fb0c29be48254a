"""TIFF: files of every compression with bytes changed, and files made of hostile tags."""

from __future__ import annotations

import io
import struct
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import tifffile

from ..child import Make
from ..dice import TEXTS, WHOLE, damaged, packed
from ._command import COLOURED, GREY, looked_at

Tag = tuple[int, list[int] | bytes]
"""Type and values."""

_TYPES = {1: "B", 2: "B", 3: "H", 4: "I", 5: "I", 6: "b", 7: "B", 9: "i", 11: "I", 12: "Q", 13: "I",
          16: "Q", 17: "q", 18: "Q"}  # fmt: skip

_WRITTEN: tuple[tuple[str, dict[str, Any]], ...] = (
    ("grey", {}),
    ("grey", {"compression": "zlib", "tile": (32, 48)}),
    ("grey", {"compression": "lzw", "rowsperstrip": 7, "predictor": True}),
    ("grey", {"compression": "packbits", "bigtiff": True}),
    ("grey", {"compression": "lzma", "byteorder": ">"}),
    ("grey", {"compression": "zstd", "tile": (64, 64), "bigtiff": True, "byteorder": ">"}),
    ("grey", {"compression": "jpeg", "tile": (64, 64)}),
    ("grey", {"compression": "jpeg2000"}),
    ("grey", {"compression": "jpegxl"}),
    ("colour", {"compression": "jpeg", "tile": (48, 64), "photometric": "rgb"}),
    ("colour", {"compression": "webp", "photometric": "rgb"}),
    ("colour", {"photometric": "rgb", "planarconfig": "separate", "compression": "zlib"}),
    (
        "colour",
        {"photometric": "rgb", "description": "Aperio Image Library v11\r\n120x80|MPP = 0.5"},
    ),
    ("float", {"compression": "zlib", "predictor": True}),
    ("float64", {}),
    ("stack", {"imagej": True, "metadata": {"axes": "ZYX", "spacing": 1.0, "unit": "um"}}),
    (
        "stack",
        {"ome": True, "metadata": {"axes": "CYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}},
    ),
    ("stack", {"compression": "zlib", "metadata": {"axes": "TYX"}}),
    ("pyramid", {"compression": "zlib", "tile": (32, 32), "subifds": 2}),
    ("palette", {"photometric": "palette"}),
    ("cmyk", {"photometric": "separated"}),
    ("bits", {"bitspersample": 1}),
)


@cache
def written(number: int) -> bytes:
    """One of the whole files."""
    kind, how = _WRITTEN[number]
    pixels = {
        "grey": GREY, "colour": COLOURED, "float": GREY / np.float32(7), "float64": GREY * 1e9,
        "stack": np.stack([GREY.astype(np.uint16) * n for n in (1, 2, 3)]), "pyramid": GREY,
        "palette": GREY, "cmyk": np.concatenate([COLOURED, COLOURED[..., :1]], axis=2),
        "bits": GREY.mean() < GREY,
    }[kind]  # fmt: skip
    how = {"photometric": "minisblack", **how}
    if kind == "palette":
        how["colormap"] = np.repeat(np.arange(256, dtype=np.uint16)[None] * 257, 3, axis=0)
    if how.pop("imagej", False):
        how |= {"imagej": True}
        how.pop("photometric")
    file = io.BytesIO()
    with tifffile.TiffWriter(
        file, bigtiff=how.pop("bigtiff", False), byteorder=how.pop("byteorder", None),
        imagej=how.pop("imagej", False), ome=how.pop("ome", None),
    ) as tif:  # fmt: skip
        tif.write(pixels, **how)
        for step in (2, 4)[: how.get("subifds", 0)]:
            tif.write(pixels[::step, ::step], **{**how, "subifds": 0}, subfiletype=1)
    return file.getvalue()


def changed_bytes(dice: Random, folder: Path) -> list[str]:
    """A file of ours with bytes changed: half of the time only in its directory of tags."""
    data = written(dice.randrange(len(_WRITTEN)))
    path = folder / "in" / dice.choice(("a.tif", "a.svs", "a.ndpi", "a.ome.tif", "a.png"))
    path.write_bytes(damaged(dice, data) if dice.randrange(2) else _damaged_tags(dice, data))
    return looked_at(dice, f"{{here}}/in/{path.name}")


def _damaged_tags(dice: Random, data: bytes) -> bytes:
    """Values of some tags changed."""
    out = bytearray(data)
    with tifffile.TiffFile(io.BytesIO(data)) as tif:
        tags = [tag for page in tif.pages for tag in page.tags]  # type: ignore[union-attr]
        size = 8 if tif.is_bigtiff else 4
        order = tif.byteorder
    way: Any = "little" if order == "<" else "big"
    for tag in dice.sample(tags, min(len(tags), dice.choice((1, 1, 2, 3)))):
        at, width = dice.choice(
            ((tag.offset, 2), (tag.offset + 2, 2), (tag.offset + 4, size), (tag.offset + 4 + size,
            size),
             (tag.valueoffset, 2), (tag.valueoffset, 4))
        )  # fmt: skip
        most = 1 << 8 * width
        out[at : at + width] = (dice.choice(WHOLE[:30]) % most).to_bytes(width, way)
    return bytes(out)


_DESCRIPTIONS = (
    '{"shape": [80, 120]}', '{"shape": [1000000000, 80, 120]}',
    '{"shape": [' + "1, " * 9999 + "1]}",
    "ImageJ=1.53t\nimages={n}\nchannels={n}\nslices={n}\nframes={n}\nhyperstack=true\nspacing={n}\n",
    "Aperio Image Library v{n}\r\n{n}x{n} [0,0 {n}x{n}] ({n}x{n}) |MPP = {n}|AppMag = {n}",
    '<?xml version="1.0"?><OME><Image><Pixels SizeX="{n}" SizeY="{n}" SizeZ="{n}" SizeC="{n}" '
    'SizeT="{n}" DimensionOrder="XYCZT" Type="uint8"><TiffData IFD="{n}" PlaneCount="{n}"/>'
    "</Pixels></Image></OME>",
    '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
    '<collection sizeX="{n}" sizeY="{n}"><image name="{t}"><dimensions>'
    '<dimension sizeX="{n}" sizeY="{n}" r="{n}" ifd="{n}"/>'
    '</dimensions><pixels sizeX="{n}" sizeY="{n}"/></image></collection></scn>',
    '<?xml version="1.0" encoding="utf-16"?><PerkinElmer-QPI-ImageDescription><Name>{t}</Name>'
    "<ImageType>FullResolution</ImageType></PerkinElmer-QPI-ImageDescription>",
    '<?xml version="1.0"?><DataObject ObjectType="DPUfsImport"><Attribute Name="{t}">{n}'
    "</Attribute></DataObject>",
    '<iScan Magnification="{n}" ScanRes="{n}"><AOI0 AOIScanned="{n}"/></iScan>',
    "<indica><image/></indica>", "SCANIMAGE.SI.hChannels.channelSave = {n}",
    "state.configPath = {t}",
    "<MetaData><prop id=\"Description\"/></MetaData>", "Leica {t}", "{t}",
)  # fmt: skip

_CODES = (254, 255, 256, 257, 258, 259, 262, 266, 269, 273, 274, 277, 278, 279, 282, 283, 284, 292,
          296, 305, 306, 317, 320, 322, 323, 324, 325, 330, 332, 338, 339, 340, 347, 529, 530, 532,
          700, 32997, 32998, 33426, 33445, 33550, 33628, 33629, 33922, 34118, 34361, 34377, 34412,
          34665, 34675, 34853, 42112, 42113, 43314, 50838, 50839, 50844, 51023, 51123, 65000, 65420,
          65421, 65426, 65442, 65449, 65535)  # fmt: skip
"""Tags that say something to a reader: of the standard, of ImageJ, Aperio, Hamamatsu, Zeiss, …"""

_COMPRESSIONS = (1, 2, 3, 4, 5, 6, 7, 8, 32771, 32773, 32809, 32908, 32909, 32946, 33003, 33005,
                 34712, 34887, 34892, 34925, 34933, 34934, 50000, 50001, 50002, 50013,
                 65000)  # fmt: skip


def hostile_tags(dice: Random, folder: Path) -> list[str]:
    """A file written by nobody: right in most, hostile in a few tags."""
    order, big = dice.choice("<>"), not dice.randrange(3)
    path = (
        folder / "in" / dice.choice(("b.tif", "b.svs", "b.ndpi", "b.scn", "b.ome.tif", "b.qptiff"))
    )
    pages = [_page(dice) for _ in range(dice.choice((1, 1, 1, 2, 3, 40)))]
    path.write_bytes(assembled(pages, order, big=big, loop=_loop(dice, len(pages))))
    return looked_at(dice, f"{{here}}/in/{path.name}")


def _loop(dice: Random, pages: int) -> int | None:
    """To which page the last one leads back, if to any."""
    return dice.randrange(pages) if not dice.randrange(10) else None


def _page(dice: Random) -> dict[int, Tag]:
    height, width = dice.choice(((80, 120), (1, 1), (16, 100_000), (5000, 5000), (65_535, 65_535)))
    samples = dice.choice((1, 1, 1, 3, 4, 2, 65_535))
    tags: dict[int, Tag] = {
        256: (4, [width]), 257: (4, [height]), 258: (3, [8] * min(samples, 9)), 259: (3, [1]),
        262: (3, [2 if samples == 3 else 1]), 277: (3, [samples]), 278: (4, [height]),
        273: (4, [8]), 279: (4, [min(9600, height * width)]),
    }  # fmt: skip
    if not dice.randrange(3):
        tile = dice.choice((16, 64, 1, 0, 2**20))
        count = min(300, -(-height // max(1, tile)) * -(-width // max(1, tile)))
        tags |= {322: (4, [tile]), 323: (4, [tile]), 324: (4, [8] * count), 325: (4, [900] * count)}
        for code in (273, 278, 279):
            del tags[code]
    if not dice.randrange(3):
        tags[259] = (3, [dice.choice(_COMPRESSIONS)])
    if not dice.randrange(2):
        text = dice.choice(_DESCRIPTIONS)
        while "{n}" in text:
            text = text.replace("{n}", str(dice.choice((*WHOLE[:20], 1, 2, 1.5))), 1)
        text = text.replace("{t}", dice.choice(TEXTS))
        tags[270] = (2, text.encode("utf-8", "surrogatepass") + b"\0")
    for _ in range(dice.choice((0, 1, 1, 2, 4))):
        code = dice.choice(_CODES)
        kind = dice.choice(tuple(_TYPES))
        numbers = [dice.choice(WHOLE[:26]) for _ in range(dice.choice((1, 1, 2, 3, 6, 100, 3000)))]
        text = dice.choice(TEXTS).encode("utf-8", "surrogatepass") + b"\0"
        tags[code] = (kind, text if kind == 2 else numbers)
    for code in dice.sample(sorted(tags), dice.choice((0, 0, 0, 1, 2))):
        del tags[code]
    return tags


def assembled(
    pages: list[dict[int, Tag]], order: str = "<", *, big: bool = False, loop: int | None = None
) -> bytes:
    """A TIFF of tags; one strip of 9,600 bytes of pixels lies from byte 16 on."""
    word, size = ("Q", 8) if big else ("I", 4)
    out = bytearray(b"II" if order == "<" else b"MM")
    out += struct.pack(
        f"{order}HHHQ" if big else f"{order}HI", *((43, 8, 0, 0) if big else (42, 0))
    )
    link = len(out) - size
    out += GREY.tobytes()
    places = []
    for tags in pages:
        entries = bytearray()
        for code, (kind, values) in sorted(tags.items()):
            body = values if isinstance(values, bytes) else packed(_TYPES[kind], values, order)
            count = len(body) // max(
                1, struct.calcsize(_TYPES[kind]) * (2 if kind in (5, 10) else 1)
            )
            if len(body) > size:
                place = struct.pack(order + word, len(out))
                out += body
            else:
                place = body.ljust(size, b"\0")
            entries += struct.pack(f"{order}HH{word}", code, kind, count) + place
        places.append(len(out))
        out[link : link + size] = struct.pack(order + word, len(out))
        out += struct.pack(f"{order}{'Q' if big else 'H'}", len(tags)) + entries
        link = len(out)
        out += bytes(size)
    if loop is not None:
        out[link : link + size] = struct.pack(order + word, places[loop])
    return bytes(out)


_FLOATS = (
    0.0, -0.0, 1e-300, 5e-324, 1e-38, 1e-45, 1.0, -1.0, 65504.0, 1e12, 1e15, 1e20, 9.9e29, 1e30,
    1e38, 3.4e38, 1e154, 1e155, 1e300, 1.7e308, float("inf"), float("nan"),
)  # fmt: skip


def floats(dice: Random, folder: Path) -> list[str]:
    """An image of floats: scaled, moved, or with pixels beyond what anything measures."""
    kind = dice.choice((np.float16, np.float32, np.float64))
    scale = dice.choice((1, 1, 1, 1e-300, 1e-40, 1e-6, 1e20, 1e30, 1e290))
    with np.errstate(all="ignore"):
        pixels = (GREY * scale + dice.choice((0, 0, 1e6, -1e9, 1e12))).astype(kind)
        for _ in range(dice.choice((1, 1, 2, 4))):
            height, width = dice.choice(((1, 1), (1, 1), (1, 120), (3, 3), (40, 60), (80, 120)))
            y, x = dice.randrange(81 - height), dice.randrange(121 - width)
            value = dice.choice(_FLOATS) * dice.choice((1, -1))
            pixels[y : y + height, x : x + width] = np.float64(value).astype(kind)
    if not dice.randrange(4):
        pixels = np.stack([pixels, GREY.astype(kind)])
    tifffile.imwrite(folder / "in" / "a.tif", pixels, photometric="minisblack")
    return looked_at(dice, "{here}/in/a.tif")


KINDS: dict[str, Make] = {
    "tiff-bytes": changed_bytes, "tiff-tags": hostile_tags, "floats": floats,
}  # fmt: skip
