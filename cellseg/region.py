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

from cellseg._scanline import coverage, length
from cellseg.errors import InputError, SettingsError

Point = tuple[float, float]
Ring = tuple[Point, ...]

POINTS_LIMIT = 1_000_000

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
        If there is no polygon, or one without area.
    """

    polygons: tuple[tuple[Ring, ...], ...]

    def __post_init__(self) -> None:
        if not self.polygons:
            raise SettingsError("a region needs at least one outline")
        points = [point for rings in self.polygons for ring in rings for point in ring]
        if any(not (math.isfinite(y) and math.isfinite(x)) for y, x in points):
            raise SettingsError("a region's points must be numbers")
        if any(len(ring) < 3 for rings in self.polygons for ring in rings):
            raise SettingsError("an outline of a region needs at least three points")
        if self.area_px <= 0:
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
        """Of the outlines less their holes; where outlines overlap, counted twice."""
        return sum(
            abs(_area(rings[0])) - sum(abs(_area(hole)) for hole in rings[1:])
            for rings in self.polygons
        )

    @property
    def covered_px(self) -> float:
        """Area that lies in any of the polygons: where they overlap, counted once."""
        top, left, bottom, _ = self.bounds
        high = (bottom - top) / _LINES
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
            steps = np.roll(points, -1, axis=0) - points
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
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
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


def _inside(points: NDArray[np.float64], ring: NDArray[np.float64]) -> NDArray[np.bool_]:
    # Here and not above: with scipy behind it, it takes most of a second to load.
    from skimage.measure import points_in_poly

    return np.asarray(points_in_poly(points, ring), np.bool_)  # type: ignore[no-untyped-call]
