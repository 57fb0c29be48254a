"""A region of a slide: polygons drawn by hand, in level-0 pixels."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellseg.annotations.scanline import coverage, length
from cellseg.errors import InputError, SettingsError

Point = tuple[float, float]
Ring = tuple[Point, ...]

POINTS_LIMIT = 1_000_000

REACH_PX = 1e8
"""No slide is as wide as this: a point beyond is in other units, or a mistake."""

_LINES = 4096


@dataclass(frozen=True)
class Region:
    """Where to count: what lies in any of the polygons.

    Attributes
    ----------
    polygons : tuple of polygon
        Each a tuple of rings, the outline and its holes; each ring a tuple of (y, x), level-0
        pixels with pixel centres at integers.

    Raises
    ------
    SettingsError
        If there is no polygon, one without area, or a point that is no pixel.
    """

    polygons: tuple[tuple[Ring, ...], ...]

    def __post_init__(self) -> None:
        if not self.polygons:
            raise SettingsError("a region needs at least one outline")
        points = [point for rings in self.polygons for ring in rings for point in ring]
        for y, x in points:
            if not (-REACH_PX <= y <= REACH_PX and -REACH_PX <= x <= REACH_PX):
                raise SettingsError(
                    "a region's points must be numbers, pixels of the slide, "
                    f"got ({x:.6g}, {y:.6g})"
                )
        if any(len(ring) < 3 for rings in self.polygons for ring in rings):
            raise SettingsError("an outline of a region needs at least three points")
        # An outline that crosses itself, as an 8 does, may have halves that cancel out.
        if self.area_px <= 0 and not self.covered_px > 0:
            raise SettingsError("a region needs an area")

    @classmethod
    def of(cls, outlines: Iterable[Iterable[Sequence[float]]]) -> Region:
        """From outlines without holes, each an (N, 2) array of (y, x)."""
        return cls(
            tuple((tuple((float(p[0]), float(p[1])) for p in outline),) for outline in outlines)
        )

    @classmethod
    def box(cls, y0: float, x0: float, y1: float, x1: float) -> Region:
        """A rectangle."""
        return cls.of([[(y0, x0), (y0, x1), (y1, x1), (y1, x0)]])

    @property
    def area_px(self) -> float:
        """Of the outlines less their holes; where outlines overlap, counted twice.

        Of an outline that crosses itself, what is turned round is taken off; see `covered_px`.
        """
        return sum(
            abs(_area(rings[0])) - sum(abs(_area(hole)) for hole in rings[1:])
            for rings in self.polygons
        )

    @property
    def covered_px(self) -> float:
        """Area that lies in any of the polygons: where they overlap, counted once."""
        top, left, bottom, _ = self.bounds
        high = (bottom - top) / _LINES
        if not high:
            return 0.0
        polygons = [
            [(np.array(ring) - (top, left)) / (high, 1.0) for ring in rings]
            for rings in self.polygons
        ]
        return high * length(polygons, _LINES)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(y0, x0, y1, x1) around everything."""
        points = np.array([point for rings in self.polygons for point in rings[0]])
        (y0, x0), (y1, x1) = points.min(axis=0), points.max(axis=0)
        return float(y0), float(x0), float(y1), float(x1)

    def scaled(self, downsample: float) -> Region:
        """The same on a lattice whose pixels are ``downsample`` level-0 pixels wide."""
        return Region(
            tuple(
                tuple(
                    tuple(
                        ((y + 0.5) / downsample - 0.5, (x + 0.5) / downsample - 0.5)
                        for y, x in ring
                    )
                    for ring in rings
                )
                for rings in self.polygons
            )
        )

    def contains(self, y: ArrayLike, x: ArrayLike) -> NDArray[np.bool_]:
        """Whether points lie inside; (N,)."""
        points = np.stack([np.ravel(y), np.ravel(x)], axis=1).astype(np.float64)
        found = np.zeros(len(points), np.bool_)
        for rings in self.polygons:
            outer = np.array(rings[0])
            low, high = outer.min(axis=0), outer.max(axis=0)
            near = np.flatnonzero(((points >= low) & (points <= high)).all(axis=1) & ~found)
            if not near.size:
                continue
            inside = _inside(points[near], outer)
            for hole in rings[1:]:
                inside &= ~_inside(points[near], np.array(hole))
            found[near] |= inside
        return found

    def share_of_pixels(
        self, extent: tuple[int, int], step: float, *, samples: int = 16
    ) -> NDArray[np.float32]:
        """How much of each pixel of a coarse grid lies inside, 0 … 1.

        Parameters
        ----------
        extent : (int, int)
            Height and width, in the region's pixels; the last row and column of the grid may
            stand for less than a whole step, and their share is of what they stand for.
        step : float
            The region's pixels along a side of a coarse one.
        samples : int
            Lines a row of coarse pixels is looked at along; along a line shares are exact.

        Returns
        -------
        ndarray, float32, (ceil(height / step), ceil(width / step))
        """
        polygons = [[(np.array(ring) + 0.5) / step for ring in rings] for rings in self.polygons]
        return coverage(polygons, (extent[0] / step, extent[1] / step), samples=samples)

    def edge_pixels(self, extent: tuple[int, int], step: float) -> NDArray[np.bool_]:
        """Which pixels of a coarse grid an outline runs through, or close by.

        Parameters
        ----------
        extent, step
            As for :meth:`share_of_pixels`.

        Returns
        -------
        ndarray, bool, (ceil(height / step), ceil(width / step))
            Those that touch one in which a point of an outline lies, too; others are inside or
            outside as a whole.
        """
        from scipy import ndimage

        shape = max(1, math.ceil(extent[0] / step)), max(1, math.ceil(extent[1] / step))
        found = np.zeros(shape, np.bool_)
        for ring in (ring for rings in self.polygons for ring in rings):
            points = (np.array(ring) + 0.5) / step
            points, steps = _near(points, np.roll(points, -1, axis=0), shape)
            count = np.ceil(np.abs(steps).max(axis=1) * 2).astype(np.int64) + 1
            edge = np.repeat(np.arange(len(points)), count)
            along = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
            at = np.floor(points[edge] + steps[edge] * (along / count[edge])[:, None])
            at = at[((at >= -1) & (at <= shape)).all(axis=1)].astype(np.int64)
            at = np.clip(at, 0, np.array(shape) - 1)
            found[at[:, 0], at[:, 1]] = True
        near = ndimage.binary_dilation(found, np.ones((3, 3), np.bool_))
        return np.asarray(near, np.bool_)

    @property
    def ending(self) -> str:
        """Of the folder of its result: each region of a slide has one of its own."""
        return f".region-{sha256(json.dumps(self.as_geojson()).encode()).hexdigest()[:8]}.cellseg"

    def as_geojson(self) -> dict[str, object]:
        """A MultiPolygon of (x, y), as QuPath reads it."""
        return {
            "type": "MultiPolygon",
            "coordinates": [
                [[[x, y] for y, x in (*ring, ring[0])] for ring in rings] for rings in self.polygons
            ],
        }


