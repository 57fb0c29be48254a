"""Borders of regions over a picture, with their names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely
from PIL import Image, ImageDraw

from cellseg.draw._outlines import RGB
from cellseg.draw._text import font, shortened

LINE: RGB = (255, 255, 255)
CASING: RGB = (20, 20, 24)
"""On both sides of the line, so that it stands out on any ground."""

MOST_NAMES = 40
"""In one picture; more would cover it."""

_WIDTH, _CASED, _TEXT, _PAD = 3, 7, 15, 4


def draw_borders(
    picture: Image.Image,
    shapes: Sequence[shapely.Geometry],
    names: Sequence[str],
    *,
    corner: tuple[float, float] = (0.0, 0.0),
    pixel: float,
) -> None:
    """Draw regions on a picture, in place: a white line, and the name where it is topmost.

    Parameters
    ----------
    picture : Image
        RGB.
    shapes : sequence of shapely.Polygon or MultiPolygon
        (x, y) in level-0 pixels, 0 at the corner of the first pixel.
    corner : (float, float)
        Level-0 (y, x) of the picture's corner.
    pixel : float
        Level-0 pixels along a side of the picture's pixels.
    """
    (top, left), (width, height) = corner, picture.size
    margin = _CASED * pixel  # so that no line runs along the picture's own edge
    edges = shapely.boundary(np.array(shapes, dtype=object))
    seen = shapely.clip_by_rect(
        edges,
        left - margin,
        top - margin,
        left + width * pixel + margin,
        top + height * pixel + margin,
    )
    draw = ImageDraw.Draw(picture)
    lines, labels = [], []
    for number in np.flatnonzero(~shapely.is_empty(seen)).tolist():
        parts = [
            (shapely.get_coordinates(part) - (left, top)) / pixel
            for part in shapely.get_parts(seen[number])
        ]
        lines += [[tuple(point) for point in part.tolist()] for part in parts]
        points = np.concatenate(parts)
        labels.append((names[number], points[points[:, 1].argmin()]))
    for line_width, colour in ((_CASED, CASING), (_WIDTH, LINE)):
        for line in lines:
            draw.line(line, fill=colour, width=line_width, joint="curve")
    for name, (x, y) in labels[:MOST_NAMES]:
        _label(draw, name, x, y, picture.size)


def _label(draw: ImageDraw.ImageDraw, name: str, x: float, y: float, size: tuple[int, int]) -> None:
    """A name on a dark ground, moved inside of the picture."""
    text = shortened(name, size[0] / 2, _TEXT)
    wide, high = font(_TEXT).getlength(text) + 2 * _PAD, _TEXT + 2 * _PAD
    x0 = min(max(x - wide / 2, 0), max(size[0] - wide, 0))
    y0 = min(max(y - high / 2, 0), max(size[1] - high, 0))
    draw.rectangle((x0, y0, x0 + wide, y0 + high), fill=CASING)
    draw.text((x0 + _PAD, y0 + high / 2), text, LINE, font=font(_TEXT), anchor="lm")
