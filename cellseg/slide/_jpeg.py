"""Whether a JPEG's data are whole: decoders fill in what is missing and say nothing.

libjpeg warns where a code is none, where data end before the image does, where data are left
over, and where restart markers are out of step. What it lets through is damage after which the
codes happen to fit again, as after most single flipped bits: a few blocks are wrong, and a cast
may follow. Runs of zero bytes, as lost sectors and broken-off copies leave them, are seen besides.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

import simplejpeg

_ZEROS = bytes(48)
_BASELINE, _PROGRESSIVE = (0xC0, 0xC1), 0xC2
_DAMAGE = ("Corrupt JPEG data", "Premature end", "Inconsistent progression")
_PADDING = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0xd9")
_MAX_PADDING = 16


def markers(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Segments up to the first scan, as (marker, content)."""
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return
        marker = data[at + 1]
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD7:
            at += 1 if marker == 0xFF else 2
            continue
        if marker == 0xD9:
            return
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        yield marker, data[at + 4 : at + 2 + size]
        if marker == 0xDA:
            return
        at += 2 + max(2, size)


def joined(data: bytes, tables: bytes | None) -> bytes:
    """A tile of a TIFF with the tables that all tiles share."""
    return tables[:-2] + data[2:] if tables and tables[-2:] == b"\xff\xd9" else data


def check_jpeg(data: bytes, size: tuple[int, int]) -> None:
    """ValueError if damaged; kinds that libjpeg-turbo does not know are let through unseen.

    ``data`` is a JPEG with its tables, ``size`` the most (height, width) that it may have, px.
    """
    frame, first_codes, scan = None, [], 0
    for marker, body in markers(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and len(body) >= 6:
            frame = marker, body
        elif marker == 0xC4:
            first_codes += list(_first_codes(body))
        elif marker == 0xDA:
            scan = data.index(b"\xff\xda" + (len(body) + 2).to_bytes(2, "big") + body)
    if frame is None:
        return
    kind, body = frame
    height, width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
    if height > size[0] or width > size[1]:
        raise ValueError(f"expected at most {size[0]} × {size[1]} px, it claims {height} × {width}")
    if body[0] != 8 or kind not in (*_BASELINE, _PROGRESSIVE) or body[5] not in (1, 3, 4):
        return
    end = data.find(b"\xff\xd9", scan)
    if kind in _BASELINE and any(first_codes) and _ZEROS in data[scan : end if end > 0 else None]:
        raise ValueError("damaged JPEG data: a run of zero bytes")
    try:
        simplejpeg.decode_jpeg(data, colorspace="CMYK" if body[5] == 4 else "GRAY", strict=True)
    except ValueError as error:
        padding = _PADDING.match(str(error))
        if padding and int(padding[1]) <= _MAX_PADDING:
            return
        if str(error).startswith(_DAMAGE):
            raise ValueError(f"damaged JPEG data: {error}") from error


def _first_codes(body: bytes) -> Iterator[int]:
    """What zero bits mean in each table of AC codes: 0, the rest of the block is empty, or other.

    Where that is other, no encoder writes a long run of zeros.
    """
    at = 0
    while at + 17 <= len(body):
        count = sum(body[at + 1 : at + 17])
        if body[at] >> 4 == 1 and at + 17 < len(body):
            yield body[at + 17]
        at += 17 + count


def check_jpeg2000(data: bytes, size: tuple[int, int]) -> None:
    """ValueError if a JPEG 2000 claims more pixels than ``size``, (height, width): it takes long.

    Other data are let through.
    """
    at = data.find(b"\xff\x4f\xff\x51")  # its start, and the sizes
    if at >= 0 and len(data) >= at + 24:
        right, bottom, left, top = struct.unpack(">4I", data[at + 8 : at + 24])
        if bottom - top > size[0] or right - left > size[1]:
            raise ValueError(f"claims {right - left} × {bottom - top} px")