def read_region(path: str | Path) -> Region:
    """Polygons of a GeoJSON file, as QuPath exports annotations: (x, y) in level-0 pixels.

    Raises
    ------
    InputError
        If the file cannot be read, is no GeoJSON, or holds no polygon.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8-sig"))
        return Region(tuple(_polygons(data)))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except SettingsError as error:
        raise InputError(f"{path}: {error}") from error
    except (
        ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError
    ) as error:  # fmt: skip
        raise InputError(f"{path}: no GeoJSON with polygons: {error}") from error


def _polygons(data: object) -> list[tuple[Ring, ...]]:
    if isinstance(data, list):
        return [polygon for entry in data for polygon in _polygons(entry)]
    if not isinstance(data, dict):
        raise ValueError(f"expected an object, got {type(data).__name__}")
    match data.get("type"):
        case "FeatureCollection":
            return _polygons(data["features"])
        case "Feature":
            return _polygons(data["geometry"])
        case "GeometryCollection":
            return _polygons(data["geometries"])
        case "Polygon":
            return [_rings(data["coordinates"])]
        case "MultiPolygon":
            return [_rings(rings) for rings in data["coordinates"]]
    return []  # points and lines have no area


def _rings(found: list[list[list[float]]]) -> tuple[Ring, ...]:
    if sum(len(ring) for ring in found) > POINTS_LIMIT:
        raise ValueError(f"an outline of more than {POINTS_LIMIT:,} points")
    return tuple(tuple((float(p[1]), float(p[0])) for p in ring) for ring in found)


def _area(ring: Ring) -> float:
    y, x = np.array(ring).T
    return float(np.dot(y, np.roll(x, -1)) - np.dot(x, np.roll(y, -1))) / 2


def _near(
    starts: NDArray[np.float64], ends: NDArray[np.float64], shape: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Starts and steps of what of each edge, (N, 2), lies within 2 pixels of a grid.

    Edges are cut as `Liang and Barsky, ACM Transactions on Graphics 3 (1984)` do.
    """
    steps = ends - starts
    with np.errstate(divide="ignore", invalid="ignore"):
        to_low, to_high = (-2.0 - starts) / steps, (np.array(shape) + 2.0 - starts) / steps
    enters = np.where(steps == 0, 0.0, np.minimum(to_low, to_high)).max(axis=1).clip(0)
    leaves = np.where(steps == 0, 1.0, np.maximum(to_low, to_high)).min(axis=1).clip(max=1)
    some = enters <= leaves
    first = starts + steps * enters[:, None]
    return first[some], (steps * (leaves - enters)[:, None])[some]


def _inside(points: NDArray[np.float64], ring: NDArray[np.float64]) -> NDArray[np.bool_]:
    # Here and not above: with scipy behind it, it takes most of a second to load.
    from skimage.measure import points_in_poly

    return np.asarray(points_in_poly(points, ring), np.bool_)  # type: ignore[no-untyped-call]
