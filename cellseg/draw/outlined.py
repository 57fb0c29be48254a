"""``outlines.png``: the cells of a count, outlined on their slide."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cellseg.annotations.region import Regions
from cellseg.draw import (
    Entry,
    Legend,
    Panel,
    Places,
    choose,
    colours,
    draw_borders,
    line_width,
    outlined,
    scale_bar,
    sheet,
)
from cellseg.errors import InputError, RegionError
from cellseg.geometry import Box, Frame
from cellseg.result import Ground, Result, Table
from cellseg.result.labels import LabelImage, labels_at
from cellseg.table.regions import counted
from cellseg.text import visible

CROPS = 12

CROP_PX = 512
"""Side of a crop in the picture."""

WHOLE_PX = 2048
"""Slides with no side longer than this are fields, drawn whole; nothing is drawn larger."""

LEAST_PX = 900
"""Smaller fields are enlarged, by a whole factor, up to about this."""

_MOST_ZOOM = 8
_DARK, _LIGHT, _UNREAD = (20, 20, 24), (98, 84, 116), 128
_WANTED = ("class", "centroid_y_px", "centroid_x_px")


@dataclass(frozen=True, eq=False, kw_only=True)
class Masks:
    """The cells of a count.

    Attributes
    ----------
    levels : sequence of LabelImage
        Finest first.
    table : Table
    regions : Regions or None
        What was counted in: bordered and named.
    """

    frame: Frame
    levels: Sequence[LabelImage]
    table: Table
    class_names: Sequence[str]
    object_name: str
    regions: Regions | None = None


def masks_of(result: Result, *, cells: bool = False) -> Masks:
    """The masks of a result: of its nuclei, or of the cells around them."""
    return Masks(
        frame=result.frame,
        levels=result.labels("cells" if cells else "nuclei"),
        table=result.table,
        class_names=result.class_names,
        object_name="cell" if cells else result.object_name,
        regions=result.regions(),
    )


def draw_outlines(ground: Ground, masks: Masks, box: Box | None = None) -> Image.Image:
    """Draw a field, a few crops of a larger slide, or any place.

    Parameters
    ----------
    box : Box, optional
        Level-0 pixels, inside the slide; chosen by the rule otherwise.

    Raises
    ------
    InputError
        If nothing of it can be read.
    """
    places, pixel = _layout(masks.frame, box)
    tally = _Tally.of(masks, places)
    palette = colours(len(masks.class_names))
    parts, unread = [], []
    for number, place in enumerate(choose(tally.counts, CROPS)):
        at = places.box(*place)
        caption = "" if places.is_one else _caption(number, at, tally.counts[place], masks)
        lattice = _on_lattice(at, pixel, ground.slide.lattice_shape(pixel))
        try:
            seen = ground.read(lattice, pixel)
        except RegionError as error:
            unread.append(error)
            seen = np.full((*lattice.shape, 3), _UNREAD, dtype=np.uint8)
            caption += " (cannot be read)"
        labels = labels_at(masks.levels, masks.frame, lattice, pixel)
        if (last := int(labels.max(initial=0))) >= len(tally.classes):
            raise InputError(f"the table has no row for mask {last}; count the slide again")
        parts.append((seen, lattice, labels, caption))
    if len(unread) == len(parts):
        raise unread[0]
    width = line_width(labels for _, _, labels, _ in parts)
    panels = []
    for seen, lattice, labels, caption in parts:
        picture = outlined(seen, labels, tally.classes, palette, width=width)
        panels.append(Panel(_bordered(picture, masks.regions, lattice, pixel), caption))
    counted = tally.inside if box is not None else tally.total
    legend = Legend(
        title=ground.title,
        entries=[
            Entry(colour, f"{visible(name)}: {count:,}")
            for colour, name, count in zip(palette, masks.class_names, counted, strict=True)
        ],
        ground=_DARK if ground.is_dark else _LIGHT,
        bar=scale_bar(max(40, panels[0].image.shape[1] / 4), pixel=pixel, mpp=masks.frame.mpp),
        said=_said(masks, places, tally, box, shown=len(panels), pixel=pixel),
    )
    return sheet(panels, legend)


def _bordered(
    picture: NDArray[np.uint8], regions: Regions | None, lattice: Box, pixel: float
) -> NDArray[np.uint8]:
    """With the borders of the regions; ``lattice`` is its place in its own pixels."""
    if regions is None:
        return picture
    image = Image.fromarray(picture)
    corner = (lattice.y0 * pixel, lattice.x0 * pixel)
    draw_borders(image, *regions.drawn, corner=corner, pixel=pixel)
    return np.asarray(image)


def _layout(frame: Frame, box: Box | None) -> tuple[Places, float]:
    """Where to look, and level-0 pixels along a side of the picture's pixels."""
    if box is None and max(frame.height, frame.width) > WHOLE_PX:
        enlarged = _enlarged(frame)
        return Places.grid((frame.height, frame.width), CROP_PX // enlarged), 1 / enlarged
    one = box or Box(0, 0, frame.height, frame.width)
    return Places.one(one), _pixel(frame, max(one.shape))


def _enlarged(frame: Frame) -> int:
    """A whole factor, so that a picture's pixels are about as fine as the masks'."""
    return int(np.clip(math.ceil(1 / frame.downsample - 0.1), 1, _MOST_ZOOM))


def _pixel(frame: Frame, side: int) -> float:
    """Level-0 pixels along a side of the picture's pixels, for a single place."""
    if side > WHOLE_PX:
        return side / WHOLE_PX
    wanted = min(max(_enlarged(frame), LEAST_PX // side), _MOST_ZOOM)
    return 1 / max(1, min(wanted, WHOLE_PX // side))


def _on_lattice(box: Box, pixel: float, shape: tuple[int, int]) -> Box:
    """A level-0 box in pixels of the picture, at least one."""
    y0, x0 = round(box.y0 / pixel), round(box.x0 / pixel)
    y1, x1 = round(box.y1 / pixel), round(box.x1 / pixel)
    return Box(y0, x0, min(max(y1, y0 + 1), shape[0]), min(max(x1, x0 + 1), shape[1]))


@dataclass(frozen=True, eq=False)
class _Tally:
    """The table's cells, by place and by class."""

    counts: NDArray[np.int64]
    classes: NDArray[np.uint16]
    total: NDArray[np.int64]
    inside: NDArray[np.int64]

    @classmethod
    def of(cls, masks: Masks, places: Places) -> _Tally:
        """Read in parts; of each cell its class is kept, two bytes.

        Raises
        ------
        InputError
        """
        names = {name: number for number, name in enumerate(masks.class_names)}
        counts = np.zeros(places.shape, dtype=np.int64)
        total, inside = np.zeros((2, len(masks.class_names)), dtype=np.int64)
        classes: list[NDArray[np.uint16]] = [np.zeros(1, dtype=np.uint16)]
        for part in masks.table.batches(_WANTED):
            number = part["class"].map(names)
            if number.isna().any():
                raise InputError("the table holds classes that run.json does not list")
            at = places.holding(part["centroid_y_px"], part["centroid_x_px"])
            classes.append(number.to_numpy().astype(np.uint16))
            held = at >= 0
            np.add.at(counts.reshape(-1), at[held], 1)
            np.add.at(total, classes[-1], 1)
            np.add.at(inside, classes[-1][held], 1)
        return cls(counts, np.concatenate(classes), total, inside)


def _caption(number: int, box: Box, count: int, masks: Masks) -> str:
    which = {0: ", the densest", 1: ", the sparsest"}.get(number, "") if count else ""
    said = f"box {box.y0} {box.x0} {box.y1} {box.x1}: {counted(count, masks.object_name)}{which}"
    middle = [(box.y0 + box.y1) / 2], [(box.x0 + box.x1) / 2]
    names = "" if masks.regions is None else masks.regions.names_at(*middle)[0]
    return f"{said}, in {names}" if names else said


def _said(
    masks: Masks, places: Places, tally: _Tally, box: Box | None, *, shown: int, pixel: float
) -> str:
    """What is shown, and why."""
    if pixel > 1:
        scale = f"{pixel:.3g} pixels of the slide along a side of each pixel here"
    elif pixel < 1:
        scale = f"enlarged {1 / pixel:.0f} times"
    else:
        scale = "full scale"
    outline = f"Each {masks.object_name} mask has its outline just inside"
    if masks.regions is not None:
        outline += "; white lines are borders of regions, cells outside of them are not counted"
    if box is not None:
        corners = f"{box.y0} {box.x0} {box.y1} {box.x1}"
        held = f"{counted(int(tally.inside.sum()), masks.object_name)} with their centre in it"
        return f"Box {corners} (level-0 pixels Y0 X0 Y1 X1), {scale}; {held}. {outline}."
    if places.is_one:
        return f"The whole field, {scale}. {outline}."
    holding = int(np.count_nonzero(tally.counts)) or tally.counts.size
    which = "hold masks" if tally.counts.any() else "there are; no masks were found"
    if shown < holding and tally.counts.any():
        which += (
            ": the densest, the sparsest, and others that each stand for an equal part of the "
            "masks, row by row"
        )
    return (
        f"{shown} of the {holding:,} places of {places.width} × {places.height} px, on a regular "
        f"grid, that {which}. {scale.capitalize()}. Boxes are Y0 X0 Y1 X1 in level-0 pixels; "
        f"counts in a box are of masks with their centre in it. {outline}."
    )
