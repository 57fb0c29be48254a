"""``outlines.png``: the cells of a count, outlined on their slide; borders on any picture."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cellseg.annotations.region import Regions
from cellseg.draw.sheet import Panel, Sheet, font, scale_bar, shortened
from cellseg.errors import InputError, RegionError
from cellseg.geometry import Box, Frame
from cellseg.palette import RGB
from cellseg.result import Ground, Result, class_codes
from cellseg.result.labels import labels_at
from cellseg.table.summary import counted
from cellseg.text import visible

CROPS = 12
CROP_PX = 512  # Side of a crop in the picture.

WHOLE_PX = 2048
"""Slides with no side longer than this are fields, drawn whole; nothing is drawn larger."""

LEAST_PX = 900
"""Smaller fields are enlarged, by a whole factor, up to about this."""

MOST_PLACES = 256
"""Along a side of the grid; on larger slides there is room between them."""

_CASING = 0.35
"""What is left of the ground's light on the line around an outline."""

_PX_PER_WIDTH = 20
"""Pixels of a usual object's diameter for each further pixel of its outline's width."""

Pen = tuple[int, RGB]
"""Width of a line, px, and its colour."""

MOST_COVERED = 0.15
"""Share of a picture that names of regions may cover; further ones have none."""

_LINE, _DARK = (255, 255, 255), (20, 20, 24)
_CASED: tuple[Pen, ...] = ((7, _DARK), (3, _LINE))
"""A line that is seen on any ground."""

_TEXT, _PAD = 15, 4  # Of a region's name.

_MOST_ZOOM = 8
_LIGHT, _UNREAD = (98, 84, 116), 128


def outline_sheet(
    result: Result, ground: Ground, box: Box | None = None, *, cells: bool = False
) -> Sheet:
    """A field, a few crops of a larger slide, or any place, with its cells outlined.

    The box, level-0 pixels inside the slide, is chosen by the rule where none is given. ``cells``:
    outline the cells that grew around the nuclei, of an expanded result.
    """
    frame, regions = result.frame, result.regions()
    thing = "cell" if cells else result.object_name
    levels = result.labels("cells" if cells else "nuclei")
    places, pixel = _layout(frame, box)
    table = result.table.load(["class", "centroid_y_px", "centroid_x_px"])
    codes = shown_codes = class_codes(table["class"], result.class_names)
    classes = np.concatenate([[0], codes]).astype(np.uint16)
    at = table[["centroid_y_px", "centroid_x_px"]].to_numpy(np.float64) + 0.5
    if box is not None:
        inside = ((at >= (box.y0, box.x0)) & (at < (box.y1, box.x1))).all(axis=1)
        at, shown_codes = at[inside], codes[inside]
    held = places.held(at)
    palette = result.colours(result.class_names)
    parts, unread = [], []
    for number, place in enumerate(choose(held, CROPS)):
        spot = places.box(*place)
        count = int(held[place])
        which = {0: ", the densest", 1: ", the sparsest"}.get(number, "") if count else ""
        corners = " ".join(map(str, spot.corners))
        caption = "" if places.is_one else f"box {corners}: {counted(count, thing)}{which}"
        if regions is not None and caption:
            (names,) = regions.names_at([(spot.y0 + spot.y1) / 2], [(spot.x0 + spot.x1) / 2])
            caption += f", in {names}" if names else ""
        lattice = _on_lattice(spot, pixel, ground.slide.lattice_shape(pixel))
        try:
            seen = ground.read(lattice, pixel)
        except RegionError as error:
            unread.append(error)
            seen = np.full((*lattice.shape, 3), _UNREAD, dtype=np.uint8)
            caption += " (cannot be read)"
        labels = labels_at(levels, frame, lattice, pixel)
        if (last := int(labels.max(initial=0))) >= len(classes):
            raise InputError(f"the table has no row for mask {last}; count the slide again")
        parts.append((seen, lattice, labels, caption))
    if len(unread) == len(parts):
        raise unread[0]
    width = line_width(labels for _, _, labels, _ in parts)
    panels = []
    for seen, lattice, labels, caption in parts:
        image = Image.fromarray(outlined(seen, labels, classes, palette, width=width))
        if regions is not None:
            draw_borders(image, regions, corner=(lattice.y0 * pixel, lattice.x0 * pixel),
                         pixel=pixel)  # fmt: skip
        panels.append(Panel(image, caption))
    counts = np.bincount(shown_codes, minlength=len(palette))
    title = f"{ground.title}: {counted(result.summary.cells, result.object_name)}"
    title += ", corrected" if "corrected_from" in result.run else ""
    outline = f"Each {thing} mask has its outline just inside"
    if regions is not None:
        outline += "; white lines are borders of regions, cells outside of them are not counted"
    shown = _shown(places, held, box, len(panels), pixel, thing)
    return Sheet(
        title=f"{title}, grown into cells" if cells else title,
        panels=panels,
        columns=math.ceil(math.sqrt(len(panels))),
        entries=[
            (colour, f"{visible(name)}: {count:,}")
            for colour, name, count in zip(palette, result.class_names, counts, strict=True)
        ],
        ground=_DARK if ground.is_dark else _LIGHT,
        bar=scale_bar(max(40, panels[0].image.width / 4), pixel=pixel, mpp=frame.mpp),
        said=f"{shown} {outline}.",
    )


