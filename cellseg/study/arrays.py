"""Places in rows and columns: wells of plates (``wells.csv``), cores of microarrays, heat maps."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from cellseg.annotations.cores import name_of
from cellseg.draw.overview import nice_ceiling, viridis
from cellseg.palette import as_hex
from cellseg.result import Result
from cellseg.slide.formats import plate_of, well_of
from cellseg.storage import Location
from cellseg.study.folder import WELLS, Study, write_table
from cellseg.study.rows import SummaryRow
from cellseg.text import visible

MOST_SIDE = 100
"""Rows or columns of an array; more are no array's."""

_SIDES = ((2, 3), (3, 4), (4, 6), (6, 8), (8, 12), (16, 24), (32, 48))
"""Rows and columns of the plates that are sold."""

_TITLES = {
    "cells_mean": "cells a site",
    "area_um2_p50_mean": "median area, µm²",
    "area_px_p50_mean": "median area, px²",
}
"""What is mapped beside the positive shares."""

_WELL = re.compile(r"([A-Z]{1,2})(\d{1,3})")


def write_wells(study: Study) -> Location | None:
    """Write ``wells.csv`` where images are fields of plates; returns its place."""
    rows = wells_of(study)
    if not rows:
        return None
    columns = [*dict.fromkeys(name for row in rows for name in row)]
    return write_table(study, WELLS, columns, [[*map(row.get, columns)] for row in rows])


def wells_of(study: Study) -> list[dict[str, Any]]:
    """A row a well: sums over its sites, then means and standard deviations between them.

    Positive shares are weighted by the cells of each site. Of several time points each has a row.
    """
    wells: dict[tuple[str, str, int], list[SummaryRow]] = {}
    for row in study.rows:
        place = Path(row["path"])
        if not row.get("region") and (well := well_of(place)):
            t = row.get("t")
            key = visible(plate_of(place)), visible(well), -1 if t is None else t
            wells.setdefault(key, []).append(row)
    each = sorted(wells.items(), key=lambda item: item[0])
    return [
        _row(plate, well, sites) | ({} if t < 0 else {"t": t}) for (plate, well, t), sites in each
    ]


def _row(plate: str, well: str, rows: list[SummaryRow]) -> dict[str, Any]:
    sites = [row for row in rows if row["status"] != "failed"]
    counts = [row["cells"] for row in sites]
    out: dict[str, Any] = {
        "plate": plate,
        "well": well,
        "sites": len(sites),
        "sites_failed": len(rows) - len(sites),
        "cells": sum(counts) if sites else None,
        **_spread("cells", counts),
    }
    for name in dict.fromkeys(name for row in sites for name in row["classes"]):
        out[f"cells_{name}"] = sum(row["classes"].get(name, 0) for row in sites)
    for name in dict.fromkeys(name for row in sites for name in row["markers"]):
        title = f"positive_percent_{name}"
        shares = [
            (share, row["cells"])
            for row in sites
            if (share := row["markers"].get(name, {}).get("positive_percent")) is not None
        ]
        weight = sum(cells for _, cells in shares)
        out[title] = sum(share * cells for share, cells in shares) / weight if weight else None
        out |= _spread(title, [share for share, _ in shares])
    for name in ("density_per_mm2", "area_um2_p50", "area_px_p50"):
        if known := [row[name] for row in sites if row.get(name) is not None]:
            out |= _spread(name, known)
    return out


def _spread(name: str, values: list[float]) -> dict[str, float | None]:
    return {
        f"{name}_mean": fmean(values) if values else None,
        f"{name}_std": stdev(values) if len(values) > 1 else None,
    }


def well_maps(study: Study) -> Iterator[HeatMap]:
    """Maps of each plate at its last time point: cells a site, positive shares, median areas."""
    plates: dict[str, dict[str, dict[str, Any]]] = {}
    for row in wells_of(study):
        if found := _WELL.fullmatch(row["well"]):
            plates.setdefault(row["plate"], {})[f"{found[1]}{int(found[2])}"] = row
    for plate, wells in plates.items():
        names = [([name_of(r, c) for r in range(h) for c in range(w)], (h, w)) for h, w in _SIDES]
        sides = next((sides for known, sides in names if wells.keys() <= {*known}), None)
        keys = dict.fromkeys(key for row in wells.values() for key in row)
        if "area_um2_p50_mean" in keys:
            keys.pop("area_px_p50_mean", None)
        if sides is None:
            continue
        for key in keys:
            title = _TITLES.get(key)
            if key.startswith("positive_percent_") and not key.endswith(("_mean", "_std")):
                title = f"{key.removeprefix('positive_percent_')}, % positive"
            if title is not None:
                values = {name: row.get(key) for name, row in wells.items()}
                partial = {name for name, row in wells.items() if row["sites_failed"]}
                yield HeatMap.of(f"{plate}: {title}", sides, values, partial)


def core_maps(result: Result, rows: Sequence[SummaryRow]) -> Iterator[HeatMap]:
    """Maps of density and of each marker's index; none where the slide is no microarray."""
    array = result.section("array")
    found = [array.get(name) for name in ("rows", "columns")]
    sides = [side for side in found if isinstance(side, int) and 0 < side <= MOST_SIDE]
    if len(sides) < 2:
        return
    cores = {row["region"]: row for row in rows if row.get("region")}
    densities = {name: row["density_per_mm2"] for name, row in cores.items()}
    yield HeatMap.of("cells per mm²", sides, densities)
    for marker in dict.fromkeys(name for row in cores.values() for name in row["markers"]):
        shares = {
            name: row["markers"].get(marker, {}).get("positive_percent")
            for name, row in cores.items()
        }
        yield HeatMap.of(f"{marker}, % positive", sides, shares)


@dataclass(frozen=True)
class HeatMap:
    """What is shown, what the brightest colour stands for, and the fields row by row.

    A field is its name, its value for people, and its colours; without a colour none is there.
    """

    title: str
    top: str
    fields: list[list[tuple[str, str, str, str]]]

    @classmethod
    def of(
        cls,
        title: str,
        sides: Sequence[int],
        values: Mapping[str, float | None],
        partial: Container[str] = (),
    ) -> HeatMap:
        """A map of values by place, ``A1`` the first, on ``sides`` rows and columns.

        Places of which a part failed, ``partial``, have an asterisk.
        """
        top = nice_ceiling(max([value for value in values.values() if value] or [1.0]))

        def field(name: str) -> tuple[str, str, str, str]:
            value, mark = values.get(name), "*" * (name in partial)
            if value is None:
                return name, f"–{mark}" if name in values else "", "", "#000000"
            level = value / top
            red, green, blue = viridis(np.array([level]))[0].tolist()
            ink = "#000000" if level > 0.6 else "#ffffff"
            return name, f"{value:,.0f}{mark}", as_hex((red, green, blue)), ink

        rows, columns = sides
        fields = [[field(name_of(row, column)) for column in range(columns)] for row in range(rows)]
        return cls(title, f"{top:,.0f}", fields)
