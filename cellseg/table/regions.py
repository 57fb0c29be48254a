"""The totals of each region that a person drew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellseg.annotations.region import Regions, title
from cellseg.table.areas import AreaStatistics

MOST_LINES = 20
"""Regions that are told on a screen; further ones stand in ``run.json`` alone."""

_PLURALS = {"nucleus": "nuclei"}


@dataclass(frozen=True)
class RegionSummary:
    """One region's totals; a cell belongs to every region that holds its centroid.

    Attributes
    ----------
    name, kind : str
        The region's name and class; ``class`` in JSON.
    area_mm2 : float or None
        Of the region, as far as it lies on the slide; None without pixel size.
    region_px2 : float
        The same in level-0 pixels.
    tissue_mm2 : float or None
        Tissue in it; None if nobody measured it.
    cells_per_class : dict of str to int
    area_px, area_um2 : AreaStatistics or None
        Of its cells, as in :class:`cellseg.table.summary.Summary`.
    """

    name: str
    kind: str
    area_mm2: float | None
    region_px2: float
    tissue_mm2: float | None
    cells: int
    cells_per_class: dict[str, int]
    area_px: AreaStatistics | None
    area_um2: AreaStatistics | None

    @property
    def density_per_mm2(self) -> float | None:
        """Cells per mm² of the region, tissue or not; None where its area is unknown or 0."""
        return self.cells / self.area_mm2 if self.area_mm2 else None

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        found = asdict(self)
        found["class"] = found.pop("kind")
        for name, areas in (("area_px", self.area_px), ("area_um2", self.area_um2)):
            found[name] = None if areas is None else areas.as_dict()
        return {**found, "density_per_mm2": self.density_per_mm2}

    def said(self, object: str) -> str:
        """``in region tumour: 231 nuclei, 412 /mm² in 0.561 mm²``."""
        where, how_many = title(self.name, self.kind), counted(self.cells, object)
        said = f"in {where}: {how_many}{by_class(self.cells_per_class)}"
        if self.density_per_mm2 is None:
            return said
        return f"{said}, {self.density_per_mm2:,.0f} /mm² in {self.area_mm2:.3g} mm²"


class RegionTotals:
    """Makes a :class:`RegionSummary` for each region from the table's parts as they come.

    Of each cell its region, class and area are kept: 12 bytes for each region that holds it.

    Parameters
    ----------
    regions : Regions
        Cut at the slide's edges.
    mpp : float or None
        µm per pixel at level 0.
    """

    def __init__(self, regions: Regions, classes: Sequence[str], *, mpp: float | None) -> None:
        self._regions, self._mpp = regions, mpp
        self._classes = {name: number for number, name in enumerate(classes)}
        self._found: list[tuple[NDArray[Any], ...]] = []

    def add(self, table: pd.DataFrame) -> None:
        """Count some rows of ``cells.csv``."""
        cells, regions = self._regions.holding(table["centroid_y_px"], table["centroid_x_px"])
        kinds = table["class"].map(self._classes).to_numpy(np.int32)
        areas = table["area_px"].to_numpy(np.float32)
        self._found.append((regions.astype(np.int32), kinds[cells], areas[cells]))

    def build(self, tissue_mm2: Sequence[float | None] | None) -> tuple[RegionSummary, ...]:
        """The totals of all rows so far, in the regions' order.

        Parameters
        ----------
        tissue_mm2 : sequence of float, optional
            Tissue in each region.
        """
        nothing = (np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32))
        columns = zip(nothing, *self._found, strict=True)
        regions, kinds, areas = (np.concatenate(parts) for parts in columns)
        order = np.argsort(regions, kind="stable")
        ends = np.searchsorted(regions[order], np.arange(len(self._regions) + 1))
        return tuple(
            self._one(
                number,
                kinds[order[first:last]],
                areas[order[first:last]],
                None if tissue_mm2 is None or not self._mpp else tissue_mm2[number],
            )
            for number, (first, last) in enumerate(pairwise(ends.tolist()))
        )

    def _one(
        self,
        number: int,
        kinds: NDArray[np.int32],
        areas: NDArray[np.float32],
        tissue_mm2: float | None,
    ) -> RegionSummary:
        region = self._regions.each[number]
        in_px = AreaStatistics.of(areas) if areas.size else None
        counts = np.bincount(kinds, minlength=len(self._classes)).tolist()
        return RegionSummary(
            name=region.name,
            kind=region.kind,
            area_mm2=region.area_px * (self._mpp / 1000) ** 2 if self._mpp else None,
            region_px2=region.area_px,
            tissue_mm2=tissue_mm2,
            cells=len(areas),
            cells_per_class=dict(zip(self._classes, counts, strict=True)),
            area_px=in_px,
            area_um2=in_px.times(self._mpp**2) if in_px and self._mpp else None,
        )


def lines(regions: Sequence[RegionSummary], object: str) -> list[str]:
    """A line for each region, of very many the first ones."""
    said = [region.said(object) for region in regions[:MOST_LINES]]
    if more := len(regions) - len(said):
        said.append(f"and {more:,} more regions: run.json lists all")
    return said


def counted(number: int, object: str) -> str:
    """``231 nuclei``."""
    return f"{number:,} {object if number == 1 else plural(object)}"


def plural(object: str) -> str:
    """More than one of what was counted."""
    return _PLURALS.get(object, f"{object}s")


def by_class(counts: Mapping[str, int]) -> str:
    """``(120 positive, 111 negative)`` with a space before it; nothing of a single class."""
    if len(counts) < 2:
        return ""
    return f" ({', '.join(f'{count:,} {which}' for which, count in counts.items())})"
