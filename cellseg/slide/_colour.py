"""From the samples of a TIFF to grey values, channels or red, green and blue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.errors import InputError
from cellseg.slide._content import check_kind
from cellseg.slide._raster import Pixels, Recolour, round_to

MINISWHITE, _, RGB, PALETTE, _, _, YCBCR = range(7)
_REFUSED = {
    5: "CMYK", 8: "CIELAB", 9: "ICCLAB", 10: "ITULAB", 32803: "camera raw (CFA)",
    34892: "linear raw", 32844: "LogL", 32845: "LogLuv",
}  # fmt: skip
_JPEG_FAMILY = {6, 7, 34892, 33007, 33003, 33004, 33005, 34712, 50001}
_APERIO_YCBCR = 33003


@dataclass(frozen=True)
class Colour:
    """How samples become bands: which are read, and what turns them into bands, if anything."""

    samples: tuple[int, ...]
    recolour: Recolour | None
    bands: int
    dtype: np.dtype[Any]
    is_rgb: bool
    notes: tuple[str, ...] = ()


def interpret(name: str, key: Any, count: int, *, is_imagej: bool) -> Colour:  # noqa: ANN401
    """Settle what the samples of a page, a tifffile.TiffPage, mean.

    ImageJ has no colour of 16 bits: such a file holds three channels.

    InputError if the colour space cannot be turned into grey or RGB.
    """
    kind, compression, stored = int(key.photometric), int(key.compression), np.dtype(key.dtype)
    if kind in _REFUSED:
        raise InputError(
            f"{name}: its colour space, {_REFUSED[kind]}, is not supported; convert it to RGB"
        )
    if stored.kind not in "buif":
        raise InputError(f"{name}: its pixels are {stored}, expected integers or floats")
    dtype, top = check_kind(name, stored), _full(stored, key.bitspersample)
    palette = getattr(key, "colormap", None)
    if kind == PALETTE and palette is not None and count == 1:
        return _palette(dtype, top, palette, is_imagej=is_imagej)
    if compression == _APERIO_YCBCR and count == 3:
        return Colour((0, 1, 2), _from_ycbcr, 3, dtype, True)
    if kind == YCBCR and count >= 3:
        return _rgb(stored, count, top, None if compression in _JPEG_FAMILY else _from_ycbcr)
    extra = [int(one) for one in key.extrasamples]
    # More than four samples of which the rest is no alpha are channels stored as RGB.
    is_composite = (is_imagej and stored.itemsize > 1) or (count > 4 and not any(extra))
    if kind == RGB and count >= 3 and not is_composite:
        return _rgb(stored, count, top, None)
    kept = max(1, count - sum(one in (1, 2) for one in extra))
    notes = ["alpha dropped"] if kept < count else []
    recolour: Recolour | None = None
    if kind == MINISWHITE and dtype.kind == "f":
        notes.append("stored as white-is-zero in floats: values are left as they are")
    elif kind == MINISWHITE:
        recolour = _inverted(dtype, top)
        notes.append("stored as white-is-zero: values are inverted")
    elif kind == RGB and is_imagej and count == 3:
        notes.append("an ImageJ composite: three channels, not a colour picture")
    if stored.kind == "b":
        notes.append("1 bit per pixel: read as 0 and 255")
    elif stored.kind == "u" and top < np.iinfo(stored).max:
        notes.append(f"{top.bit_length()} bits per sample: values up to {top}")
    return Colour(tuple(range(kept)), recolour, kept, dtype, False, tuple(notes))


def _full(stored: np.dtype[Any], bits: object) -> int:
    """The value of full intensity, by how many bits are used (a tuple where samples differ)."""
    if stored.kind == "b":
        return 255
    used = bits if isinstance(bits, int) and 0 < bits < 64 else 8 * stored.itemsize
    return int((1 << used) - 1)


def _rgb(stored: np.dtype[Any], count: int, top: int, recolour: Recolour | None) -> Colour:
    notes: list[str] = []
    if count > 3:
        what = "alpha" if count == 4 else f"{count - 3} extra samples"
        notes.append(f"{what} dropped: only red, green and blue are read")
    if recolour is None and stored.kind == "u" and top < (full := np.iinfo(stored).max):
        notes.append(f"{top.bit_length()} bits per sample: stretched to {stored}")

        def recolour(pixels: Pixels) -> Pixels:
            return round_to(pixels * np.float64(full / top), pixels.dtype)

    return Colour((0, 1, 2), recolour, 3, check_kind("", stored), True, tuple(notes))


def _inverted(dtype: np.dtype[Any], top: int) -> Recolour:
    if dtype.kind == "i":
        return np.invert

    def invert(pixels: Pixels) -> Pixels:
        white = dtype.type(top)
        out: Pixels = white - np.minimum(pixels, white)
        return out

    return invert


def _from_ycbcr(pixels: Pixels) -> Pixels:
    """BT.601 full range, as in JPEG (ITU-T T.871)."""
    values = pixels.astype(np.float32)
    half = (float(np.iinfo(pixels.dtype).max) + 1) / 2 if pixels.dtype.kind != "f" else 0.5
    y, cb, cr = values[..., 0], values[..., 1] - half, values[..., 2] - half
    rgb = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=-1)
    return round_to(rgb, pixels.dtype)


def _palette(
    dtype: np.dtype[Any], top: int, table: NDArray[np.uint16], *, is_imagej: bool
) -> Colour:
    """Grey data with a colour map stays grey; a picture of indexed colours is expanded."""
    entries = table.astype(np.int64).T
    lit = np.flatnonzero(entries.any(axis=1))
    used = entries[: lit[-1] + 1 if len(lit) else 1]
    is_grey = bool((used == used[:, :1]).all())
    is_ramp = len(np.unique(used, axis=0)) > 2 and bool((np.diff(used, axis=0) >= 0).all())
    if is_imagej or (is_ramp and not is_grey):
        what = "an ImageJ lookup table: grey" if is_imagej else "a colour map on grey values: the"
        note = f"{what} values are read, not its colours"
        return Colour((0,), None, 1, dtype, False, (note,))
    # Palettes have 16 bits; some writers fill only the lower 8.
    eight = entries if entries.max(initial=0) < 256 else entries >> 8
    full = eight.astype(np.uint8) if top < 256 else entries.astype(np.uint16)
    colours = full[:, :1] if is_grey else full

    def recolour(pixels: Pixels) -> Pixels:
        return colours[np.clip(pixels[..., 0].astype(np.int64), 0, len(colours) - 1)]

    note = "a grey palette: looked up" if is_grey else "a palette of colours: expanded to RGB"
    return Colour((0,), recolour, colours.shape[1], colours.dtype, not is_grey, (note,))
