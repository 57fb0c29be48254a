"""How large cells are, the totals of each region that a person drew, how counts are said."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cellseg.annotations.region import title
from cellseg.text import visible

QUANTILES_PERCENT = (5, 25, 50, 75, 95)

MOST_LINES = 20
"""Regions that are told on a screen; further ones stand in ``run.json`` alone."""

_PLURALS = {"nucleus": "nuclei"}


@dataclass(frozen=True)
class AreaStatistics:
    """How large the cells are.

    Attributes
    ----------
    mean, std, minimum, maximum : float
        ``std`` with divisor n.
    quantiles : dict of int to float
        Percent to area, for :data:`QUANTILES_PERCENT`, linear between cells.
    """

    mean: float
    std: float
    minimum: float
    maximum: float
    quantiles: dict[int, float]

    @property
    def median(self) -> float:
        return self.quantiles[50]

    @classmethod
    def of(cls, areas: NDArray[np.float32]) -> AreaStatistics:
        """Statistics of at least one area; sums are made in float64."""
        points = np.percentile(areas, QUANTILES_PERCENT).tolist()
        return cls(
            mean=float(areas.mean(dtype=np.float64)),
            std=float(areas.std(dtype=np.float64)),
            minimum=float(areas.min()),
            maximum=float(areas.max()),
            quantiles=dict(zip(QUANTILES_PERCENT, points, strict=True)),
        )

    def times(self, factor: float) -> AreaStatistics:
        """The statistics in another unit."""
        numbers = (self.mean, self.std, self.minimum, self.maximum)
        quantiles = {percent: area * factor for percent, area in self.quantiles.items()}
        mean, std, minimum, maximum = (number * factor for number in numbers)
        return AreaStatistics(mean, std, minimum, maximum, quantiles)


@dataclass(frozen=True)
class RegionSummary:
    """One region's totals; a cell belongs to every region that holds its centroid.

    Attributes
    ----------
    area_mm2 : float or None
        Of the region, as far as it lies on the slide; None without pixel size.
    region_px2 : float
        The same in level-0 pixels.
    tissue_mm2 : float or None
        Tissue in it; None if nobody measured it.
    area_px, area_um2 : AreaStatistics or None
        Of its cells, as in :class:`cellseg.table.summary.Summary`.
    """

    name: str
    kind: Annotated[str, Field(alias="class")]
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

    def said(self, object: str) -> str:
        """``in region tumour: 231 nuclei, 412 /mm² in 0.561 mm²``."""
        where, how_many = title(self.name, self.kind), counted(self.cells, object)
        said = f"in {where}: {how_many}{by_class(self.cells_per_class)}"
        if self.density_per_mm2 is None:
            return said
        return f"{said}, {self.density_per_mm2:,.0f} /mm² in {self.area_mm2:.3g} mm²"


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


def told(value: object) -> str:
    """A value of the table for a person; empty where it is missing."""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        number = float(value)
        if math.isnan(number):
            return ""
        return f"{number:,.1f}" if abs(number) >= 1000 else f"{number:.4g}"
    return visible(str(value))


def by_class(counts: Mapping[str, int]) -> str:
    """``(120 positive, 111 negative)`` with a space before it; nothing of a single class."""
    if len(counts) < 2:
        return ""
    return f" ({', '.join(f'{count:,} {which}' for which, count in counts.items())})"
