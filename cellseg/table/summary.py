"""Totals of a slide and of each region that a person drew, and how they are said."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter

from cellseg.annotations.region import Regions, title
from cellseg.table.hotspot import HOT
from cellseg.text import visible

QUANTILES_PERCENT = (5, 25, 50, 75, 95)

MOST_LINES = 20
"""Regions that are told on a screen; further ones stand in ``run.json`` alone."""

_PLURALS = {"nucleus": "nuclei"}
_FLAGS = ("touches_border", "stitched")


@dataclass(frozen=True)
class AreaStatistics:
    """How large the cells are; ``std`` with divisor n.

    ``quantiles`` are per cent to area, for :data:`QUANTILES_PERCENT`, linear between cells.
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
        ends = self.minimum * factor, self.maximum * factor
        quantiles = {percent: area * factor for percent, area in self.quantiles.items()}
        return AreaStatistics(self.mean * factor, self.std * factor, *ends, quantiles)


@dataclass(frozen=True)
class RegionSummary:
    """One region's totals; a cell belongs to every region that holds its centroid.

    What has the name of a field of :class:`Summary` means the same, of the region's cells.
    """

    name: str
    kind: Annotated[str, Field(alias="class")]
    area_mm2: float | None  # As far as it lies on the slide; None without pixel size.
    region_px2: float  # The same in level-0 pixels.
    tissue_mm2: float | None  # Tissue in it; None if nobody measured it.
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


@dataclass(frozen=True)
class Summary:
    """A slide's totals.

    ``labelling`` has for each marker its thresholds, positive cells, index and H-score, see
    :meth:`cellseg.derive.Classification.scores`; it is empty without classes by measurement.
    ``corrected_per_class`` is of classes that were taught: how many cells by their probabilities,
    lower and upper end. The 95 % interval allows for the confusion of the clicked cells.
    """

    object: str  # What was counted: nucleus or cell.
    cells: int
    cells_per_class: dict[str, int]  # In the model's order, classes without cells included.
    touching_border: int  # Cells at the slide's own edge.
    stitched: int  # Cells joined from parts.
    tissue_mm2: float | None  # That was looked at; None without pixel size, or if not measured.
    area_px: AreaStatistics | None  # In level-0 pixels; None without cells.
    area_um2: AreaStatistics | None  # None without cells or without pixel size.
    skipped_share: float | None = None  # Of the slide's area, as background; None if nobody looked.
    cells_interval: tuple[int, int] | None = None  # 95 % for the true number, where calibrated.
    regions: tuple[RegionSummary, ...] = ()  # Where the count was of some.
    labelling: tuple[Mapping[str, Any], ...] = ()
    corrected_per_class: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Summary:
        """Back from :meth:`as_dict`; a ValueError where something is missing or of another type."""
        return _SUMMARY.validate_python(found)

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON: only dicts with text keys, numbers, text and None."""
        found = _SUMMARY.dump_python(self, mode="json", by_alias=True)
        found["density_per_mm2"] = self.density_per_mm2
        found["density_per_mm2_per_class"] = self.density_per_mm2_per_class
        for entry, region in zip(found["regions"], self.regions, strict=True):
            entry["density_per_mm2"] = region.density_per_mm2
        return cast("dict[str, Any]", found)

    @property
    def density_per_mm2(self) -> float | None:
        """Cells per mm² of tissue; None where the tissue's area is unknown or 0."""
        return self.cells / self.tissue_mm2 if self.tissue_mm2 else None

    @property
    def density_per_mm2_per_class(self) -> dict[str, float] | None:
        """Cells of each class per mm² of tissue."""
        tissue = self.tissue_mm2
        if not tissue:
            return None
        return {name: count / tissue for name, count in self.cells_per_class.items()}

    @property
    def plural(self) -> str:
        return plural(self.object)

    def said_corrected(self) -> list[str]:
        """Classes that were taught, with their intervals."""
        return [
            f"{name} {expected:,} by probability (95 %: {low:,} … {high:,})"
            for name, (expected, low, high) in self.corrected_per_class.items()
        ]

    def __str__(self) -> str:
        return self.said()

    def said(self, ground: str = "tissue") -> str:
        """One sentence for people; ``ground`` is what ``tissue_mm2`` is the area of."""
        parts = [counted(self.cells, self.object)]
        if self.cells_interval is not None:
            parts[0] += " (95 %: {:,} … {:,})".format(*self.cells_interval)
        parts[0] += by_class(self.cells_per_class)
        parts += [labelled(marker) for marker in self.labelling]
        parts += self.said_corrected()
        if self.area_um2 is not None:
            parts.append(f"median area {self.area_um2.median:.1f} µm²")
        elif self.area_px is not None:
            parts.append(f"median area {self.area_px.median:.0f} px²")
        if self.tissue_mm2 is not None and self.density_per_mm2 is not None:
            where = f"{self.tissue_mm2:.3g} mm² of {ground}"
            parts.append(f"{self.density_per_mm2:,.0f} per mm² in {where}")
        if self.skipped_share:
            where = "regions" if any(one.kind != HOT for one in self.regions) else "slide"
            parts.append(f"{100 * self.skipped_share:.1f} % of the {where} skipped as background")
        return ", ".join(parts)


