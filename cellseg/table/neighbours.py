"""Where cells lie: to their neighbours, to the border, and how densely.

All distances are between centroids, straight, in µm where the slide has a pixel size. Nothing
depends on the order of the cells.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from cellseg.annotations.region import Regions
from cellseg.table._columns import Column, channel_slugs
from cellseg.table._pixels import Floats

NEAR_UM = 30
"""Neighbours are counted within this, unless another distance is asked for."""

DENSITY_UM = 50
"""Radius of the disc in which the local density is counted."""

MOST_CLASSES = 16
"""Classes whose nearest cell gets a column."""

_DISC_POINTS = 256
_BLOCKS = 64  # along a side of the slide
_AT_ONCE = 65_536


@dataclass(frozen=True)
class Near:
    """What is asked.

    Attributes
    ----------
    mpp : float or None
        µm per pixel at level 0; None: distances are in pixels, and there is no density.
    within : int or None
        Neighbours are counted within it, µm or px; None: they are not counted.
    classes : tuple of str
        The nearest cell of each gets a column; with one class there is nothing to tell apart.
    """

    mpp: float | None
    within: int | None = NEAR_UM
    classes: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        """``um`` or ``px``, as in names of columns."""
        return "px" if self.mpp is None else "um"

    @property
    def by_class(self) -> dict[str, str]:
        """Columns of the nearest cell of each class, by the class's name."""
        if not 1 < len(self.classes) <= MOST_CLASSES:
            return {}
        # The nearest neighbour of any class has its name already.
        slugs = channel_slugs(["neighbour", *map(_spelled, self.classes)], unnamed="class")[1:]
        return {
            name: f"nearest_{slug}_{self.unit}"
            for name, slug in zip(self.classes, slugs, strict=True)
        }

    @property
    def columns(self) -> tuple[Column, ...]:
        """What is added to ``cells.csv``, in order."""
        unit = "px" if self.mpp is None else "µm"
        found = [
            Column(
                f"nearest_neighbour_{self.unit}",
                unit,
                "float64",
                "From the cell's centroid to the nearest other one.",
            )
        ]
        if self.within is not None:
            found.append(
                Column(
                    f"neighbours_{self.within}{self.unit}",
                    "",
                    "int64",
                    f"Other centroids within {self.within} {unit}.",
                )
            )
        if self.mpp is not None:
            found.append(
                Column(
                    "density_per_mm2",
                    "1/mm²",
                    "float64",
                    f"Other centroids within {DENSITY_UM} µm, per mm² of what was looked at there.",
                )
            )
        found.append(
            Column(
                f"border_distance_{self.unit}",
                unit,
                "float64",
                "To the border of the region that holds the cell, or of the tissue; "
                "negative outside.",
            )
        )
        found += [
            Column(column, unit, "float64", f"To the nearest other centroid of class `{name}`.")
            for name, column in self.by_class.items()
        ]
        return tuple(found)


def neighbourhood(
    places: NDArray[np.float64], looked_at: Regions, near: Near
) -> dict[str, NDArray[np.float64]]:
    """Measure where cells lie, whatever their classes.

    Parameters
    ----------
    places : ndarray, float64, (N, 2)
        Centroids, (y, x), level-0 pixels, pixel centres at integers.
    looked_at : Regions
        Where cells were counted, cut at the slide's edges.
    near : Near

    Returns
    -------
    dict of str to ndarray, float64, (N,)
        The columns of ``near`` but for :attr:`Near.by_class`. NaN where there is no other cell.
    """
    pixel = near.mpp or 1.0
    order = _row_by_row(places, pixel)
    sorted_places = places[order]
    points = sorted_places * pixel
    tree = cKDTree(points)
    border = _border_distance(sorted_places, looked_at)
    found = {f"nearest_neighbour_{near.unit}": _nearest(tree, points, 2)}
    if near.within is not None:
        found[f"neighbours_{near.within}{near.unit}"] = _counted(tree, points, near.within)
    if near.mpp is not None:
        radius = DENSITY_UM / near.mpp
        seen = _seen_share(sorted_places, border, looked_at, radius)
        seen_mm2 = seen * math.pi * (DENSITY_UM / 1000) ** 2
        counted = _counted(tree, points, DENSITY_UM)
        found["density_per_mm2"] = np.divide(
            counted, seen_mm2, out=np.full(len(points), np.nan), where=seen_mm2 > 0
        )
    found[f"border_distance_{near.unit}"] = border * pixel
    return {name: _back(values, order) for name, values in found.items()}


def to_classes(
    places: NDArray[np.float64], classes: Sequence[str] | NDArray[np.object_], near: Near
) -> dict[str, NDArray[np.float64]]:
    """Measure from each cell to the nearest other one of each class.

    Parameters
    ----------
    places : ndarray, float64, (N, 2)
        Centroids, (y, x), level-0 pixels.
    classes : sequence of str, (N,)
    near : Near

    Returns
    -------
    dict of str to ndarray, float64, (N,)
        The columns :attr:`Near.by_class`. NaN where there is no such cell.
    """
    pixel = near.mpp or 1.0
    order = _row_by_row(places, pixel)
    points, names = places[order] * pixel, np.asarray(classes, dtype=object)[order]
    return {
        column: _back(_to_class(points, np.equal(names, name).astype(np.bool_)), order)
        for name, column in near.by_class.items()
    }


