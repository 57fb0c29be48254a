"""Pictures for people, and the pages that carry pictures.

Here belong ``outlines.png``, ``overview.png`` and ``histogram.png`` of a result, and what all pages
share. What a study or an evaluation shows lies in its own room, the colours of classes lie in
``palette.py`` on the ground. Nothing here changes a result.
"""

from cellseg.draw.outlines import borders
from cellseg.draw.sheet import SCALE_KEY, parts_of

__all__ = ["SCALE_KEY", "borders", "parts_of"]