_SUMMARY = TypeAdapter(Summary)


def summarised(
    table: pd.DataFrame,
    classes: Sequence[str],
    *,
    object: str,
    mpp: float | None,
    regions: Regions | None = None,
    tissue_mm2: float | None = None,
    skipped_share: float | None = None,
    interval: tuple[float, float] | None = None,
    tissue_mm2_in_regions: Sequence[float | None] | None = None,
) -> Summary:
    """The totals of a slide's cells; a ValueError if a row's class is none of ``classes``.

    The table, (N, …), holds rows of ``cells.csv``; ``touches_border`` and ``stitched`` may be
    missing. ``classes`` are all that it may hold, in order. Regions, cut at the slide's edges, get
    totals of their own; ``tissue_mm2_in_regions`` is the tissue in each, None where nobody measured
    it. The true number is the count times something between the factors ``interval``; see
    :class:`cellseg.protocol.Calibration`.
    """
    index = pd.Index(list(dict.fromkeys(classes)))
    kinds = index.get_indexer(pd.Index(table["class"]))
    if (kinds < 0).any():
        unknown = table["class"].iloc[int(kinds.argmin())]
        raise ValueError(f"unknown class {unknown!r}, expected one of {list(index)}")
    areas = table["area_px"].to_numpy(np.float32)

    def totals(which: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever indexes cells
        part = areas[which]
        in_px = AreaStatistics.of(part) if part.size else None
        counts = np.bincount(kinds[which], minlength=len(index)).tolist()
        return {
            "cells": int(part.size),
            "cells_per_class": dict(zip(index, counts, strict=True)),
            "area_px": in_px,
            "area_um2": in_px.times(mpp**2) if in_px and mpp else None,
        }

    each, in_regions = [], dict(enumerate(tissue_mm2_in_regions or ()))
    if regions is not None:
        cells, numbers = regions.holding(table["centroid_y_px"], table["centroid_x_px"])
        order = np.argsort(numbers, kind="stable")
        ends = np.searchsorted(numbers[order], np.arange(1, len(regions)))
        for number, inside in enumerate(np.split(cells[order], ends)):
            region = regions.each[number]
            each.append(
                RegionSummary(
                    name=region.name,
                    kind=region.kind,
                    area_mm2=region.area_px * (mpp / 1000) ** 2 if mpp else None,
                    region_px2=region.area_px,
                    tissue_mm2=in_regions.get(number) if mpp else None,
                    **totals(inside),
                )
            )
    rounded = None
    if interval is not None:
        rounded = math.floor(areas.size * interval[0]), math.ceil(areas.size * interval[1])
    flags = [int(table[name].sum()) if name in table else 0 for name in _FLAGS]
    return Summary(
        object=object,
        touching_border=flags[0],
        stitched=flags[1],
        tissue_mm2=tissue_mm2 if mpp else None,
        skipped_share=skipped_share,
        cells_interval=rounded,
        regions=tuple(each),
        **totals(np.s_[:]),
    )


def labelled(marker: Mapping[str, Any]) -> str:
    """What a person reads of one marker's scores."""
    if marker["index"] is None:
        return f"{marker['name']}: no cell was measured"
    said, sure = f"{marker['name']} {100 * marker['index']:.1f} % positive", []
    if marker["index_interval"] is not None:
        sure.append("95 %: {:.1f} … {:.1f} %".format(*(100 * v for v in marker["index_interval"])))
    if marker.get("index_nearby"):
        near = "{:.1f} and {:.1f} %".format(*(100 * v for v in marker["index_nearby"]))
        sure.append(f"at 0.8 and 1.25 times the threshold {near}")
    said += f" ({'; '.join(sure)})" if sure else ""
    if marker["h_score"] is not None:
        said += f", H-score {marker['h_score']:.0f}, Allred {marker['allred']}"
    return said
