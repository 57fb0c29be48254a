"""Lines over pictures: outlines of cells, borders of regions with their names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cellseg.annotations.region import Regions
from cellseg.draw.sheet import font, shortened
from cellseg.palette import RGB

MOST_COVERED = 0.15
"""Share of a picture that names of regions may cover; further ones have none."""

_CASING = 0.35
"""What is left of the ground's light on the line around an outline."""

_PX_PER_WIDTH = 20
"""Pixels of a usual object's diameter for each further pixel of its outline's width."""


def borders(labels: NDArray[np.integer], width: int) -> NDArray[np.bool_]:
    """The outermost pixels of each label, inside of it; the array's own edge is no border.

    ``width`` is in steps up, down, left or right from a pixel of something else.
    """
    inner = labels.copy()
    for _ in range(width):
        differs = np.zeros(labels.shape, dtype=bool)
        below, right = inner[1:] != inner[:-1], inner[:, 1:] != inner[:, :-1]
        differs[1:] |= below
        differs[:-1] |= below
        differs[:, 1:] |= right
        differs[:, :-1] |= right
        inner[differs] = 0
    return np.asarray((labels != 0) & (inner == 0))


def line_width(images: Iterable[NDArray[np.integer]]) -> int:
    """Width of outlines that suits the usual size of all images' objects, px."""
    areas = np.concatenate(
        [np.unique(labels[labels != 0], return_counts=True)[1] for labels in images]
    )
    usual = float(np.median(areas)) ** 0.5 if areas.size else 0.0
    return int(np.clip(round(usual / _PX_PER_WIDTH + 0.7), 1, 4))


def outlined(
    image: NDArray[np.uint8],
    labels: NDArray[np.integer],
    classes: NDArray[np.integer],
    palette: Sequence[RGB],
    *,
    width: int,
) -> NDArray[np.uint8]:
    """An image with its cells outlined, uint8 (H, W, 3).

    The line lies inside each cell; a dark one around it keeps it apart from a bright ground.
    ``classes``, (N + 1,), are by the label, ``palette`` by class.
    """
    line = borders(labels, width)
    ground = labels == 0
    casing = ground & borders(ground.astype(np.uint8), 1)
    out = image.copy()
    out[casing] = (image[casing] * _CASING).astype(np.uint8)
    out[line] = np.array(palette, dtype=np.uint8)[classes[labels[line]]]
    return out


Pen = tuple[int, RGB]
"""Width, px, and colour."""

_LINE, _GROUND = (255, 255, 255), (20, 20, 24)
_CASED: tuple[Pen, ...] = ((7, _GROUND), (3, _LINE))
"""A line that is seen on any ground."""

_TEXT, _PAD = 15, 4


def draw_borders(
    picture: Image.Image,
    regions: Regions,
    *,
    corner: tuple[float, float] = (0.0, 0.0),
    pixel: float,
) -> None:
    """Draw regions on a picture, in place: a white line, and the name where it is topmost.

    ``corner`` is the level-0 (y, x) of the picture's corner; its pixels are ``pixel`` level-0 px
    wide.
    """
    shapes = [region.shape for region in regions]
    drawn = draw_edges(picture, shapes, _CASED, corner=corner, pixel=pixel)
    draw = ImageDraw.Draw(picture)
    room = MOST_COVERED * picture.width * picture.height
    for number, points in drawn.items():
        x, y = points[points[:, 1].argmin()]
        text = shortened(regions.each[number].name, picture.width / 2, _TEXT)
        wide, high = font(_TEXT).getlength(text) + 2 * _PAD, _TEXT + 2 * _PAD
        if (room := room - wide * high) < 0:
            break
        x0 = min(max(x - wide / 2, 0), max(picture.width - wide, 0))
        y0 = min(max(y - high / 2, 0), max(picture.height - high, 0))
        draw.rectangle((x0, y0, x0 + wide, y0 + high), fill=_GROUND)
        draw.text((x0 + _PAD, y0 + high / 2), text, _LINE, font=font(_TEXT), anchor="lm")


def draw_edges(
    picture: Image.Image,
    shapes: Sequence[shapely.Geometry],
    pens: Sequence[Pen],
    *,
    corner: tuple[float, float] = (0.0, 0.0),
    pixel: float,
) -> dict[int, NDArray[np.float64]]:
    """Draw the edges of (multi)polygons on a picture, in place, with one pen after the other.

    Returned are, of each shape in sight by its place, the points of its edge: (N, 2), (x, y) in the
    picture.
    """
    (top, left), (width, height) = corner, picture.size
    margin = max(wide for wide, _ in pens) * pixel  # no line runs along the picture's own edge
    seen = shapely.clip_by_rect(
        shapely.boundary(np.array(shapes, dtype=object)),
        left - margin,
        top - margin,
        left + width * pixel + margin,
        top + height * pixel + margin,
    )
    parts = {
        number: [
            (shapely.get_coordinates(part) - (left, top)) / pixel
            for part in shapely.get_parts(seen[number])
        ]
        for number in np.flatnonzero(~shapely.is_empty(seen)).tolist()
    }
    draw = ImageDraw.Draw(picture)
    for wide, colour in pens:
        for line in (line for lines in parts.values() for line in lines):
            draw.line([(x, y) for x, y in line.tolist()], fill=colour, width=wide, joint="curve")
    return {number: np.concatenate(lines) for number, lines in parts.items()}
