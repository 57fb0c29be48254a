"""Pictures for people, the colours of classes, and the pages that carry pictures.

Here belong ``outlines.png``, ``overview.png`` and ``histogram.png`` of a result, the one palette
that every face uses, and what all pages share. What a study or an evaluation shows lies in its own
room; nothing here changes a result.
"""

from cellseg.draw.lines import borders
from cellseg.draw.palette import OTHER, PALETTE, RGB, as_hex, colours
from cellseg.draw.sheet import SCALE_KEY, keep_parts, parts_of, write_png

__all__ = [
    "OTHER",
    "PALETTE",
    "RGB",
    "SCALE_KEY",
    "as_hex",
    "borders",
    "colours",
    "keep_parts",
    "parts_of",
    "write_png",
]
