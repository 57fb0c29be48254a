"""Regions of a slide: polygons that a person drew, with their names and classes, or of tissue."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray

from cellseg.errors import SettingsError
from cellseg.text import visible

REACH_PX = 1e8
"""No slide is as wide as this: a point beyond is in other units, or a mistake."""

MOST_MEETINGS = 1_000_000
"""Pairs of a region's sides whose boxes meet: mending so many takes 10 s and 0.5 GB."""

NAME_LENGTH = 100
"""Longer names are cut: they stand in the row of every cell."""

SEPARATOR = "; "
"""Between the names of several regions that hold a cell."""

LONGEST_PX = 2048
"""Masks with a longer side are drawn coarser."""

TOLERANCE_PX = 0.3


@dataclass(frozen=True)
class Region:
    """One region: what its polygons enclose.

    Attributes
    ----------
    shape : shapely.MultiPolygon
        Valid; (x, y) in level-0 pixels, 0 at the corner of the first pixel, as QuPath has it.
        Empty where a region lies beside the slide.
    name, kind : str
        What it is called, and its class; empty where nobody said.
    """

    shape: shapely.MultiPolygon
    name: str = ""
    kind: str = ""

    @classmethod
    def of(
        cls, outlines: Iterable[Iterable[Sequence[float]]], *, name: str = "", kind: str = ""
    ) -> Region:
        """What any of some outlines encloses.

        SettingsError if a point is no pixel, or nothing is enclosed.

        Parameters
        ----------
        outlines : iterable of (N, 2) array
            Level-0 (y, x) with pixel centres at integers, as measured centroids and napari.
        """
        rings = [np.array([*outline], np.float64).reshape(-1, 2) for outline in outlines]
        try:
            with np.errstate(invalid="ignore"):  # NaN is refused below, with a line
                polygons = [shapely.Polygon(ring[:, ::-1] + 0.5) for ring in rings]
        except (ValueError, shapely.GEOSException) as error:
            raise SettingsError("an outline of a region needs at least three points") from error
        return cls(enclosed(shapely.MultiPolygon(polygons)), name, kind)

    @classmethod
    def box(cls, y0: float, x0: float, y1: float, x1: float, *, name: str = "") -> Region:
        """A rectangle; pixel centres are integers."""
        return cls.of([[(y0, x0), (y0, x1), (y1, x1), (y1, x0)]], name=name)

    @property
    def area_px(self) -> float:
        """Level-0 px²; where outlines overlap, counted once."""
        return float(self.shape.area)

    @property
    def outlines(self) -> list[NDArray[np.float64]]:
        """Closed rings, holes among them, (N, 2) of level-0 (y, x), pixel centres at integers."""
        return [
            shapely.get_coordinates(ring)[:, ::-1] - 0.5
            for polygon in self.shape.geoms
            for ring in (polygon.exterior, *polygon.interiors)
        ]

    def contains(self, y: ArrayLike, x: ArrayLike) -> NDArray[np.bool_]:
        """Whether points lie inside or on the edge, (N,); level-0, pixel centres at integers."""
        shapely.prepare(self.shape)
        ys, xs = (np.asarray(place, np.float64) + 0.5 for place in (y, x))
        return np.asarray(shapely.intersects_xy(self.shape, xs, ys), np.bool_)

    def as_geojson(self, **more: object) -> dict[str, object]:
        """A Feature, as QuPath writes and reads annotations; ``more`` are further properties."""
        about: dict[str, object] = {"objectType": "annotation", "name": self.name, **more}
        if self.kind:
            about["classification"] = {"name": self.kind}
        geometry = shapely.geometry.mapping(self.shape)
        return {"type": "Feature", "geometry": geometry, "properties": about}


