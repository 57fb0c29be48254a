"""A sheet of pictures under a legend: what the colours mean, how long a bar is, what is shown."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from cellseg.palette import RGB
from cellseg.text import visible

INK: RGB = (32, 32, 36)
MUTED: RGB = (90, 90, 98)
FRAME: RGB = (205, 205, 210)

SCALE_KEY = "cellseg:scale"
"""In a PNG: what the brightest colour of each density map stands for, a line each."""

Part = tuple[int, int, int, int]
"""Left, upper, right, lower: pixels of the picture, half-open."""

_PARTS_KEY = "cellseg:parts"
_PART = re.compile(r"(\d{1,6}) (\d{1,6}) (\d{1,6}) (\d{1,6})")

_MARGIN, _GAP, _CAPTION, _BAR = 24, 16, 22, 5
_LEAST_WIDTH, _WIDE, _LONGEST_CAPTION, _LONGEST_TEXT = 640, 1500, 480, 500

ScaleBar = tuple[int, str]
"""A length in pixels of a picture, and in words: ``50 µm``, or ``200 px`` of the slide."""


def scale_bar(longest_px: float, *, pixel: float, mpp: float | None) -> ScaleBar:
    """The longest usual length that is not longer than ``longest_px`` of the picture.

    The picture's pixels are ``pixel`` level-0 px wide; ``mpp`` is µm per pixel at level 0.

    >>> scale_bar(250, pixel=1, mpp=0.25)
    (200, '50 µm')
    """
    unit = pixel if mpp is None else pixel * mpp
    power = 10.0 ** math.floor(math.log10(longest_px * unit) + 1e-9)
    length = max(s * power for s in (1, 2, 5) if s * power <= longest_px * unit * (1 + 1e-9))
    if mpp is None:
        text = f"{length:,.12g} px"
    else:
        text = f"{length / 1000:,.12g} mm" if length >= 1000 else f"{length:.12g} µm"
    return max(1, round(length / unit)), text


@dataclass(frozen=True, eq=False)
class Panel:
    """A picture, RGB, one that may stand beside it, and what the brightest colour stands for."""

    image: Image.Image
    caption: str = ""
    beside: Image.Image | None = None
    scale: str = ""


@dataclass(frozen=True, eq=False, kw_only=True)
class Sheet:
    """Pictures of one size, row by row, under a legend.

    ``entries`` are the legend, colours and what each means, shown on the colour ``ground``.
    ``said``: what is shown, and by which rule; as long as it needs.
    """

    title: str
    panels: Sequence[Panel]
    columns: int
    bar: ScaleBar
    entries: Sequence[tuple[RGB, str]] = ()
    ground: RGB = INK
    said: str = ""

    def write(self, path: Path) -> None:
        """Write the sheet as PNG, with the places of its panels."""
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
        scale = "\n".join(panel.scale for panel in self.panels if panel.scale)
        write_png(canvas, path, parts, scale=scale)

    def _header(self, full: int) -> Image.Image:
        """Title, legend, scale bar and what is said, as high as they need."""
        inner = full - 2 * _MARGIN
        big = 1.6 if full > _WIDE else 1.0  # to be read where the whole sheet is in sight
        large, text, small = round(20 * big), round(15 * big), round(14 * big)
        indent, side, line = round(text * 1.9), round(text * 1.3), round(text / 5)
        lines = textwrap.wrap(visible(self.said), round(inner / (0.55 * small)))
        most = 160 + 30 * len(self.entries) + 22 * len(lines)  # one row an entry
        canvas = Image.new("RGB", (full, round(big * most)), "white")
        draw = ImageDraw.Draw(canvas)
        draw.text((_MARGIN, 16), shortened(self.title, inner, large), INK, font=font(large))
        x, y = full, 22 + round(28 * big) - round(text * 1.75)
        for colour, said in self.entries:  # a square as a cell of that class looks, and its text
            shown = shortened(said, inner - indent, text)
            needed = indent + math.ceil(font(text).getlength(shown))
            if x + needed > full - _MARGIN:
                x, y = _MARGIN, y + round(text * 1.75)
            draw.rectangle((x, y, x + side, y + side), fill=self.ground)
            inside = (x + line, y + line, x + side - line, y + side - line)
            draw.rectangle(inside, outline=colour, width=line)
            draw.text((x + indent, y + side / 2), shown, INK, font=font(text), anchor="lm")
            x += needed + 24
        y += 12 + round(text * 1.75)
        pixels, length = self.bar
        draw.rectangle((_MARGIN, y, _MARGIN + pixels - 1, y + _BAR - 1), fill=INK)
        at = (_MARGIN + pixels + 8, y + _BAR / 2)
        draw.text(at, length, INK, font=font(small), anchor="lm")
        for said in lines:
            y += round(20 * big)
            draw.text((_MARGIN, y), said, MUTED, font=font(small))
        return canvas.crop((0, 0, full, y + round(22 * big) + 8))


def parts_of(image: Image.Image) -> list[Part]:
    """Where the parts of a picture lie; none where it does not say."""
    found = []
    for text in _PART.findall(str(image.info.get(_PARTS_KEY, ""))):
        left, upper, right, lower = (int(number) for number in text)
        if left < right <= image.width and upper < lower <= image.height:
            found.append((left, upper, right, lower))
    return found


def write_png(image: Image.Image, path: Path, parts: Sequence[Part], *, scale: str = "") -> None:
    """Write a picture as PNG, with where its parts lie and what its brightest colours stand for."""
    said = PngInfo()
    said.add_itxt(_PARTS_KEY, "; ".join(" ".join(map(str, part)) for part in parts))
    if scale:
        said.add_itxt(SCALE_KEY, scale)
    # The usual level, 6, takes two to four times as long for a tenth less.
    image.save(path, "PNG", pnginfo=said, compress_level=2)


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib: Pillow's own font has neither µ nor ²."""
    found = find_spec("matplotlib")  # not imported: that takes longer than to draw a picture
    assert found is not None
    assert found.origin is not None
    folder = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / "DejaVuSans.ttf"), size)


def shortened(text: str, width: float, size: int) -> str:
    """Text in one line of at most ``width`` px, ended by … where it is cut."""
    plain = visible(text)[:_LONGEST_TEXT]
    cuts = (f"{plain[:length]}…" for length in range(len(plain) - 1, 0, -1))
    return next((one for one in (plain, *cuts) if font(size).getlength(one) <= width), "…")
