"""Pixel sizes: where files say them, and which of them can be believed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SMALLEST_UM, LARGEST_UM = 0.02, 20.0
"""Outside of these a pixel size is none of a microscope (µm per px)."""

UNEQUAL = 0.01
"""By how much the two sides of a pixel may differ."""

_PRINT_DPI = (2400, 4800, 9600)
"""Resolutions of scanners and printers that would pass for a microscope's."""

_UM = {
    "nm": 1e-3, "nanometer": 1e-3, "nanometre": 1e-3,
    "um": 1.0, "µm": 1.0, "μm": 1.0, "micron": 1.0, "microns": 1.0,
    "micrometer": 1.0, "micrometre": 1.0, "micrometers": 1.0,
    "mm": 1e3, "millimeter": 1e3, "millimetre": 1e3,
    "cm": 1e4, "centimeter": 1e4, "centimetre": 1e4,
    "m": 1e6, "meter": 1e6, "metre": 1e6,
    "in": 25400.0, "inch": 25400.0, "inches": 25400.0,
    "pm": 1e-6, "å": 1e-4, "angstrom": 1e-4,
}  # fmt: skip


@dataclass(frozen=True)
class PixelSize:
    """A pixel's side.

    Attributes
    ----------
    mpp : float or None
        µm per pixel at level 0.
    source : str
        Where it comes from; ``"none"`` without one.
    notes : tuple of str
        Why a size was refused.
    """

    mpp: float | None
    source: str
    notes: tuple[str, ...] = ()


NO_SIZE = PixelSize(None, "none")


def micrometres(unit: object) -> float | None:
    """How many µm a unit is, or None for units that are no length (``pixel``)."""
    text = str(unit).strip().strip("\x00")
    text = text.replace("\\u00B5", "µ").replace("\\u00b5", "µ").replace("\\u03BC", "µ")
    return _UM.get(text.lower())


def judged(x_um: float, y_um: float, source: str) -> PixelSize:
    """A size if it can be believed, and a note if it cannot.

    Parameters
    ----------
    x_um, y_um : float
        The pixel's sides, µm.
    source : str
        Where they were found, such as ``"OME-XML"``.
    """
    if not all(math.isfinite(side) and side > 0 for side in (x_um, y_um)):
        return NO_SIZE
    if not all(SMALLEST_UM <= side <= LARGEST_UM for side in (x_um, y_um)):
        dpi = 25400 / x_um
        print_like = f", {dpi:.0f} dpi" if 50 <= dpi <= 1300 else ""
        return PixelSize(None, "none", (
            f"pixel size: {x_um:.4g} µm per px{print_like} (from {source}) is no "
            "microscope's; pass --mpp if you know it",
        ))  # fmt: skip
    if abs(x_um - y_um) > UNEQUAL * max(x_um, y_um):
        return PixelSize(None, "none", (
            f"pixel size: {x_um:.4g} × {y_um:.4g} µm per px (from {source}) are not "
            "square; pass --mpp if you know it",
        ))  # fmt: skip
    return PixelSize((x_um + y_um) / 2 if x_um != y_um else x_um, source)


def first_known(*sizes: PixelSize) -> PixelSize:
    """The first size that is known; with none, the notes of all of them."""
    for size in sizes:
        if size.mpp is not None:
            return size
    return PixelSize(None, "none", tuple(dict.fromkeys(n for size in sizes for n in size.notes)))


def from_tags(
    x: object, y: object, unit: object, source: str = "TIFF resolution tags"
) -> PixelSize:
    """From XResolution, YResolution and ResolutionUnit (2: inch, 3: cm); no unit, no size."""
    side_um = {2: 25400.0, 3: 10000.0}.get(_integer(unit))
    per_x, per_y = _number(x), _number(y)
    if side_um is None or not per_x or not per_y:
        return NO_SIZE
    if side_um == 25400.0 and any(abs(per_x - dpi) < 0.5 for dpi in _PRINT_DPI):
        return PixelSize(None, "none", (
            f"pixel size: {per_x:.0f} dpi (from {source}) is a scanner's or a printer's "
            "resolution; pass --mpp if you know it",
        ))  # fmt: skip
    return judged(side_um / per_x, side_um / per_y, source)


def from_aperio(description: str) -> PixelSize:
    """From ``MPP = 0.499`` in an Aperio ImageDescription."""
    found = re.search(r"\bMPP\s*=\s*([0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?)", description)
    if found is None:
        return NO_SIZE
    side = float(found.group(1))
    return judged(side, side, "Aperio tag")


def from_philips(xml: str) -> PixelSize:
    """From the first ``DICOM_PIXEL_SPACING``, level 0's, in mm: y, then x."""
    found = re.search(r'Name="DICOM_PIXEL_SPACING"[^>]*>([^<]*)', xml)
    sides = re.findall(r"[0-9.eE+-]+", found[1]) if found else []
    if len(sides) != 2:
        return NO_SIZE
    return from_scale(sides[0], sides[1], ("mm", "mm"), "Philips tags")


def from_imagej(metadata: Mapping[str, Any], x: object, y: object) -> PixelSize:
    """From ImageJ's ``unit`` and the resolution tags, which then are px per that unit."""
    side_um = micrometres(metadata.get("unit", ""))
    per_x, per_y = _number(x), _number(y)
    if side_um is None or not per_x or not per_y:
        return NO_SIZE
    return judged(side_um / per_x, side_um / per_y, "ImageJ calibration")


def from_scale(y: object, x: object, units: tuple[object, object], source: str) -> PixelSize:
    """From a scale and a unit for each of y and x (OME-Zarr, OME-XML)."""
    side_y, side_x = _number(y), _number(x)
    um_y, um_x = micrometres(units[0]), micrometres(units[1])
    if not side_y or not side_x:
        return NO_SIZE
    if um_y is None or um_x is None:
        if side_y == side_x == 1.0:
            return NO_SIZE
        return PixelSize(None, "none", (
            f"pixel size: {side_x:.4g} (from {source}) has no unit of length; "
            "pass --mpp if you know it",
        ))  # fmt: skip
    return judged(side_x * um_x, side_y * um_y, source)


def _integer(value: object) -> int:
    try:
        return int(value)  # type: ignore[call-overload,no-any-return]
    except (TypeError, ValueError):
        return 0


def _number(value: object) -> float | None:
    """A positive finite number from a number, a numeric string or a rational, or None."""
    try:
        if isinstance(value, tuple):
            if len(value) < 2 or not float(value[1]):
                return None
            number = float(value[0]) / float(value[1])
        else:
            number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number > 0 else None