@dataclass(frozen=True)
class Regions:
    """Where to count: what lies in any of some regions, which may overlap.

    There is at least one; no two have the same name, see :meth:`of`. ``notes`` are what a person
    should know about them, one line each.
    """

    each: tuple[Region, ...]
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if not self.each:
            raise SettingsError("a count in regions needs at least one")

    @classmethod
    def of(cls, regions: Iterable[Region], *, notes: Iterable[str] = ()) -> Self:
        """Regions with names that tell them apart and fit in a table.

        Those without a name become ``region 1``, ``region 2``, …; a name that was there before
        gets a number; controls and line ends are taken out, ``;`` becomes a comma.
        """
        found, said = [*regions], [*notes]
        if cut := sum(len(_clean(region.name)) > NAME_LENGTH for region in found):
            said.append(f"{cut:,} names of regions were cut to {NAME_LENGTH} characters")
        names = _distinct([stored_name(region.name) for region in found])
        kinds = [stored_name(region.kind) for region in found]
        return cls(
            tuple(
                replace(region, name=name, kind=kind)
                for region, name, kind in zip(found, names, kinds, strict=True)
            ),
            tuple(said),
        )

    def __len__(self) -> int:
        return len(self.each)

    def __iter__(self) -> Iterator[Region]:
        return iter(self.each)

    @cached_property
    def union(self) -> shapely.MultiPolygon:
        """What lies in any of them, (x, y) as in :class:`Region`."""
        return polygons_of(shapely.union_all([region.shape for region in self.each]))

    def holding(self, y: ArrayLike, x: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which regions hold which points: pairs of indices, (P,), by point, then by region.

        Points are level-0 (N,), pixel centres at integers; one on an edge is inside.
        """
        ys, xs = (np.asarray(place, np.float64) + 0.5 for place in (y, x))
        shapes, tree = self._index
        points, regions = tree.query(shapely.points(xs, ys))
        inside = shapely.intersects_xy(shapes[regions], xs[points], ys[points])
        points, regions = points[inside], regions[inside]
        order = np.lexsort((regions, points))
        return points[order].astype(np.int64), regions[order].astype(np.int64)

    def names_at(self, y: ArrayLike, x: ArrayLike) -> list[str]:
        """For each point the names of all regions that hold it, as the column ``region``."""
        names: list[list[str]] = [[] for _ in range(np.size(y))]
        for point, region in zip(*self.holding(y, x), strict=True):
            names[point].append(self.each[region].name)
        return [SEPARATOR.join(some) for some in names]

    def on(self, height: int, width: int) -> Self:
        """The regions, cut at a slide's edges; SettingsError if all lie beside it."""
        extent = shapely.box(0, 0, width, height)
        cut, said = [], [*self.notes]
        beside, across = list[str](), list[str]()
        for region in self.each:
            if not shapely.covered_by(region.shape, extent):
                region = replace(region, shape=polygons_of(region.shape & extent))
                (beside if region.shape.is_empty else across).append(region.name)
            cut.append(region)
        size = f"the slide, which is {width:,} × {height:,} px"
        if len(beside) == len(cut):
            raise SettingsError(f"{_some(beside)} outside of {size}")
        if beside:
            said.append(f"{_some(beside)} outside of {size}: nothing is counted there")
        if across:
            said.append(f"{_some(across)} in part outside of {size}: cut at its edges")
        return type(self)(tuple(cut), tuple(said))

    def as_geojson(self) -> dict[str, object]:
        """A FeatureCollection, as QuPath writes and reads annotations."""
        features = [region.as_geojson() for region in self.each]
        return {"type": "FeatureCollection", "features": features}

    @cached_property
    def _index(self) -> tuple[NDArray[np.object_], shapely.STRtree]:
        shapes = np.array([region.shape for region in self.each], dtype=object)
        shapely.prepare(shapes)
        return shapes, shapely.STRtree(shapes)


def enclosed(shape: shapely.Geometry) -> shapely.MultiPolygon:
    """What polygons enclose, as valid ones: both halves of an 8, overlapping parts as one.

    SettingsError if a point lies on no slide, or nothing is enclosed.
    """
    places = shapely.get_coordinates(shape)
    wrong = places[~(np.abs(places) <= REACH_PX).all(axis=1)]
    if len(wrong):
        x, y = wrong[0]
        raise SettingsError(
            f"a region's points must be numbers, pixels of the slide, got ({x:.6g}, {y:.6g})"
        )
    flat = shapely.force_2d(shape)
    if not flat.is_valid:
        _refuse_tangle(flat)
        flat = shapely.make_valid(flat, method="structure", keep_collapsed=False)
    found = polygons_of(flat)
    if not found.area > 0:
        raise SettingsError("a region needs an area")
    return found


def _refuse_tangle(shape: shapely.Geometry) -> None:
    """A border of ten thousand points may cross itself fifty million times: gigabytes to mend."""
    rings = shapely.get_rings(shapely.get_parts(shapely.get_parts(shape)))
    places, ring = shapely.get_coordinates(rings, return_index=True)
    sides = shapely.linestrings(np.stack([places[:-1], places[1:]], axis=1)[np.diff(ring) == 0])
    tree, met = shapely.STRtree(sides), 0
    for first in range(0, len(sides), 256):
        met += tree.query(sides[first : first + 256]).shape[1]
        if met > MOST_MEETINGS + 10 * len(sides):
            raise SettingsError("a region crosses itself too often to be mended; draw it anew")


def polygons_of(shape: shapely.Geometry) -> shapely.MultiPolygon:
    """The polygons among the parts of a geometry; points and lines are left out."""
    parts = shapely.get_parts(shapely.get_parts(shape))
    kinds = shapely.get_type_id(parts)
    polygons = parts[kinds == shapely.GeometryType.POLYGON]
    # GEOS 3.14 ends the process over a hole without points.
    return shapely.MultiPolygon(
        [(one.exterior, [ring for ring in one.interiors if not ring.is_empty]) for one in polygons]
    )


def title(name: str, kind: str) -> str:
    """A region's name and class for a person.

    >>> title("left", "Tumor"), title("region 2", "")
    ('region left (Tumor)', 'region 2')
    """
    said = name if re.match(r"(region|hot spot)\b", name) else f"region {name}"
    return f"{said} ({kind})" if kind and kind != name else said


def _some(names: Sequence[str]) -> str:
    """``2 regions (tumour, stroma) lie``, of many the first three."""
    shown = ", ".join([*names[:3], *(["…"] if len(names) > 3 else [])])
    one = len(names) == 1
    return f"{len(names):,} region{'' if one else 's'} ({shown}) {'lies' if one else 'lie'}"


def _clean(name: str) -> str:
    """A name that stands in a table's cell beside others."""
    return visible(" ".join(name.split())).replace(";", ",")


def stored_name(name: str) -> str:
    """A region's name or class as tables hold it, before names are made distinct."""
    name = _clean(name)
    return name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…"


def _distinct(names: Sequence[str]) -> list[str]:
    """Names that are there once stay; numbers make the others new."""
    taken = set(names)
    given: dict[str, None] = {}
    numbers: Counter[str] = Counter()
    for name in names:
        chosen = name
        while chosen in given or not chosen:
            numbers[name] += 1
            trial = f"{name} ({numbers[name] + 1})" if name else f"region {numbers[name]}"
            chosen = "" if trial in taken else trial
        given[chosen] = None
    return [*given]


def tissue_outline(
    mask: NDArray[np.bool_], *, downsample: float, within: tuple[int, int]
) -> dict[str, object] | None:
    """``tissue.geojson``: the outlines of a mask, (h, w), holes included; None for an empty one.

    A GeoJSON MultiPolygon of (x, y) in level-0 pixels, 0 at the corner of the first pixel, as
    QuPath has it. ``downsample`` are level-0 pixels along a side of a mask pixel. ``within`` are
    height and width of the slide, level-0 pixels: the mask's last pixels may stand out of it.
    """
    # Here and not above: with scipy behind it, it takes most of a second to load.
    from skimage.measure import block_reduce, find_contours

    step = -(-max(mask.shape) // LONGEST_PX)
    mask = block_reduce(mask, step, np.mean) >= 0.5  # type: ignore[no-untyped-call]
    pixel = downsample * step
    contours = find_contours(np.pad(mask, 1).astype(np.float32), 0.5)  # type: ignore[no-untyped-call]
    lines = [shapely.LineString((line[:, ::-1] - 0.5) * pixel) for line in contours]
    drawn = shapely.simplify(
        shapely.build_area(shapely.MultiLineString(lines)), TOLERANCE_PX * pixel
    )
    inside = shapely.clip_by_rect(drawn, 0, 0, *within[::-1])
    found = polygons_of(shapely.set_precision(inside, 0.1))
    return None if found.is_empty else dict(shapely.geometry.mapping(found))
