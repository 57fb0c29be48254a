"""A sheet of pictures under a legend: what the colours mean, how long a bar is, what is shown."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from cellseg.draw.text import font, shortened, wrapped
from cellseg.palette import RGB

INK: RGB = (32, 32, 36)
MUTED: RGB = (90, 90, 98)
FRAME: RGB = (205, 205, 210)

SCALE_KEY = "cellseg:scale"
"""In a PNG: what the brightest colour of each density map stands for, a line each."""

Part = tuple[int, int, int, int]
"""Left, upper, right, lower: pixels of the picture, half-open."""

_PARTS_KEY = "cellseg:parts"
_PART = re.compile(r"(\d{1,6}) (\d{1,6}) (\d{1,6}) (\d{1,6})")
_PNG_LEVEL = 4  # of zlib: two fifths of level 9's time for a file 2 % larger

_MARGIN, _GAP, _CAPTION, _BAR = 24, 16, 22, 5
_LEAST_WIDTH, _WIDE, _LONGEST_CAPTION = 640, 1500, 480


@dataclass(frozen=True)
class ScaleBar:
    """A length in pixels of a picture, and in words: ``50 µm``, or ``200 px`` of the slide."""

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
    length = max(s * power for s in (1, 2, 5) if s * power <= longest_px * unit * (1 + 1e-9))
    if mpp is None:
        text = f"{length:,.12g} px"
    else:
        text = f"{length / 1000:,.12g} mm" if length >= 1000 else f"{length:.12g} µm"
    return ScaleBar(max(1, round(length / unit)), text)


@dataclass(frozen=True, eq=False)
class Panel:
    """One picture, RGB.

    Attributes
    ----------
    caption : str
        Stands above it.
    beside : Image, optional
        Stands to the right of it.
    scale : str
        What the brightest colour stands for.
    """

    image: Image.Image
    caption: str = ""
    beside: Image.Image | None = None
    scale: str = ""


@dataclass(frozen=True, eq=False, kw_only=True)
class Sheet:
    """Pictures of one size, row by row, under a legend.

    Attributes
    ----------
    panels : sequence of Panel
        At least one.
    columns : int
    entries : sequence of (colour, str)
        The legend: a colour and what it means.
    ground : (red, green, blue)
        What the entries' colours are shown on.
    said : str
        What is shown, and by which rule; as long as it needs.
    """

    title: str
    panels: Sequence[Panel]
    columns: int
    bar: ScaleBar
    entries: Sequence[tuple[RGB, str]] = ()
    ground: RGB = INK
    said: str = ""

    def write(self, path: Path) -> None:
        """Write the sheet as PNG, with the places of its panels.

        Raises
        ------
        OSError
        """
        write_png(self.draw(), path)

    def draw(self) -> Image.Image:
        """The sheet as one picture."""
        width, height = self.panels[0].image.size
        captions = [font(15).getlength(panel.caption[:200]) for panel in self.panels]
        beside = max(0 if panel.beside is None else panel.beside.width for panel in self.panels)
        across = max(width + beside, min(round(max(captions)), _LONGEST_CAPTION))
        down = height + (_CAPTION if any(captions) else 0)
        rows = -(-len(self.panels) // self.columns)
        full = max(_LEAST_WIDTH, 2 * _MARGIN + self.columns * (across + _GAP) - _GAP)
        header = self._header(full)
        bottom = header.height + rows * (down + _GAP) - _GAP + _MARGIN
        canvas = Image.new("RGB", (full, bottom), "white")
        canvas.paste(header)
        draw = ImageDraw.Draw(canvas)
        parts = []
        for number, panel in enumerate(self.panels):
            x = _MARGIN + number % self.columns * (across + _GAP)
            y = header.height + number // self.columns * (down + _GAP)
            draw.text((x, y), shortened(panel.caption, across, 15), INK, font=font(15))
            y += down - height
            canvas.paste(panel.image, (x, y))
            if panel.beside is not None:
                canvas.paste(panel.beside, (x + width, y))
            draw.rectangle((x - 1, y - 1, x + width, y + height), outline=FRAME)
            parts.append((x, y, x + width, y + height))
        keep_parts(canvas, parts)
        if any(panel.scale for panel in self.panels):
            canvas.info[SCALE_KEY] = "\n".join(one.scale for one in self.panels if one.scale)
        return canvas

    def _header(self, full: int) -> Image.Image:
        """Title, legend, scale bar and what is said, as high as they need."""
        inner = full - 2 * _MARGIN
        big = 1.6 if full > _WIDE else 1.0  # to be read where the whole sheet is in sight
        large, text, small = round(20 * big), round(15 * big), round(14 * big)
        step = round(text * 1.75)
        lines = wrapped(self.said, inner, small)
        rows = self._entry_rows(inner, text)
        bar_y = 34 + round(28 * big) + step * len(rows)
        bottom = bar_y + round(22 * big) + round(20 * big) * len(lines) + 8
        canvas = Image.new("RGB", (full, bottom), "white")
        draw = ImageDraw.Draw(canvas)
        draw.text((_MARGIN, 16), shortened(self.title, inner, large), INK, font=font(large))
        for number, row in enumerate(rows):
            y = 22 + round(28 * big) + step * number
            for x, colour, said in row:
                self._entry(draw, (x, y), colour, said, text)
        draw.rectangle((_MARGIN, bar_y, _MARGIN + self.bar.pixels - 1, bar_y + _BAR - 1), fill=INK)
        at = (_MARGIN + self.bar.pixels + 8, bar_y + _BAR / 2)
        draw.text(at, self.bar.text, INK, font=font(small), anchor="lm")
        for number, line in enumerate(lines):
            at = (_MARGIN, bar_y + round((20 + 20 * number) * big))
            draw.text(at, line, MUTED, font=font(small))
        return canvas

    def _entry_rows(self, width: int, size: int) -> list[list[tuple[int, RGB, str]]]:
        """The legend's entries in as many rows as it takes, each with its left edge."""
        rows: list[list[tuple[int, RGB, str]]] = []
        left = width
        for colour, said in self.entries:
            text = shortened(said, width - round(size * 1.9), size)
            needed = round(size * 1.9) + math.ceil(font(size).getlength(text))
            if left + needed > width:
                rows.append([])
                left = 0
            rows[-1].append((_MARGIN + left, colour, text))
            left += needed + 24
        return rows

    def _entry(
        self, draw: ImageDraw.ImageDraw, corner: tuple[int, int], colour: RGB, said: str, size: int
    ) -> None:
        """A square as a cell of that class looks, and what it means."""
        x, y = corner
        side, line = round(size * 1.3), round(size / 5)
        inside = (x + line, y + line, x + side - line, y + side - line)
        draw.rectangle((x, y, x + side, y + side), fill=self.ground)
        draw.rectangle(inside, outline=colour, width=line)
        at = (x + round(size * 1.9), y + side / 2)
        draw.text(at, said, INK, font=font(size), anchor="lm")


def keep_parts(image: Image.Image, parts: Sequence[Part]) -> None:
    """Remember where the parts of a picture lie."""
    image.info[_PARTS_KEY] = "; ".join(" ".join(map(str, part)) for part in parts)


def parts_of(image: Image.Image) -> list[Part]:
    """Where the parts of a picture lie; none where it does not say."""
    found = []
    for text in _PART.findall(str(image.info.get(_PARTS_KEY, ""))):
        left, upper, right, lower = (int(number) for number in text)
        if left < right <= image.width and upper < lower <= image.height:
            found.append((left, upper, right, lower))
    return found


def write_png(image: Image.Image, path: Path) -> None:
    """Write a picture with what is remembered of it.

    Raises
    ------
    OSError
    """
    info = PngInfo()
    for key in (_PARTS_KEY, SCALE_KEY):
        if key in image.info:
            info.add_itxt(key, str(image.info[key]))
    image.save(path, format="PNG", compress_level=_PNG_LEVEL, pnginfo=info)