def _row_by_row(places: NDArray[np.float64], pixel: float) -> NDArray[np.intp]:
    """An order in which neighbours in space are neighbours in memory: row by row of squares."""
    return np.lexsort((places[:, 1], places[:, 0] // (100 / pixel)))


def _spelled(name: str) -> str:
    """``CD3+ CD8-`` as it can stand in a column's name."""
    return re.sub(r"-(?=\s|$)", " minus", name.replace("+", " plus"))


def _back(values: NDArray[np.float64], order: NDArray[np.intp]) -> Floats:
    found = np.empty(len(values))
    found[order] = values
    return found


def _nearest(tree: cKDTree, points: NDArray[np.float64], which: int) -> Floats:
    """Distance to the first, or the second (of which the first is the cell itself)."""
    found = np.full(len(points), np.nan)
    if tree.n >= which:
        for part in _parts(len(points)):
            found[part] = tree.query(points[part], k=[which], workers=-1)[0][:, 0]
    return found


def _counted(tree: cKDTree, points: NDArray[np.float64], radius: float) -> Floats:
    """Other points within a radius."""
    found = np.zeros(len(points))
    for part in _parts(len(points)):
        found[part] = tree.query_ball_point(points[part], radius, return_length=True, workers=-1)
    return found - 1


def _to_class(points: NDArray[np.float64], of_class: NDArray[np.bool_]) -> Floats:
    found = np.full(len(points), np.nan)
    if of_class.any():
        tree = cKDTree(points[of_class])
        found[~of_class] = _nearest(tree, points[~of_class], 1)
        found[of_class] = _nearest(tree, points[of_class], 2)
    return found


def _parts(number: int) -> Iterator[slice]:
    return (slice(first, first + _AT_ONCE) for first in range(0, number, _AT_ONCE))


def _border_distance(places: NDArray[np.float64], looked_at: Regions) -> Floats:
    """Level-0 pixels to the nearest border of a region that holds the cell; outside negative."""
    found = np.full(len(places), np.inf)
    cells, regions = looked_at.holding(places[:, 0], places[:, 1])
    outside = np.ones(len(places), np.bool_)
    outside[cells] = False
    borders = [_segments(region.shape) for region in looked_at.each]
    for number, border in enumerate(borders):
        inside = cells[regions == number]
        found[inside] = np.minimum(found[inside], _to_segments(places[inside], border))
    found[outside] = -_to_segments(places[outside], np.concatenate(borders))
    return found


def _segments(shape: shapely.MultiPolygon) -> NDArray[np.float64]:
    """Both ends of each side of a shape, holes' too: (S, 2, 2) level-0 (y, x)."""
    rings = [
        shapely.get_coordinates(ring)[:, ::-1] - 0.5
        for polygon in shape.geoms
        for ring in (polygon.exterior, *polygon.interiors)
    ]
    sides = [np.stack([ring[:-1], ring[1:]], axis=1) for ring in rings]
    return np.concatenate([np.empty((0, 2, 2)), *sides])


def _to_segments(places: NDArray[np.float64], segments: NDArray[np.float64]) -> Floats:
    """Distance to the nearest segment, (N,).

    Block by block of the places: only segments can be nearest that are no further from the
    block's middle than the nearest one is, and the block's width.
    """
    found = np.empty(len(places))
    if not len(places):
        return found
    blocks = max(1, min(_BLOCKS, math.isqrt(len(places)) // 16))
    low = places.min(axis=0)
    side = np.maximum((places.max(axis=0) - low) / blocks, 1e-9)
    number = np.minimum((places - low) // side, blocks - 1) @ (blocks, 1)
    order = np.argsort(number, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(number[order])) + 1):
        corners = places[members].min(axis=0), places[members].max(axis=0)
        middle = (corners[0] + corners[1]) / 2
        away = _apart(middle[None], segments)[0]
        near = segments[away <= away.min() + np.hypot(*(corners[1] - corners[0])) + 1e-6]
        step = max(1, _AT_ONCE // len(near))
        for first in range(0, len(members), step):
            some = members[first : first + step]
            found[some] = _apart(places[some], near).min(axis=1)
    return found


def _apart(places: NDArray[np.float64], segments: NDArray[np.float64]) -> Floats:
    """Distances between N places and S segments, (N, S)."""
    start, along = segments[:, 0], segments[:, 1] - segments[:, 0]
    squared = (along**2).sum(axis=1)
    off = places[:, None] - start
    share = (off * along).sum(axis=2) / np.where(squared > 0, squared, 1.0)
    off -= along * np.clip(share, 0, 1)[..., None]
    return np.asarray(np.hypot(off[..., 0], off[..., 1]))


def _seen_share(
    places: NDArray[np.float64], border: ArrayLike, looked_at: Regions, radius: float
) -> Floats:
    """Which share of the disc around each cell was looked at, 0 … 1.

    Points spread evenly over the disc (Vogel, Math. Biosci. 44 (1979) 179) are asked, of cells
    that lie nearer to the border than the radius.
    """
    found = np.ones(len(places))
    number = np.arange(_DISC_POINTS)
    away = radius * np.sqrt((number + 0.5) / _DISC_POINTS)
    turn = number * math.pi * (3 - math.sqrt(5))
    offsets = np.stack([away * np.sin(turn), away * np.cos(turn)], axis=1) + 0.5
    shape = looked_at.union
    shapely.prepare(shape)
    near = np.flatnonzero(~(np.asarray(border) >= radius))
    for first in range(0, len(near), 4096):
        at = near[first : first + 4096]
        asked = places[at, None] + offsets
        inside = shapely.intersects_xy(shape, asked[..., 1].ravel(), asked[..., 0].ravel())
        found[at] = inside.reshape(len(at), -1).mean(axis=1)
    return found
