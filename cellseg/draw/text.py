"""Text in pictures, in a font that has µ, ² and most letters."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

from cellseg.text import visible

_LONGEST = 500


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
    plain = visible(text)[:_LONGEST]
    cuts = (f"{plain[:length]}…" for length in range(len(plain) - 1, 0, -1))
    return next((one for one in (plain, *cuts) if font(size).getlength(one) <= width), "…")


def wrapped(text: str, width: float, size: int) -> list[str]:
    """Text in lines of at most ``width`` px, parted between words."""
    lines: list[str] = []
    for word in visible(text).split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font(size).getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return [shortened(line, width, size) for line in lines]
