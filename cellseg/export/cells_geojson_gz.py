"""``cells.geojson.gz``: ``cells.geojson``, compressed; QuPath opens it as it is."""

from __future__ import annotations

import gzip
from io import TextIOWrapper
from pathlib import Path

from cellseg.export.cells_geojson import write_to
from cellseg.result.result import Result


def write(result: Result, path: Path) -> None:
    """Write the cells of a result."""
    with (
        path.open("wb") as raw,
        gzip.GzipFile("cells.geojson", "wb", compresslevel=4, fileobj=raw, mtime=0) as packed,
        TextIOWrapper(packed, encoding="utf-8", newline="") as file,
    ):
        write_to(result, file)
