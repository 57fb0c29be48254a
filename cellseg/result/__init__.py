"""The result folder ``NAME.cellseg``: journal, resume, atomic writes, provenance.

A finished folder holds ``cells.csv``, ``labels.ome.zarr``, ``run.json`` and, where the run looked
for tissue, in regions, and drew pictures, ``tissue.geojson``, ``regions.geojson``,
``overview.png`` and ``outlines.png``. While
a run goes on, ``journal.sqlite`` keeps the finished tiles and ``.partial`` what is being written;
an older result stays under the final names until the new one takes its place.
"""

from cellseg.counting.report import Report
from cellseg.derive.reclassify import reclassify
from cellseg.draw.outlined import Ground, Masks, draw_outlines, recorded_ground
from cellseg.draw.overview import Overview, write_overview
from cellseg.draw.redrawn import recorded_overview, redraw_overview
from cellseg.draw.tissue_outline import tissue_outline
from cellseg.geometry import Frame
from cellseg.result.files import readable
from cellseg.result.folder import ResultFolder
from cellseg.result.journal import JOURNAL_NAME, FinishedTile, TileStatus
from cellseg.result.labels import LabelLevel, labels_at
from cellseg.result.publish import (
    CORRECTIONS,
    FETCHED,
    OUTLINES,
    OVERVIEW,
    REGIONS,
    RESULT_FILES,
    changed_files,
    is_export_name,
)
from cellseg.result.result import Result, load_result
from cellseg.result.table import TableColumn, read_parts, with_texts

__all__ = [
    "CORRECTIONS",
    "FETCHED",
    "JOURNAL_NAME",
    "OUTLINES",
    "OVERVIEW",
    "REGIONS",
    "RESULT_FILES",
    "FinishedTile",
    "Frame",
    "Ground",
    "LabelLevel",
    "Masks",
    "Overview",
    "Report",
    "Result",
    "ResultFolder",
    "TableColumn",
    "TileStatus",
    "changed_files",
    "draw_outlines",
    "is_export_name",
    "labels_at",
    "load_result",
    "read_parts",
    "readable",
    "reclassify",
    "recorded_ground",
    "recorded_overview",
    "redraw_overview",
    "tissue_outline",
    "with_texts",
    "write_overview",
]
