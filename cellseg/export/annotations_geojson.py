"""``annotations.geojson``: an annotation a region, for QuPath: counted in, drawn, or a hot spot."""

from __future__ import annotations

from pathlib import Path

from cellseg.derive.derive import totals_in
from cellseg.derive.places import drawn_regions, marked
from cellseg.result.files import write_json
from cellseg.result.result import Result


def write(result: Result, path: Path) -> None:
    """Write the regions of a result, with their counts as measurements; it may have none."""
    features = []
    for regions in (marked(result), drawn_regions(result)):
        if regions is None:
            continue
        totals = totals_in(result, regions)
        for region, total in zip(regions, totals.regions, strict=True):
            if region.shape.is_empty:
                continue
            values: dict[str, float | None] = {"cells": total.cells}
            values["cells per mm²"] = total.density_per_mm2
            values |= {f"cells {name}": count for name, count in total.cells_per_class.items()}
            for marker in totals.labelling:
                found = marker["regions"].get(region.name, {})
                values[f"{marker['name']} index"] = found.get("index")
            about = {name: value for name, value in values.items() if value is not None}
            features.append(region.as_geojson(measurements=about))
    write_json(path, {"type": "FeatureCollection", "features": features})
