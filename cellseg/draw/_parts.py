"""Pictures of several parts: where each lies, kept in the PNG for those who show one of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

PNG_LEVEL = 4
"""Of zlib: two fifths of level 9's time for a file 2 % larger (2,000 × 1,000 px of tissue)."""

SCALE_KEY = "cellseg:scale"
"""What the brightest colour of a density map stands for."""

_PARTS_KEY = "cellseg:parts"
_PART = re.compile(r"(\d{1,6}) (\d{1,6}) (\d{1,6}) (\d{1,6})")

Part = tuple[int, int, int, int]
"""Left, upper, right, lower: pixels of the picture, half-open."""


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
    image.save(path, format="PNG", compress_level=PNG_LEVEL, pnginfo=info)
