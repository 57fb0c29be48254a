"""A sheet of pictures under a legend: what the colours mean, how long a bar is, what is shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cellseg.draw._outlines import RGB
from cellseg.draw._parts import keep_parts
from cellseg.draw._scalebar import ScaleBar, draw_bar
from cellseg.draw._text import font, shortened, wrapped

INK: RGB = (32, 32, 36)
MUTED: RGB = (90, 90, 98)
FRAME: RGB = (205, 205, 210)
_MARGIN, _GAP, _CAPTION = 24, 16, 22
_LEAST_WIDTH, _WIDE = 640, 1500


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
    ground : (red, green, blue)
        What the entries' colours are shown on.
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
    """
    height, width = panels[0].image.shape[:2]
    columns = math.ceil(math.sqrt(len(panels)))
    rows = -(-len(panels) // columns)
    caption = _CAPTION if any(panel.caption for panel in panels) else 0
    full = max(_LEAST_WIDTH, 2 * _MARGIN + columns * (width + _GAP) - _GAP)
    inner = full - 2 * _MARGIN
    big = 1.6 if full > _WIDE else 1.0  # to be read where the whole sheet is in sight
    text, small = round(15 * big), round(14 * big)
    lines = wrapped(legend.said, inner, small)
    places, entries = _entries(legend, inner, text)
    bar_y = 34 + round(28 * big) + entries
    top = bar_y + round(22 * big) + round(20 * big) * len(lines) + 8
    canvas = Image.new(
        "RGB", (full, top + rows * (caption + height + _GAP) - _GAP + _MARGIN), "white"
    )
    draw = ImageDraw.Draw(canvas)
    title = round(20 * big)
    draw.text((_MARGIN, 16), shortened(legend.title, inner, title), INK, font=font(title))
    for (x, y), entry in zip(places, legend.entries, strict=True):
        _entry(draw, (x, y + 22 + round(28 * big)), entry, legend.ground, inner, text)
    draw_bar(draw, (_MARGIN, bar_y), legend.bar, ink=INK, size=small)
    for number, line in enumerate(lines):
        at = (_MARGIN, bar_y + round((20 + 20 * number) * big))
        draw.text(at, line, MUTED, font=font(small))
    parts = []
    for number, panel in enumerate(panels):
        x = _MARGIN + number % columns * (width + _GAP)
        y = top + number // columns * (caption + height + _GAP)
        if caption:
            draw.text((x, y), shortened(panel.caption, width, 15), INK, font=font(15))
        canvas.paste(Image.fromarray(panel.image), (x, y + caption))
        draw.rectangle((x - 1, y + caption - 1, x + width, y + caption + height), outline=FRAME)
        parts.append((x, y + caption, x + width, y + caption + height))
    keep_parts(canvas, parts)
    return canvas


def _entries(legend: Legend, width: int, size: int) -> tuple[list[tuple[int, int]], int]:
    """Place of each entry, from left to right in as many rows as it takes, and their height."""
    places, x, y = [], _MARGIN, 0
    for entry in legend.entries:
        needed = round(size * 1.9) + math.ceil(font(size).getlength(entry.text))
        if x > _MARGIN and x + needed > _MARGIN + width:
            x, y = _MARGIN, y + round(size * 1.75)
        places.append((x, y))
        x += needed + 24
    return places, (y + round(size * 1.75) if places else 0)


def _entry(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    entry: Entry,
    ground: RGB,
    width: int,
    size: int,
) -> None:
    """A square as a cell of that class looks, and what it means."""
    x, y = corner
    side, line, right = round(size * 1.3), round(size / 5), x + round(size * 1.9)
    draw.rectangle((x, y, x + side, y + side), fill=ground)
    draw.rectangle(
        (x + line, y + line, x + side - line, y + side - line), outline=entry.colour, width=line
    )
    said = shortened(entry.text, width - right + x, size)
    draw.text((right, y + side / 2), said, INK, font=font(size), anchor="lm")
