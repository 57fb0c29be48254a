"""``cells.geojson``: a detection a cell, for QuPath 0.5 and later.

A FeatureCollection, feature by feature: the outline in level-0 pixels, the class with its colour,
and every number of ``cells.csv`` as a measurement under its column's name; empty ones are left out.
Of a count in regions their names are in ``metadata``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pandas as pd
import shapely

from cellseg.export._cells import outlined, simplest
from cellseg.result.files import readable
from cellseg.result.result import Result
from cellseg.table import REGION


def write(result: Result, path: Path) -> None:
    """Write the cells of a result."""
    with path.open("w", encoding="utf-8", newline="") as file:
        write_to(result, file)


def write_to(result: Result, file: IO[str]) -> None:
    """Write the cells of a result to an open file."""
    file.write('{"type":"FeatureCollection","features":[')
    for number, feature in enumerate(_features(result)):
        text = json.dumps(feature, ensure_ascii=False, separators=(",", ":"))
        file.write(f"{',' * (number > 0)}\n{text}")
    file.write("\n]}\n")


def _features(result: Result) -> Iterator[dict[str, object]]:
    shown = zip(result.class_names, result.colours(result.class_names), strict=True)
    classes = [{"name": readable(name), "color": colour} for name, colour in shown]
    for table, cells in outlined(result):
        for (label, code, region, outline), measured in zip(
            cells, _measurements(table), strict=True
        ):
            yield {
                "type": "Feature",
                "geometry": shapely.geometry.mapping(simplest(outline)),
                "properties": {
                    "objectType": "detection",
                    "name": str(label),
                    "classification": classes[code],
                    "measurements": measured,
                    **({"metadata": {REGION: region}} if region else {}),
                },
            }


def _measurements(table: pd.DataFrame) -> Iterator[dict[str, float]]:
    """Numbers by their columns' names; yes and no are 1 and 0."""
    numbers = table.drop(columns="label").select_dtypes(["number", "bool"])
    flags = numbers.select_dtypes("bool").astype("int64")
    short = numbers.select_dtypes("float32").astype("float64").round(6)
    for row in numbers.assign(**flags, **short).to_dict("records"):
        yield {str(name): value for name, value in row.items() if value == value}
