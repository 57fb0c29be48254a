"""From stored samples to grey values, channels or red, green and blue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellseg.errors import InputError
from cellseg.slide._raster import Pixels
from cellseg.slide._rounding import round_to

MINISWHITE, MINISBLACK, RGB, PALETTE, MASK, SEPARATED, YCBCR = range(7)
_REFUSED = {
    8: "CIELAB", 9: "ICCLAB", 10: "ITULAB", 32803: "camera raw (CFA)", 34892: "linear raw",
    32844: "LogL", 32845: "LogLuv",
}  # fmt: skip
_JPEG_FAMILY = {6, 7, 34892, 33007, 33003, 33004, 33005, 34712, 50001}
APERIO_YCBCR = 33003


@dataclass(frozen=True)
class Samples:
    """How a file describes the samples of a pixel.

    Attributes
    ----------
    photometric : int
        TIFF's PhotometricInterpretation.
    count : int
        Samples per pixel.
    bits : int
        Bits per sample; 0 when samples differ.
    extra : tuple of int
        TIFF's ExtraSamples: 0 unspecified, 1 and 2 alpha.
    palette : ndarray, uint16, (3, 2**bits), optional
    dtype : np.dtype
        As decoded.
    """

    photometric: int
    count: int
    bits: int
    extra: tuple[int, ...]
    palette: NDArray[np.uint16] | None
    compression: int
    dtype: np.dtype[Any]
    is_imagej: bool = False


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
    recolour: Callable[[Pixels], Pixels] | None
    bands: int
    dtype: np.dtype[Any]
    is_rgb: bool
    notes: tuple[str, ...] = ()


def interpret(name: str, samples: Samples) -> Colour:
    """Settle what the samples mean.

    Raises
    ------
    InputError
        A colour space that cannot be turned into grey or RGB.
    """
    kind = samples.photometric
    if kind in _REFUSED:
        raise InputError(
            f"{name}: its colour space, {_REFUSED[kind]}, is not supported; convert it to RGB"
        )
    if samples.dtype.kind not in "buif":
        raise InputError(f"{name}: its pixels are {samples.dtype}, expected integers or floats")
    if kind == PALETTE and samples.palette is not None and samples.count == 1:
        return _palette(samples, samples.palette)
    if kind == SEPARATED:
        return _cmyk(name, samples)
    if samples.compression == APERIO_YCBCR and samples.count == 3:
        return _rgb(samples, _from_ycbcr)
    if kind == YCBCR and samples.count >= 3:
        return _rgb(samples, None if samples.compression in _JPEG_FAMILY else _from_ycbcr)
    if kind == RGB and samples.count >= 3 and not _is_composite(samples):
        return _rgb(samples, None)
    return _grey(samples)


def _is_composite(samples: Samples) -> bool:
    """Channels that are only stored as RGB.

    ImageJ has no colour of 16 bits: such a file holds three channels. More than four
    samples of which the rest is no alpha are channels as well.
    """
    if samples.is_imagej and samples.dtype.itemsize > 1:
        return True
    return samples.count > 4 and not any(samples.extra)


def _wide(dtype: np.dtype[Any]) -> np.dtype[Any]:
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    return np.dtype(np.float32) if dtype == np.float16 else dtype


def _top(samples: Samples) -> int:
    """The value of full intensity."""
    if samples.dtype.kind == "b":
        return 255
    bits = samples.bits if 0 < samples.bits < 64 else samples.dtype.itemsize * 8
    return int((1 << bits) - 1)


def _rgb(samples: Samples, recolour: Callable[[Pixels], Pixels] | None) -> Colour:
    notes = []
    if samples.count > 3:
        what = "alpha" if samples.count == 4 else f"{samples.count - 3} extra samples"
        notes.append(f"{what} dropped: only red, green and blue are read")
    dtype = _wide(samples.dtype)
    full = int(np.iinfo(dtype).max) if dtype.kind == "u" else 0
    if recolour is None and _top(samples) < full and samples.dtype.kind == "u":
        notes.append(f"{samples.bits} bits per sample: stretched to {dtype}")
        return Colour((0, 1, 2), _stretched(_top(samples), full), 3, dtype, True, tuple(notes))
    return Colour((0, 1, 2), _widened(samples, recolour), 3, dtype, True,
                  (*notes, *_bits_note(samples)))  # fmt: skip


def _stretched(top: int, full: int) -> Callable[[Pixels], Pixels]:
    """White becomes the dtype's largest value."""
    factor = full / top

    def stretch(pixels: Pixels) -> Pixels:
        return round_to(pixels * np.float64(factor), pixels.dtype)

    return stretch


