"""PNG and JPEG: bytes changed, with checksums set right again where the format has them."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache
from pathlib import Path
from random import Random

from PIL import Image

from ..child import Make
from ..dice import WHOLE, damaged
from ._command import COLOURED, GREY, looked_at


@cache
def _drawn(kind: str) -> bytes:
    grey, colour = Image.fromarray(GREY), Image.fromarray(COLOURED)
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    match kind:
        case "grey.png":
            grey.save(file, "png", dpi=(50800, 50800))
        case "colour.png":
            colour.convert("RGBA").save(file, "png", exif=exif)
        case "palette.png":
            colour.convert("P").save(file, "png", transparency=0)
        case "deep.png":
            grey.convert("I;16").save(file, "png")
        case "grey.jpg":
            grey.save(file, "jpeg", quality=90)
        case "progressive.jpg":
            colour.save(file, "jpeg", progressive=True, exif=exif)
        case "inks.jpg":
            colour.convert("CMYK").save(file, "jpeg")
        case _:
            colour.save(file, "jpeg", quality=75, restart_marker_blocks=4, exif=exif)
    return file.getvalue()


_PNG = ("grey.png", "colour.png", "palette.png", "deep.png")
_JPEG = ("grey.jpg", "progressive.jpg", "inks.jpg", "colour.jpg")


def jpeg(dice: Random, folder: Path) -> list[str]:
    """A JPEG with bytes changed, or with a header that claims another size."""
    name = dice.choice(_JPEG)
    data = bytearray(_drawn(name))
    if not dice.randrange(3):
        at = next(
            data.find(bytes((0xFF, kind))) for kind in (0xC0, 0xC2) if bytes((0xFF, kind)) in data
        )
        values = [dice.choice((1, 80, 120, 65535, 0, 4000)) for _ in range(2)]
        data[at + 5 : at + 9] = struct.pack(">HH", *values)
    (folder / "in" / name).write_bytes(damaged(dice, bytes(data)) if dice.randrange(5) else data)
    return looked_at(dice, f"{{here}}/in/{name}")


def png(dice: Random, folder: Path) -> list[str]:
    """A PNG whose chunks are changed, left out, doubled; their checksums are right mostly."""
    name = dice.choice(_PNG)
    data = _drawn(name)
    out, at = bytearray(data[:8]), 8
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        body = bytearray(data[at + 8 : at + 8 + size])
        at += 12 + size
        if not dice.randrange(12):
            continue
        if kind == b"IHDR" and not dice.randrange(2):
            place = dice.choice((0, 4, 8, 9, 10, 12))
            if place < 8:
                body[place : place + 4] = struct.pack(">I", dice.choice(WHOLE[:24]) % 2**32)
            else:
                body[place] = dice.choice((0, 1, 2, 3, 4, 6, 16, 255))
        elif not dice.randrange(3):
            body = bytearray(damaged(dice, bytes(body)))
        elif kind == b"IDAT" and not dice.randrange(8):
            body = bytearray(zlib.compress(bytes(60_000_000)))
        whole = kind + body
        sum_ = zlib.crc32(whole) if dice.randrange(8) else 7
        out += (struct.pack(">I", len(body)) + whole + struct.pack(">I", sum_)) * dice.choice(
            (1,) * 9 + (2,)
        )
    (folder / "in" / name).write_bytes(damaged(dice, bytes(out)) if not dice.randrange(6) else out)
    return looked_at(dice, f"{{here}}/in/{name}")


KINDS: dict[str, Make] = {"jpeg": jpeg, "png": png}
