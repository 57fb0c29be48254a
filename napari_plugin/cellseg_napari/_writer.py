"""napari's save dialog: the cells' table as CSV, the masks as a TIFF of the slide's size."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from cellseg.errors import CellsegError
from cellseg.result.publish import TABLE
from cellseg.text import as_cell
from cellseg_napari._opened import KEY, Opened
from cellseg_napari._words import warn


def write_labels(path: str, data: object, meta: dict[str, Any]) -> list[str]:
    """Write a result as it is now, corrections included: its table (``.csv``), or its masks.

    Returns what was written; nothing where the layer is not cellseg's.
    """
    opened = meta.get("metadata", {}).get(KEY)
    if not isinstance(opened, Opened):
        warn("this layer is no result of cellseg: napari's own writers can save it")
        return []
    target = Path(path)
    try:
        if target.suffix.lower() == ".csv":
            _write_table(opened, target)
        else:
            from cellseg.export.labels_tif import write_levels

            write_levels(opened.cells.pyramid.levels[0], opened.result.frame, target)
    except (CellsegError, OSError) as error:
        warn(f"{path}: cannot be written: {error}")
        return []
    return [path]


def _write_table(opened: Opened, path: Path) -> None:
    if not opened.cells.touched:
        shutil.copyfile(opened.result.file(TABLE), path)
        return
    table = opened.cells.table()
    for name in ("image", "class", "object"):
        table[name] = [as_cell(text) for text in table[name]]
    table.to_csv(path, index=False, lineterminator="\n")
