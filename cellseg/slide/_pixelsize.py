"""Pixel sizes: where files say them, and which of them can be believed."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from cellseg.errors import Notice

SMALLEST_UM, LARGEST_UM = 0.02, 20.0  # µm per px between which a microscope's pixel sizes lie.
UNEQUAL = 0.01  # By how much the two sides of a pixel may differ.
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
    """A pixel's side, µm per pixel at level 0, and where it comes from (``"none"`` without one).

    The notes say why a size was refused.
    """

    mpp: float | None
    source: str
    notes: tuple[str, ...] = ()


NO_SIZE = PixelSize(None, "none")


def _refused(size: str, source: str, why: str) -> PixelSize:
    note = Notice(f"pixel size unknown: {size} (from {source}) {why}", hint="mpp")
    return PixelSize(None, "none", (note,))


def micrometres(unit: object) -> float | None:
    """How many µm a unit is, or None for units that are no length (``pixel``)."""
    text = str(unit).strip().strip("\x00")
    text = text.replace("\\u00B5", "µ").replace("\\u00b5", "µ").replace("\\u03BC", "µ")
    return _UM.get(text.lower())


def judged(x_um: float, y_um: float, source: str) -> PixelSize:
    """A size, from the pixel's sides in µm, if it can be believed; a note if it cannot."""
    if not all(math.isfinite(side) and side > 0 for side in (x_um, y_um)):
        return NO_SIZE
    if not all(SMALLEST_UM <= side <= LARGEST_UM for side in (x_um, y_um)):
        dpi = 25400 / x_um
        print_like = f", {dpi:.0f} dpi" if 50 <= dpi <= 1300 else ""
        return _refused(f"{x_um:.4g} µm per px{print_like}", source, "is no microscope's")
    if abs(x_um - y_um) > UNEQUAL * max(x_um, y_um):
        return _refused(f"{x_um:.4g} × {y_um:.4g} µm per px", source, "is not square")
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
    side_um = {2: 25400.0, 3: 10000.0}.get(int(_number(unit) or 0))
    per_x = _number(x)
    if side_um == 25400.0 and any(abs((per_x or 0) - dpi) < 0.5 for dpi in _PRINT_DPI):
        return _refused(f"{per_x:.0f} dpi", source, "is a scanner's or a printer's resolution")
    return from_density(x, y, side_um, source)


def from_density(x: object, y: object, side_um: float | None, source: str) -> PixelSize:
    """From pixels along x and y of a unit of so many µm; None is no unit of length."""
    per_x, per_y = _number(x), _number(y)
    if side_um is None or not per_x or not per_y:
        return NO_SIZE
    return judged(side_um / per_x, side_um / per_y, source)


def from_aperio(description: str) -> PixelSize:
    """From ``MPP = 0.499`` in an Aperio ImageDescription."""
    found = re.search(r"\bMPP\s*=\s*([0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?)", description)
    return judged(float(found[1]), float(found[1]), "Aperio tag") if found else NO_SIZE


def from_philips(xml: str) -> PixelSize:
    """From the first ``DICOM_PIXEL_SPACING``, level 0's, in mm: y, then x."""
    found = re.search(r'Name="DICOM_PIXEL_SPACING"[^>]*>([^<]*)', xml)
    sides = re.findall(r"[0-9.eE+-]+", found[1]) if found else []
    if len(sides) != 2:
        return NO_SIZE
    return from_scale(sides[0], sides[1], ("mm", "mm"), "Philips tags")


def from_scale(y: object, x: object, units: tuple[object, object], source: str) -> PixelSize:
    """From a scale and a unit for each of y and x (OME-Zarr, OME-XML)."""
    side_y, side_x = _number(y), _number(x)
    um_y, um_x = micrometres(units[0]), micrometres(units[1])
    if not side_y or not side_x:
        return NO_SIZE
    if um_y is None or um_x is None:
        if side_y == side_x == 1.0:
            return NO_SIZE
        return _refused(f"{side_x:.4g}", source, "has no unit of length")
    return judged(side_x * um_x, side_y * um_y, source)


def _number(value: object) -> float | None:
    """A positive finite number from a number, a numeric string or a rational, or None."""
    try:
        top, bottom = value[:2] if isinstance(value, tuple) else (value, 1)
        number = float(top) / float(bottom)
    except (TypeError, ValueError, ArithmeticError):
        return None
    return number if math.isfinite(number) and number > 0 else None
