"""From the samples of a TIFF to grey values, channels or red, green and blue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.errors import InputError
from cellseg.slide._raster import Pixels, Recolour, round_to

MINISWHITE, MINISBLACK, RGB, PALETTE, MASK, SEPARATED, YCBCR = range(7)
_REFUSED = {
    8: "CIELAB", 9: "ICCLAB", 10: "ITULAB", 32803: "camera raw (CFA)", 34892: "linear raw",
    32844: "LogL", 32845: "LogLuv",
}  # fmt: skip
_JPEG_FAMILY = {6, 7, 34892, 33007, 33003, 33004, 33005, 34712, 50001}
_APERIO_YCBCR = 33003


@dataclass(frozen=True)
class Colour:
    """How samples become bands.

    Attributes
    ----------
    samples : tuple of int
        Those that are read.
    recolour : callable or None
        From samples to bands.
    dtype : np.dtype
        Of the bands.
    """

    samples: tuple[int, ...]
    recolour: Recolour | None
    bands: int
    dtype: np.dtype[Any]
    is_rgb: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Depth:
    """The type of decoded samples, and how many of its bits are used (0: samples differ)."""

    dtype: np.dtype[Any]
    bits: int

    @property
    def wide(self) -> np.dtype[Any]:
        """The type of bands."""
        if self.dtype.kind == "b":
            return np.dtype(np.uint8)
        return np.dtype(np.float32) if self.dtype == np.float16 else self.dtype

    @property
    def top(self) -> int:
        """The value of full intensity."""
        if self.dtype.kind == "b":
            return 255
        bits = self.bits if 0 < self.bits < 64 else self.dtype.itemsize * 8
        return int((1 << bits) - 1)

    @property
    def notes(self) -> tuple[str, ...]:
        if self.dtype.kind == "b":
            return ("1 bit per pixel: read as 0 and 255",)
        if self.dtype == np.float16:
            return ("16-bit floats: read as 32-bit floats",)
        if self.dtype.kind == "u" and 0 < self.bits < self.dtype.itemsize * 8:
            return (f"{self.bits} bits per sample: values up to {self.top}",)
        return ()

    def widened(self, recolour: Recolour | None) -> Recolour | None:
        """Bool to 0 and 255, float16 to float32, then the recolouring."""
        if self.wide == self.dtype:
            return recolour
        factor = self.wide.type(255 if self.dtype.kind == "b" else 1)

        def widen(pixels: Pixels) -> Pixels:
            values: Pixels = pixels.astype(self.wide) * factor
            return values if recolour is None else recolour(values)

        return widen


def interpret(name: str, key: Any, count: int, *, is_imagej: bool) -> Colour:  # noqa: ANN401
    """Settle what the samples of a page mean.

    Parameters
    ----------
    name : str
        The file's, for messages.
    key : tifffile.TiffPage
    count : int
        Samples of a pixel.
    is_imagej : bool
        ImageJ has no colour of 16 bits: such a file holds three channels.

    Raises
    ------
    InputError
        A colour space that cannot be turned into grey or RGB.
    """
    kind, compression, dtype = int(key.photometric), int(key.compression), np.dtype(key.dtype)
    if kind in _REFUSED:
        raise InputError(
            f"{name}: its colour space, {_REFUSED[kind]}, is not supported; convert it to RGB"
        )
    if dtype.kind not in "buif":
        raise InputError(f"{name}: its pixels are {dtype}, expected integers or floats")
    depth = _Depth(dtype, key.bitspersample if isinstance(key.bitspersample, int) else 0)
    palette = getattr(key, "colormap", None)
    if kind == PALETTE and palette is not None and count == 1:
        return _palette(depth, palette, is_imagej=is_imagej)
    if kind == SEPARATED:
        return _cmyk(name, depth, count)
    if compression == _APERIO_YCBCR and count == 3:
        return _rgb(depth, count, _from_ycbcr)
    if kind == YCBCR and count >= 3:
        return _rgb(depth, count, None if compression in _JPEG_FAMILY else _from_ycbcr)
    extra = [int(one) for one in key.extrasamples]
    # More than four samples of which the rest is no alpha are channels stored as RGB.
    is_composite = (is_imagej and dtype.itemsize > 1) or (count > 4 and not any(extra))
    if kind == RGB and count >= 3 and not is_composite:
        return _rgb(depth, count, None)
    kept = max(1, count - sum(one in (1, 2) for one in extra))
    notes = ["alpha dropped"] if kept < count else []
    recolour = None
    if kind == MINISWHITE and dtype.kind == "f":
        notes.append("stored as white-is-zero in floats: values are left as they are")
    elif kind == MINISWHITE:
        recolour = _inverted(depth)
        notes.append("stored as white-is-zero: values are inverted")
    elif kind == RGB and is_imagej and count == 3:
        notes.append("an ImageJ composite: three channels, not a colour picture")
    return Colour(tuple(range(kept)), depth.widened(recolour), kept, depth.wide, False,
                  (*notes, *depth.notes))  # fmt: skip


def _rgb(depth: _Depth, count: int, recolour: Recolour | None) -> Colour:
    notes = []
    if count > 3:
        what = "alpha" if count == 4 else f"{count - 3} extra samples"
        notes.append(f"{what} dropped: only red, green and blue are read")
    dtype = depth.wide
    if recolour is None and depth.dtype.kind == "u" and depth.top < (full := np.iinfo(dtype).max):
        factor = np.float64(full / depth.top)
        notes.append(f"{depth.bits} bits per sample: stretched to {dtype}")

        def stretch(pixels: Pixels) -> Pixels:
            return round_to(pixels * factor, pixels.dtype)

        return Colour((0, 1, 2), stretch, 3, dtype, True, tuple(notes))
    return Colour((0, 1, 2), depth.widened(recolour), 3, dtype, True, (*notes, *depth.notes))


def _inverted(depth: _Depth) -> Recolour:
    if depth.dtype.kind == "i":
        return np.invert

    def invert(pixels: Pixels) -> Pixels:
        white = pixels.dtype.type(depth.top)
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


def _cmyk(name: str, depth: _Depth, count: int) -> Colour:
    if count < 4 or depth.dtype.kind != "u":
        raise InputError(
            f"{name}: {count} separated inks of {depth.dtype} are not supported; convert it to RGB"
        )
    top = np.float32(depth.top)

    def recolour(pixels: Pixels) -> Pixels:
        ink = pixels.astype(np.float32) / top
        return round_to((1 - ink[..., :3]) * (1 - ink[..., 3:4]) * top, pixels.dtype)

    return Colour((0, 1, 2, 3), recolour, 3, depth.dtype, True,
                  ("CMYK inks turned into RGB without a colour profile",))  # fmt: skip


def _palette(depth: _Depth, table: NDArray[np.uint16], *, is_imagej: bool) -> Colour:
    """Grey data with a colour map stays grey; a picture of indexed colours is expanded."""
    entries = table.astype(np.int64).T
    lit = np.flatnonzero(entries.any(axis=1))
    used = entries[: lit[-1] + 1 if len(lit) else 1]
    is_grey = bool((used == used[:, :1]).all())
    is_ramp = len(np.unique(used, axis=0)) > 2 and bool((np.diff(used, axis=0) >= 0).all())
    note = ""
    if is_imagej:
        note = "an ImageJ lookup table: grey values are read, not its colours"
    elif is_ramp and not is_grey:
        note = "a colour map on grey values: the values are read, not its colours"
    if note:
        return Colour((0,), depth.widened(None), 1, depth.wide, False, (note,))
    eight = depth.bits <= 8 and depth.dtype.kind in "bu"
    full = _eight_bits(entries) if eight else entries.astype(np.uint16)
    colours = full[:, :1] if is_grey else full

    def recolour(pixels: Pixels) -> Pixels:
        return colours[np.clip(pixels[..., 0].astype(np.int64), 0, len(colours) - 1)]

    note = "a grey palette: looked up" if is_grey else "a palette of colours: expanded to RGB"
    return Colour((0,), recolour, colours.shape[1], colours.dtype, not is_grey, (note,))


def _eight_bits(entries: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Palettes have 16 bits; some writers fill only the lower 8."""
    return (entries if entries.max(initial=0) < 256 else entries >> 8).astype(np.uint8)
