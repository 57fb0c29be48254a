"""Text in pictures, in a font that has µ, ² and most letters."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from PIL import ImageFont

from cellseg.text import visible


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib: Pillow's own font has neither µ nor ²."""
    import matplotlib  # late: it takes longer to load than most pictures to draw

    folder = Path(matplotlib.get_data_path())
    return ImageFont.truetype(str(folder / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def shortened(text: str, width: float, size: int) -> str:
    """Text in one line of at most ``width`` px, ended by … where it is cut."""
    plain = visible(text)
    if font(size).getlength(plain) <= width:
        return plain
    low, high = 0, len(plain)
    while low < high:
        middle = (low + high + 1) // 2
        fits = font(size).getlength(f"{plain[:middle]}…") <= width
        low, high = (middle, high) if fits else (low, middle - 1)
    return f"{plain[:low]}…"


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
