"""Where cells lie: to their neighbours, to the border, and how densely.

All distances are between centroids, straight, in µm where the slide has a pixel size. Nothing
depends on the order of the cells.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray

from cellseg.annotations.region import Regions
from cellseg.table._shape import Floats
from cellseg.table._table import Column, channel_slugs

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

NEAR_UM = 30
"""Neighbours are counted within this, unless another distance is asked for."""

DENSITY_UM = 50
"""Radius of the disc in which the local density is counted."""

MOST_CLASSES = 16
"""Classes whose nearest cell gets a column."""

_DISC_POINTS = 256


@dataclass(frozen=True)
class Neighbours:
    """What is asked of a neighbourhood.

    The nearest cell of each of ``classes`` gets a column; with one class there is nothing to tell
    apart.
    """

    mpp: float | None  # µm per pixel at level 0; None: distances in pixels, and no density.
    within: int | None = NEAR_UM  # Neighbours are counted within it, µm or px; None: they are not.
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
        signs = (name.replace("+", " plus") for name in self.classes)
        spelled = (re.sub(r"-(?=\s|$)", " minus", name) for name in signs)  # as of CD3+ CD8-
        slugs = channel_slugs(["neighbour", *spelled], unnamed="class")[1:]
        return {
            name: f"nearest_{slug}_{self.unit}"
            for name, slug in zip(self.classes, slugs, strict=True)
        }

    @property
    def columns(self) -> tuple[Column, ...]:
        """What is added to ``cells.csv``, in order."""
        short, unit = self.unit, "px" if self.mpp is None else "µm"
        nearest = "From the cell's centroid to the nearest other one."
        found = [Column(f"nearest_neighbour_{short}", unit, "float64", nearest)]
        if self.within is not None:
            meaning = f"Other centroids within {self.within} {unit}."
            found.append(Column(f"neighbours_{self.within}{short}", "", "int64", meaning))
        if self.mpp is not None:
            meaning = (
                f"Other centroids within {DENSITY_UM} µm, per mm² of what was looked at there."
            )
            found.append(Column("density_per_mm2", "1/mm²", "float64", meaning))
        border = "To the border of the region that holds the cell, or of the tissue; "
        border += "negative outside."
        found.append(Column(f"border_distance_{short}", unit, "float64", border))
        for name, column in self.by_class.items():
            meaning = f"To the nearest other centroid of class `{name}`."
            found.append(Column(column, unit, "float64", meaning))
        return tuple(found)


def neighbourhood(
    places: NDArray[np.float64], looked_at: Regions, near: Neighbours
) -> dict[str, NDArray[np.float64]]:
    """Measure where cells lie: the columns of ``near`` but for those by class.

    NaN where there is no other cell. Places, (N, 2), are centroids, (y, x), level-0 pixels, pixel
    centres at integers; cells were counted in ``looked_at``, cut at the slide's edges.
    """
    from scipy.spatial import cKDTree  # late: it takes a while to load

    pixel = near.mpp or 1.0
    points = places * pixel
    tree = cKDTree(points)
    border = _border_distance(places, looked_at)
    found = {f"nearest_neighbour_{near.unit}": _nearest(tree, points, 2)}
    if near.within is not None:
        found[f"neighbours_{near.within}{near.unit}"] = _counted(tree, points, near.within)
    if near.mpp is not None:
        seen = _seen_share(places, border, looked_at, DENSITY_UM / near.mpp)
        seen_mm2 = seen * math.pi * (DENSITY_UM / 1000) ** 2
        counted = _counted(tree, points, DENSITY_UM)
        found["density_per_mm2"] = np.divide(
            counted, seen_mm2, out=np.full(len(points), np.nan), where=seen_mm2 > 0
        )
    return {**found, f"border_distance_{near.unit}": border * pixel}


def to_classes(
    places: NDArray[np.float64], classes: Sequence[str] | NDArray[np.object_], near: Neighbours
) -> dict[str, NDArray[np.float64]]:
    """Measure from each cell to the nearest other one of each class; NaN where there is none.

    The columns :attr:`Neighbours.by_class`; ``places`` as for :func:`neighbourhood`.
    """
    from scipy.spatial import cKDTree  # late, as above

    points, names = places * (near.mpp or 1.0), np.asarray(classes, dtype=object)
    found = {}
    for name, column in near.by_class.items():
        is_one = np.equal(names, name).astype(np.bool_)
        found[column] = np.full(len(points), np.nan)
        if is_one.any():
            tree = cKDTree(points[is_one])
            found[column][~is_one] = _nearest(tree, points[~is_one], 1)
            found[column][is_one] = _nearest(tree, points[is_one], 2)
    return found


def _nearest(tree: cKDTree, points: NDArray[np.float64], which: int) -> Floats:
    """Distance to the first, or the second (of which the first is the cell itself)."""
    if tree.n < which:
        return np.full(len(points), np.nan)
    return np.asarray(tree.query(points, k=[which], workers=-1)[0][:, 0], np.float64)


def _counted(tree: cKDTree, points: NDArray[np.float64], radius: float) -> Floats:
    """Other points within a radius."""
    counts = tree.query_ball_point(points, radius, return_length=True, workers=-1)
    return np.asarray(counts, np.float64) - 1


def _border_distance(places: NDArray[np.float64], looked_at: Regions) -> Floats:
    """Level-0 pixels to the nearest border of a region that holds the cell; outside negative."""
    found = np.full(len(places), np.inf)
    cells, regions = looked_at.holding(places[:, 0], places[:, 1])
    outside = np.ones(len(places), np.bool_)
    outside[cells] = False
    shapes = [region.shape for region in looked_at.each]
    for number in np.unique(regions):
        inside = cells[regions == number]
        found[inside] = np.minimum(found[inside], _to_borders(places[inside], [shapes[number]]))
    found[outside] = -_to_borders(places[outside], shapes)
    return found


def _to_borders(places: NDArray[np.float64], shapes: Sequence[shapely.MultiPolygon]) -> Floats:
    """Distance to the nearest side of any of the shapes, holes' too, (N,) level-0 pixels."""
    rings = shapely.get_rings(shapely.get_parts(shapes))
    corners = [shapely.get_coordinates(ring) for ring in rings]
    sides = [np.stack([ring[:-1], ring[1:]], axis=1) for ring in corners]
    tree = shapely.STRtree(shapely.linestrings(np.concatenate(sides)))
    points = shapely.points(places[:, ::-1] + 0.5)
    return np.asarray(tree.query_nearest(points, return_distance=True, all_matches=False)[1])


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