def _grey(samples: Samples) -> Colour:
    alpha = sum(kind in (1, 2) for kind in samples.extra)
    count = max(1, samples.count - alpha)
    notes = ["alpha dropped"] if count < samples.count else []
    recolour = None
    if samples.photometric == MINISWHITE:
        if samples.dtype.kind == "f":
            notes.append("stored as white-is-zero in floats: values are left as they are")
        else:
            recolour = _inverted(samples)
            notes.append("stored as white-is-zero: values are inverted")
    elif samples.photometric == RGB and samples.is_imagej and samples.count == 3:
        notes.append("an ImageJ composite: three channels, not a colour picture")
    dtype = _wide(samples.dtype)
    return Colour(tuple(range(count)), _widened(samples, recolour), count, dtype, False,
                  (*notes, *_bits_note(samples)))  # fmt: skip


def _bits_note(samples: Samples) -> tuple[str, ...]:
    bits = samples.bits
    if samples.dtype.kind == "b":
        return ("1 bit per pixel: read as 0 and 255",)
    if samples.dtype == np.float16:
        return ("16-bit floats: read as 32-bit floats",)
    if samples.dtype.kind == "u" and 0 < bits < samples.dtype.itemsize * 8:
        return (f"{bits} bits per sample: values up to {(1 << bits) - 1}",)
    return ()


def _widened(
    samples: Samples, recolour: Callable[[Pixels], Pixels] | None
) -> Callable[[Pixels], Pixels] | None:
    """Bool to 0 and 255, float16 to float32, then the recolouring."""
    wide = _wide(samples.dtype)
    if wide == samples.dtype:
        return recolour
    factor = 255 if samples.dtype.kind == "b" else 1

    def widen(pixels: Pixels) -> Pixels:
        values: Pixels = pixels.astype(wide) * wide.type(factor)
        return values if recolour is None else recolour(values)

    return widen


def _inverted(samples: Samples) -> Callable[[Pixels], Pixels]:
    if samples.dtype.kind == "i":
        return np.invert
    top = _top(samples)

    def invert(pixels: Pixels) -> Pixels:
        white = pixels.dtype.type(top)
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


def _cmyk(name: str, samples: Samples) -> Colour:
    if samples.count < 4 or samples.dtype.kind != "u":
        raise InputError(
            f"{name}: {samples.count} separated inks of {samples.dtype} are not supported; "
            "convert it to RGB"
        )
    top = np.float32(_top(samples))

    def recolour(pixels: Pixels) -> Pixels:
        ink = pixels.astype(np.float32) / top
        rgb = (1 - ink[..., :3]) * (1 - ink[..., 3:4]) * top
        return round_to(rgb, pixels.dtype)

    return Colour((0, 1, 2, 3), recolour, 3, samples.dtype, True,
                  ("CMYK inks turned into RGB without a colour profile",))  # fmt: skip


def _palette(samples: Samples, table: NDArray[np.uint16]) -> Colour:
    """Grey data with a colour map stays grey; a picture of indexed colours is expanded."""

    def kept(note: str) -> Colour:
        return Colour((0,), _widened(samples, None), 1, _wide(samples.dtype), False, (note,))

    if samples.is_imagej:
        return kept("an ImageJ lookup table: grey values are read, not its colours")
    entries = table.astype(np.int64).T
    used = entries[: _used(entries)]
    steps = np.diff(used, axis=0)
    grey = bool((used == used[:, :1]).all())
    shades = len(np.unique(used, axis=0)) > 2
    if not grey and shades and (steps >= 0).all():
        return kept("a colour map on grey values: the values are read, not its colours")
    ramp = _eight_bits(used) if samples.bits == 8 else used
    if grey and (ramp[:, 0] == np.arange(len(used))).all():
        return kept("a grey palette: the image is grey")
    eight = samples.bits <= 8 and samples.dtype.kind in "bu"
    looked_up = np.dtype(np.uint8 if eight else np.uint16)
    full = _eight_bits(entries) if eight else entries.astype(np.uint16)
    colours = full[:, :1] if grey else full

    def recolour(pixels: Pixels) -> Pixels:
        index = pixels[..., 0].astype(np.int64)
        return colours[np.clip(index, 0, len(colours) - 1)]

    note = "a grey palette: looked up" if grey else "a palette of colours: expanded to RGB"
    return Colour((0,), recolour, colours.shape[1], looked_up, not grey, (note,))


def _used(entries: NDArray[np.int64]) -> int:
    """Entries up to the last one that is not black; at least one."""
    lit = np.flatnonzero(entries.any(axis=1))
    return int(lit[-1]) + 1 if len(lit) else 1


def _eight_bits(entries: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Palettes have 16 bits; some writers fill only the lower 8."""
    return (entries if entries.max(initial=0) < 256 else entries >> 8).astype(np.uint8)