def _layout(frame: Frame, box: Box | None) -> tuple[Places, float]:
    """Where to look, and level-0 pixels along a side of the picture's pixels.

    Of a small place that is a whole part of one, so that pixels are about as fine as the masks'.
    """
    enlarged = int(np.clip(math.ceil(1 / frame.downsample - 0.1), 1, _MOST_ZOOM))
    if box is None and max(frame.height, frame.width) > WHOLE_PX:
        return Places.grid((frame.height, frame.width), CROP_PX // enlarged), 1 / enlarged
    one = box or Box(0, 0, frame.height, frame.width)
    if (side := max(one.shape)) > WHOLE_PX:
        return Places.one(one), side / WHOLE_PX
    enlarged = min(max(enlarged, LEAST_PX // side), _MOST_ZOOM, WHOLE_PX // side)
    return Places.one(one), 1 / enlarged


def _on_lattice(box: Box, pixel: float, shape: tuple[int, int]) -> Box:
    """A level-0 box in pixels of the picture, at least one."""
    y0, x0, y1, x1 = (round(side / pixel) for side in box.corners)
    return Box(y0, x0, min(max(y1, y0 + 1), shape[0]), min(max(x1, x0 + 1), shape[1]))


def _shown(
    places: Places, held: NDArray[np.int64], box: Box | None, crops: int, pixel: float, thing: str
) -> str:
    """What is shown, and why; ``pixel`` is the side of the picture's pixels, level-0 px."""
    scale = f"enlarged {1 / pixel:.0f} times" if pixel < 1 else "full scale"
    if pixel > 1:
        scale = f"{pixel:.3g} pixels of the slide along a side of each pixel here"
    if box is not None:
        corners = f"{box.y0} {box.x0} {box.y1} {box.x1}"
        inside = f"{counted(int(held.sum()), thing)} with their centre in it"
        return f"Box {corners} (level-0 pixels Y0 X0 Y1 X1), {scale}; {inside}."
    if places.is_one:
        return f"The whole field, {scale}."
    holding = int(np.count_nonzero(held)) or held.size
    which = "hold masks" if held.any() else "there are; no masks were found"
    if crops < holding and held.any():
        which += (
            ": the densest, the sparsest, and others that each stand for an equal part of the "
            "masks, row by row"
        )
    return (
        f"{crops} of the {holding:,} places of {places.width} × {places.height} px, on a regular "
        f"grid, that {which}. {scale.capitalize()}. Boxes are Y0 X0 Y1 X1 in level-0 pixels; "
        "counts in a box are of masks with their centre in it."
    )


@dataclass(frozen=True, eq=False)
class Places:
    """Boxes of one size on a regular grid, level-0 pixels; they do not overlap.

    ``is_one``: nothing was to be chosen.
    """

    tops: NDArray[np.int64]
    lefts: NDArray[np.int64]
    height: int
    width: int
    is_one: bool = False

    @classmethod
    def one(cls, box: Box) -> Places:
        return cls(np.array([box.y0]), np.array([box.x0]), *box.shape, is_one=True)

    @classmethod
    def grid(cls, shape: tuple[int, int], side: int) -> Places:
        """As many places of ``side`` px as there is room for, evenly spaced, at least one."""
        (tops, height), (lefts, width) = (_spread(size, side) for size in shape)
        return cls(tops, lefts, height, width)

    def box(self, row: int, column: int) -> Box:
        y, x = int(self.tops[row]), int(self.lefts[column])
        return Box(y, x, y + self.height, x + self.width)

    def held(self, at: NDArray[np.float64]) -> NDArray[np.int64]:
        """Points in each place; they are (N, 2) of (y, x), level-0 px, 0 at the slide's corner."""
        sides = ((self.tops, self.height), (self.lefts, self.width))
        edges = [
            np.append(np.stack([starts, starts + side], axis=1), np.inf) for starts, side in sides
        ]
        found, *_ = np.histogram2d(at[:, 0], at[:, 1], bins=edges)
        return np.asarray(found[::2, ::2], np.int64)


def choose(counts: NDArray[np.int64], most: int) -> list[tuple[int, int]]:
    """Row and column of the densest place, the sparsest, and others, row by row; at most ``most``.

    Each of the others stands for an equal part of the cells, counted row by row. Spread over the
    area instead, most would lie at the tissue's edges and hold next to nothing. ``counts``,
    (rows, columns), are cells in each place; those without any are left out, unless all are.
    """
    places = np.argwhere((counts > 0) | (not counts.any()))
    held = counts[tuple(places.T)]
    ends = dict.fromkeys([int(np.argmax(held)), len(held) - 1 - int(np.argmin(held[::-1]))])
    rest = np.setdiff1d(np.arange(len(held)), list(ends))
    steps = np.arange(min(most - len(ends), len(rest)))
    at = np.zeros(0, np.int64)
    if len(steps):
        reached = np.cumsum(np.maximum(held[rest], 1))
        at = np.searchsorted(reached, (steps + 0.5) / len(steps) * reached[-1])
        # No place twice, where one holds more than its part.
        at = np.minimum(np.maximum.accumulate(at - steps), len(rest) - len(steps)) + steps
    return [(int(y), int(x)) for y, x in places[[*ends, *rest[at]]]]


def _spread(size: int, side: int) -> tuple[NDArray[np.int64], int]:
    side = min(side, size)
    number = min(MOST_PLACES, size // side)
    pitch = size / number
    return np.floor(np.arange(number) * pitch + (pitch - side) / 2).astype(np.int64), side


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


def draw_borders(
    picture: Image.Image, regions: Regions, pixel: float, corner: tuple[float, float] = (0.0, 0.0)
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
        draw.rectangle((x0, y0, x0 + wide, y0 + high), fill=_DARK)
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
    right, bottom = left + width * pixel + margin, top + height * pixel + margin
    edges = shapely.boundary(np.array(shapes, dtype=object))
    seen = shapely.clip_by_rect(edges, left - margin, top - margin, right, bottom)
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
