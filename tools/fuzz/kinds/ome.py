"""OME-TIFF: documents that claim much, lead elsewhere, or are no documents; sets of files."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from random import Random
from xml.sax.saxutils import quoteattr

import numpy as np
import tifffile

from ..child import Make
from ..dice import TEXTS, WHOLE, damaged
from ._command import GREY, looked_at
from .tiff import assembled

_PIXELS = (
    "SizeZ", "SizeC", "SizeT", "SizeX", "SizeY", "PhysicalSizeX", "PhysicalSizeY",
    "PhysicalSizeXUnit",
    "PhysicalSizeYUnit", "DimensionOrder", "Type", "BigEndian", "SignificantBits", "Interleaved",
    "ID",
)  # fmt: skip
_DATA = ("IFD", "PlaneCount", "NumPlanes", "FirstC", "FirstZ", "FirstT")
_USUAL = {
    "SizeX": "120", "SizeY": "80", "SizeZ": "1", "SizeC": "2", "SizeT": "1", "Type": "uint8",
    "DimensionOrder": "XYCZT", "PhysicalSizeX": "0.5", "PhysicalSizeY": "0.5", "ID": "Pixels:0",
    "IFD": "0", "PlaneCount": "1", "FirstC": "0",
}  # fmt: skip
_VALUES = (
    "XYZCT", "CXYZT", "XXXXX", "", "uint16", "float", "complex", "bit", "nonsense", "nm", "parsec",
    "-1",
    "0.5", "1e400", "inf", "nan", "true", "0x1", "1 000", "一",
)  # fmt: skip


def _attributes(dice: Random, names: tuple[str, ...]) -> str:
    kept = {name: _USUAL[name] for name in names if name in _USUAL}
    for _ in range(dice.choice((0, 0, 1, 2))):
        new = dice.choice((str(dice.choice(WHOLE)), dice.choice(_VALUES), dice.choice(TEXTS)))
        kept[dice.choice(names)] = new
    if kept and not dice.randrange(6):
        del kept[dice.choice(sorted(kept))]
    return " ".join(f"{name}={quoteattr(text)}" for name, text in kept.items())


def _uuid(dice: Random) -> str:
    name = dice.choice(
        ("a.ome.tif", "b.ome.tif", "b.ome.tif", "../secret.ome.tif", "x'/../../secret.ome.tif",
         "{here}/secret.ome.tif", "link.ome.tif", "fifo", ".", "", *TEXTS)
    )  # fmt: skip
    return f"<UUID FileName={quoteattr(name)}>urn:uuid:{dice.randrange(3)}</UUID>"


def document(dice: Random) -> str:
    """An OME-XML document."""
    channels = "".join(
        f'<Channel ID="Channel:0:{n}" Name={quoteattr(dice.choice((*TEXTS, "DAPI", "CD3")))} '
        f'SamplesPerPixel="{dice.choice((1, 1, 1, 3, 0, 10**9))}"/>'
        for n in range(dice.choice((0, 1, 2, 2, 2, 700)))
    )
    data = "".join(
        f"<TiffData {_attributes(dice, _DATA)}>{_uuid(dice) * dice.randrange(2)}</TiffData>"
        for _ in range(dice.choice((0, 1, 2, 2, 3, 400)))
    )
    modulo = (
        "<StructuredAnnotations><XMLAnnotation "
        'Namespace="openmicroscopy.org/omero/dimension/modulo"><Value>'
        f'<Modulo><ModuloAlong{dice.choice("TZC")} Type="lifetime" Start="0" '
        f'End="{dice.choice(WHOLE)}" Step="{dice.choice((1, 0, -1, 1e-9))}"/></Modulo></Value>'
        "</XMLAnnotation></StructuredAnnotations>"
    )
    head = dice.choice(("", "", "", "", "<!DOCTYPE OME>", '<!DOCTYPE OME [<!ENTITY a "b">]>'))
    images = "".join(
        f'<Image ID="Image:{n}"><Pixels {_attributes(dice, _PIXELS)}>{channels}{data}</Pixels>'
        "</Image>"
        for n in range(dice.choice((1, 1, 1, 1, 0, 2, 50)))
    )
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>{head}'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:0">'
        f"{images}{modulo if not dice.randrange(5) else ''}</OME>"
    )


def claims(dice: Random, folder: Path) -> list[str]:
    """A file of two pages, or a set of two, whose document says something else."""
    secret = np.full_like(GREY, 201)
    tifffile.imwrite(folder / "secret.ome.tif", secret, metadata=None)
    home = folder / "in"
    (home / "x'").mkdir()
    (home / "link.ome.tif").symlink_to("../secret.ome.tif")
    for name in ("a.ome.tif", "b.ome.tif"):
        text = document(dice).replace("{here}", str(folder)).encode("utf-8", "surrogatepass")
        text = damaged(dice, text) if not dice.randrange(8) else text
        tifffile.imwrite(home / name, np.stack([GREY, GREY // 2]), description=text, metadata=None,
                         photometric="minisblack")  # fmt: skip
    return looked_at(dice, "{here}/in/a.ome.tif")


def micromanager(dice: Random, folder: Path) -> list[str]:
    """NDTiff and MMStack: an index and a summary beside the pixels."""
    home = folder / "in"
    tifffile.imwrite(folder / "secret.tif", np.full_like(GREY, 201), metadata=None)
    summary = json.dumps({k: dice.choice((1, 2, *WHOLE[:20])) for k in
                          ("Channels", "Slices", "Frames", "Positions",
                          "Width")}).encode()  # fmt: skip
    tags = {
        256: (4, [120]), 257: (4, [80]), 258: (3, [8]), 259: (3, [1]), 262: (3, [1]), 277: (3, [1]),
        278: (4, [80]), 273: (4, [8]), 279: (4, [9600]), 51123: (2, b'{"Width": 120}\0'),
    }  # fmt: skip
    data = bytearray(assembled([tags]))
    # Micro-Manager's header follows TIFF's own, before the pixels.
    head = struct.pack("<IIII", 483729, dice.choice((0, 2, 3)), 2355492, len(summary)) + summary
    data[8:8] = head
    shift = len(head)
    data[4:8] = struct.pack("<I", struct.unpack("<I", data[4:8])[0] + shift)
    for name in ("s.tif", "s_MMStack.ome.tif"):
        (home / name).write_bytes(bytes(data) if dice.randrange(3) else damaged(dice, bytes(data)))
    with (home / "NDTiff.index").open("wb") as file:
        for _ in range(dice.choice((1, 2, 3, 200))):
            axes = json.dumps(
                {dice.choice("zct"): dice.choice((0, 1, 2, *WHOLE[:24], "x"))}
            ).encode()
            name = dice.choice(("s.tif", "s.tif", "../secret.tif", *TEXTS)).encode(
                "utf-8", "replace"
            )
            file.write(struct.pack("<I", len(axes)) + axes + struct.pack("<I", len(name)) + name)
            numbers = [26, 120, 80, *(dice.choice((0, 0, 1, 2**31 - 1)) for _ in range(5))]
            file.write(struct.pack("<IiiiIiii", *numbers))
    return looked_at(dice, f"{{here}}/in/{dice.choice(('s.tif', 's_MMStack.ome.tif'))}")


KINDS: dict[str, Make] = {"ome-xml": claims, "micro-manager": micromanager}
