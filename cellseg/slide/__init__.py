"""Slides: open, describe, and read a region at a wanted scale.

Here belong formats, one file each, and what bounds a hostile file; ``formats`` lists them.
What pixels mean for a count belongs to ``stain`` and ``counting``.
"""

from cellseg.slide._content import numbered
from cellseg.slide._raster import ChunkCache
from cellseg.slide._slide import Level, Slide, open_slide
from cellseg.slide.formats import slide_name

__all__ = ["ChunkCache", "Level", "Slide", "numbered", "open_slide", "slide_name"]
