"""Cores of a tissue microarray: the grid in a mask of tissue, and what lies at each of its places.

The mask's autocorrelation gives the pitch and the turn, also of cores that are torn or touch each
other. The grid then grows from the middle: all tissue belongs to the nearest place, and the places
follow their tissue, so that a bent grid is followed too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import shapely
from numpy.typing import NDArray

from cellseg.annotations.region import Region, Regions
from cellseg.errors import SettingsError

LONGEST_PX = 900
"""Longer masks are made coarser before a grid is looked for."""

MOST_DEGREES = 12.0
"""By which a grid may be turned."""

LEAST_CORES = 6

LEAST_TISSUE, TORN_TISSUE = 0.18, 0.6
"""Of a usual core's tissue: with less a core is missing, or torn."""

LEAST_OUTSIDE = 0.3
"""Of a usual core's tissue: with less it makes no row or column of its own."""

LEAST_PX, FITTED_PX = 100, 30_000
"""Pixels of tissue that are wanted, and with about how many a grid is fitted."""

MOST_PLACES = 10_000

TORN = "torn"
"""The class of the region of a torn core."""

MOST_LONG, MOST_UNLIKE, LEAST_WHOLE, MOST_MISSING, MOST_OFF = 1.3, 0.36, 0.65, 0.5, 0.2
"""Mean square distance of a core's pixels from its centre, as of a disc; standard deviation of
sizes; share of whole cores; share of places with a core; distance from the places in pitches.
Drawn arrays have 1.16, 0.25, 0.84, 0.77 and 0.17 at worst (tests/annotations/test_cores.py)."""

_NO_GRID = "no grid of cores was found"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CoreGrid:
    """The cores of an array.

    Each has, by its name, an outline, and whether it is torn; they go row by row. Outlines are
    (x, y) in mask pixels, 0 at the corner of the first one. ``A1`` is the first place of the first
    row that holds a core.
    """

    cores: dict[str, tuple[shapely.Polygon, bool]]
    rows: int
    columns: int
    degrees: float  # By which the grid is turned, clockwise.

    @property
    def missing(self) -> list[str]:
        """Places without a core."""
        names = [name_of(row, column) for row in range(self.rows) for column in range(self.columns)]
        return [name for name in names if name not in self.cores]

    @property
    def torn(self) -> list[str]:
        """Cores that lost much of their tissue."""
        return [name for name, (_, is_torn) in self.cores.items() if is_torn]

    def regions(self, pixel: float) -> Regions:
        """A region each; ``pixel`` is the side of a mask pixel, level-0 pixels."""
        return Regions.of(
            Region(
                shapely.MultiPolygon([shapely.transform(shape, lambda points: points * pixel)]),
                name,
                TORN if is_torn else "",
            )
            for name, (shape, is_torn) in self.cores.items()
        )

    def as_dict(self) -> dict[str, object]:
        """Ready for JSON, as ``array`` of ``run.json``."""
        size = {"rows": self.rows, "columns": self.columns, "degrees": round(self.degrees, 2)}
        return {**size, "missing": self.missing, "torn": self.torn}

    def __str__(self) -> str:
        """One line for a person."""
        said = f"an array of {self.rows} × {self.columns} places, {len(self.cores)} cores"
        if abs(self.degrees) >= 0.5:
            said += f", turned by {self.degrees:.1f}°"
        for what, names in (("missing", self.missing), ("torn", self.torn)):
            if names:
                said += f"; {what}: {', '.join(names[:12])}{', …' * (len(names) > 12)}"
        return said


def name_of(row: int, column: int) -> str:
    """``A1`` for the first place; ``AA1`` follows ``Z1``."""
    letters = ""
    while row >= 0:
        letters, row = chr(ord("A") + row % 26) + letters, row // 26 - 1
    return f"{letters}{column + 1}"


