"""Scale bars of a usual length: 1, 2 or 5 times a power of ten."""

from __future__ import annotations

import math
from dataclasses import dataclass

from PIL import ImageDraw

from cellseg.draw._text import font

BAR_PX = 5
"""Height of a bar."""


@dataclass(frozen=True)
class ScaleBar:
    """A length on a slide, and what it is in a picture.

    Attributes
    ----------
    pixels : int
        Of the picture.
    text : str
        Such as ``50 µm``, or ``200 px`` of the slide without pixel size.
    """

    pixels: int
    text: str


def scale_bar(longest_px: float, *, pixel: float, mpp: float | None) -> ScaleBar:
    """The longest usual length that is not longer than ``longest_px``.

    Parameters
    ----------
    longest_px : float
        Pixels of the picture.
    pixel : float
        Level-0 pixels along a side of a pixel of the picture.
    mpp : float or None
        µm per pixel at level 0.

    >>> scale_bar(250, pixel=1, mpp=0.25)
    ScaleBar(pixels=200, text='50 µm')
    """
    unit = pixel if mpp is None else pixel * mpp
    power = 10.0 ** math.floor(math.log10(longest_px * unit) + 1e-9)
    fits = [step * power for step in (1, 2, 5) if step * power <= longest_px * unit * (1 + 1e-9)]
    length = fits[-1]
    if mpp is None:
        text = f"{length:,.12g} px"
    else:
        text = f"{length / 1000:,.12g} mm" if length >= 1000 else f"{length:.12g} µm"
    return ScaleBar(max(1, round(length / unit)), text)


def draw_bar(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    bar: ScaleBar,
    *,
    ink: tuple[int, int, int],
    size: int = 14,
) -> None:
    """The bar from its upper left corner (x, y), and what it says to the right of it."""
    x, y = corner
    draw.rectangle((x, y, x + bar.pixels - 1, y + BAR_PX - 1), fill=ink)
    draw.text((x + bar.pixels + 8, y + BAR_PX / 2), bar.text, ink, font=font(size), anchor="lm")
