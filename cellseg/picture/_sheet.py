"""A sheet of pictures under a legend: what the colours mean, how long a bar is, what is shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cellseg.picture._outlines import RGB
from cellseg.picture._scalebar import ScaleBar, draw_bar
from cellseg.picture._text import font, shortened, wrapped

INK: RGB = (32, 32, 36)
MUTED: RGB = (90, 90, 98)
FRAME: RGB = (205, 205, 210)
_MARGIN, _GAP, _CAPTION = 24, 16, 22
_LEAST_WIDTH = 640


@dataclass(frozen=True, eq=False)
class Panel:
    """One picture, uint8 (H, W, 3), and what stands above it."""

    image: NDArray[np.uint8]
    caption: str = ""


@dataclass(frozen=True)
class Entry:
    """A line of a legend: a colour and what it means."""

    colour: RGB
    text: str


@dataclass(frozen=True, kw_only=True)
class Legend:
    """What stands above the pictures.

    Attributes
    ----------
    title : str
    entries : sequence of Entry
    ground : (red, green, blue)
        What the entries' colours are shown on.
    bar : ScaleBar
    said : str
        What is shown, and by which rule; as long as it needs.
    """

    title: str
    entries: Sequence[Entry]
    ground: RGB
    bar: ScaleBar
    said: str


def sheet(panels: Sequence[Panel], legend: Legend) -> Image.Image:
    """Lay out pictures of one size, row by row, under a legend.

    Parameters
    ----------
    panels : sequence of Panel
        At least one.
    legend : Legend
    """
    height, width = panels[0].image.shape[:2]
    columns = math.ceil(math.sqrt(len(panels)))
    rows = -(-len(panels) // columns)
    caption = _CAPTION if any(panel.caption for panel in panels) else 0
    full = max(_LEAST_WIDTH, 2 * _MARGIN + columns * (width + _GAP) - _GAP)
    inner = full - 2 * _MARGIN
    lines = wrapped(legend.said, inner, 14)
    places, entries = _entries(legend, inner)
    top = 92 + entries + 20 * len(lines)
    canvas = Image.new(
        "RGB", (full, top + rows * (caption + height + _GAP) - _GAP + _MARGIN), "white"
    )
    draw = ImageDraw.Draw(canvas)
    draw.text((_MARGIN, 16), shortened(legend.title, inner, 20), INK, font=font(20))
    for (x, y), entry in zip(places, legend.entries, strict=True):
        _entry(draw, (x, y), entry, legend.ground, inner)
    draw_bar(draw, (_MARGIN, 62 + entries), legend.bar, ink=INK)
    for number, line in enumerate(lines):
        draw.text((_MARGIN, 80 + entries + 20 * number), line, MUTED, font=font(14))
    for number, panel in enumerate(panels):
        x = _MARGIN + number % columns * (width + _GAP)
        y = top + number // columns * (caption + height + _GAP)
        if caption:
            draw.text((x, y), shortened(panel.caption, width, 13), INK, font=font(13))
        canvas.paste(Image.fromarray(panel.image), (x, y + caption))
        draw.rectangle((x - 1, y + caption - 1, x + width, y + caption + height), outline=FRAME)
    return canvas


def _entries(legend: Legend, width: int) -> tuple[list[tuple[int, int]], int]:
    """Corner of each entry, from left to right in as many rows as it takes, and their height."""
    places, x, y = [], _MARGIN, 50
    for entry in legend.entries:
        needed = 28 + math.ceil(font(15).getlength(entry.text))
        if x > _MARGIN and x + needed > _MARGIN + width:
            x, y = _MARGIN, y + 26
        places.append((x, y))
        x += needed + 24
    return places, (y - 50 + 26 if places else 0)


def _entry(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], entry: Entry, ground: RGB, width: int
) -> None:
    x, y = corner
    draw.rectangle((x, y, x + 19, y + 19), fill=ground)
    draw.rectangle((x + 3, y + 3, x + 16, y + 16), outline=entry.colour, width=3)
    draw.text(
        (x + 28, y + 10), shortened(entry.text, width - 28, 15), INK, font=font(15), anchor="lm"
    )