def find_cores(tissue: NDArray[np.bool_]) -> CoreGrid:
    """Find the grid of an array's cores.

    Pixels of tissue, (H, W), are square; a core measures 10 of them or more. SettingsError if it
    lies in no grid; says why.
    """
    from skimage.measure import block_reduce  # late, as scipy below: it takes a second to load

    step = -(-max(tissue.shape) // LONGEST_PX)
    coarse = block_reduce(tissue, step, np.mean) >= 0.5  # type: ignore[no-untyped-call]
    points = np.argwhere(coarse).astype(np.float64) + 0.5
    if len(points) < LEAST_PX:
        raise SettingsError(f"{_NO_GRID}: there is hardly any tissue")
    grid = _grown(points, _pitches(coarse))
    usual = _usual(grid.areas)
    held = grid.areas >= LEAST_TISSUE * usual
    # Bits of tissue beside an array make no row or column of their own.
    outermost = grid.places[grid.areas >= LEAST_OUTSIDE * usual]
    first, last = outermost.min(axis=0), outermost.max(axis=0)
    held &= ((grid.places >= first) & (grid.places <= last)).all(axis=1)
    rows, columns = (last - first + 1).tolist()
    _check(grid, held, rows, columns)
    cores = {}
    for one in np.flatnonzero(held)[np.lexsort(grid.places[held].T[::-1])].tolist():
        name = name_of(*(grid.places[one] - first).tolist())
        outline = shapely.transform(grid.outline(one), lambda xy: xy * step)
        cores[name] = outline, bool(grid.areas[one] < TORN_TISSUE * usual)
    degrees = np.rad2deg(np.arctan2(*grid.pitches[1]))
    return CoreGrid(cores, rows, columns, float(degrees))


def _pitches(mask: NDArray[np.bool_]) -> Floats:
    """Steps to the next row and to the next column, (2, 2) of (y, x), by the autocorrelation."""
    from scipy.ndimage import gaussian_filter
    from scipy.signal import fftconvolve, find_peaks

    height, width = mask.shape
    field = mask.astype(np.float32)
    found = fftconvolve(field, field[::-1, ::-1])[height - 1 :]
    y, x = np.mgrid[:height, -width + 1 : width]
    away, angle = np.hypot(y, x), np.rad2deg(np.arctan2(y, x))
    steps = []
    for off in (angle - 90, np.where(angle > 90, angle - 180, angle)):
        wedge = np.abs(off) <= MOST_DEGREES
        longest = int(away[wedge].max())
        near = np.minimum(away, longest).astype(np.int64)
        most = np.zeros(longest + 1)
        np.maximum.at(most, near[wedge], found[wedge])
        most[0] = found[0, width - 1]
        smooth = gaussian_filter(most, 1.5)
        peaks, _ = find_peaks(smooth)
        peak = smooth[peaks].max(initial=0.0)
        if peak < 0.15 * smooth[0]:
            raise SettingsError(f"{_NO_GRID}: the tissue does not repeat at equal distances")
        # Missing cores let a multiple of the pitch stand out: the first of the high ones.
        high = peaks[np.argmax(smooth[peaks] >= 0.7 * peak)]
        ring = wedge & (np.abs(away - high) <= max(2.0, 0.1 * high))
        row, column = np.argwhere(ring)[found[ring].argmax()]
        step = np.array([y[row, column], x[row, column]], np.float64)
        steps.append(step if step.sum() > 0 else -step)
    return np.stack(steps)


@dataclass(frozen=True, eq=False)
class _Grid:
    """P places on a plane that hold tissue, and its N pixels. All points are (y, x)."""

    pitches: Floats  # (2, 2): steps to the next row and to the next column.
    origin: Floats  # (2,): place (0, 0).
    points: Floats  # (N, 2): pixels of tissue.
    number: NDArray[np.int64]  # (N,): which of the places each belongs to.
    places: NDArray[np.int64]  # (P, 2): row and column, counted from anywhere.
    areas: Floats  # (P,): pixels of tissue.
    centres: Floats  # (P, 2): the centre of these.

    @classmethod
    def of(
        cls, points: Floats, pitches: Floats, origin: Floats, before: _Grid | None = None
    ) -> _Grid:
        """Give each pixel to the nearest place, as far as the cores ``before`` bend the grid."""
        from scipy.spatial import cKDTree

        at = np.round((points - origin) @ np.linalg.inv(pitches)).astype(np.int64)
        low, high = at.min(axis=0) - 1, at.max(axis=0) + 2
        if np.prod(high - low) > MOST_PLACES:
            raise SettingsError(f"{_NO_GRID}: the tissue repeats at too short a distance")
        places = np.indices(high - low).reshape(2, -1).T + low
        centres = places @ pitches + origin
        if before is not None:
            off = before.centres - before.places @ pitches - origin
            weight = np.exp(-((places[:, None] - before.places) ** 2).sum(axis=2) / 2)
            weight *= np.minimum(before.areas / _usual(before.areas), 1.0)
            centres += weight @ off / (weight.sum(axis=1, keepdims=True) + 0.5)
        which, number, areas = np.unique(
            cKDTree(centres).query(points)[1], return_inverse=True, return_counts=True
        )
        sums = np.stack([np.bincount(number, points[:, axis]) for axis in (0, 1)], axis=1)
        held = areas.astype(np.float64)
        return cls(pitches, origin, points, number, places[which], held, sums / held[:, None])

    @property
    def off(self) -> Floats:
        """How far cores lie from the places of an even grid, (P,), in pitches."""
        away = self.centres - self.places @ self.pitches - self.origin
        return np.asarray(np.hypot(*away.T) / np.linalg.norm(self.pitches, axis=1).min())

    def outline(self, place: int) -> shapely.Polygon:
        """The convex hull of a place's tissue, (x, y)."""
        pixels = self.points[self.number == place]
        corners = np.array([[-0.5, -0.5], [-0.5, 0.5], [0.5, -0.5], [0.5, 0.5]])
        cornered = (pixels[:, None] + corners).reshape(-1, 2)
        return shapely.convex_hull(shapely.MultiPoint(cornered[:, ::-1]))


def _grown(points: Floats, pitches: Floats) -> _Grid:
    """Fit a grid to the tissue around the middle, then farther and farther out."""
    middle = points.mean(axis=0)
    at = (points - middle) @ np.linalg.inv(pitches)
    near = np.abs(at).max(axis=1) <= 2.5
    phase = np.angle(np.exp(2j * np.pi * at[near]).mean(axis=0)) / (2 * np.pi)
    some = points[:: -(-len(points) // FITTED_PX)]
    grid = _Grid.of(some, pitches, middle + phase @ pitches)
    reach = int(np.abs(at).max()) + 2
    for within in (*range(2, reach, 2), reach, reach):
        kept = (grid.areas >= 0.5 * _usual(grid.areas)) & (np.abs(grid.places) <= within).all(
            axis=1
        )
        places, centres = grid.places[kept], grid.centres[kept]
        known = np.column_stack([places, np.ones(len(places))])
        fitted, _, rank, _ = np.linalg.lstsq(known, centres)
        if rank == 3:
            pitches = _square(fitted[:2], places.var(axis=0))
            origin = (centres - places @ pitches).mean(axis=0)
            known_cores = replace(grid, places=places, areas=grid.areas[kept], centres=centres)
            grid = _Grid.of(some, pitches, origin, known_cores)
    return _Grid.of(points, grid.pitches, grid.origin, grid)


def _square(pitches: Floats, spread: Floats) -> Floats:
    """Steps at a right angle: a few bowed rows must not turn into slanting columns.

    The ``spread`` of known rows and columns, (2,), says how much the turn of each counts.
    """
    (dy, dx), (ay, ax) = pitches
    down, across = np.hypot(dy, dx), np.hypot(ay, ax)
    weight = spread * (down**2, across**2)
    turn = float(np.average([np.arctan2(-dx, dy), np.arctan2(ay, ax)], weights=weight))
    cos, sin = np.cos(turn), np.sin(turn)
    return np.array([[down * cos, -down * sin], [across * sin, across * cos]])


def _usual(areas: Floats) -> float:
    """Half of the tissue lies in cores that are larger."""
    ordered = np.sort(areas)
    return float(ordered[np.searchsorted(ordered.cumsum(), ordered.sum() / 2)])


def _check(grid: _Grid, held: NDArray[np.bool_], rows: int, columns: int) -> None:
    """Refuse what is no grid; the limits lie between drawn arrays and drawn sections."""
    areas = grid.areas[held]
    whole = np.flatnonzero(held & (grid.areas >= TORN_TISSUE * _usual(areas)))
    spread = [
        ((grid.points[grid.number == one] - grid.centres[one]) ** 2).sum(axis=1).mean()
        for one in whole.tolist()
    ]
    # A disc's pixels lie √(area / 2π) from its centre.
    long = float(np.median(np.array(spread) / grid.areas[whole])) * 2 * np.pi
    if len(areas) < LEAST_CORES or min(rows, columns) < 2:
        why = f"{len(areas)} pieces of tissue in {rows} × {columns} places are too few"
    elif len(areas) < MOST_MISSING * rows * columns:
        why = f"{rows} × {columns} places hold only {len(areas)} pieces of tissue"
    elif long > MOST_LONG or areas.std() > MOST_UNLIKE * areas.mean():
        why = "the pieces of tissue are no discs of one size"
    elif len(whole) < LEAST_WHOLE * len(areas):
        why = "most pieces of tissue are far smaller than the largest"
    elif np.sqrt((grid.off[whole] ** 2).mean()) > MOST_OFF:
        why = "the pieces of tissue lie in no rows and columns"
    else:
        return
    raise SettingsError(f"{_NO_GRID}: {why}")
