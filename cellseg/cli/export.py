"""``cellseg export``: other files from a result folder."""

from __future__ import annotations

from pathlib import Path

import click

from cellseg.cli._shared import PATH, say
from cellseg.export import check_exports
from cellseg.export import export as export_one


@click.command(
    epilog="""\b
Files:
  cells.geojson     QuPath: outlines, classes, measurements; also cells.geojson.gz
  annotations.geojson  QuPath: regions and hot spot, with their counts
  rois.zip          ImageJ, Fiji: outlines for the ROI manager
  cells.xlsx        Excel, LibreOffice: the table, and a sheet with the units
  cells.parquet     R, pandas and databases: the table
  cells.h5ad        scanpy, squidpy: the table with the cells' places (AnnData)
  spatialdata.zarr  SpatialData: masks and table
  cells.coco.json   cellseg train and annotation programs: masks
  labels.tif        masks as a picture, as large as the slide
  labels.ome.tif    the same with a pyramid, for QuPath, OMERO and other viewers

\b
Examples:
  cellseg export slide.cellseg --to cells.geojson
  cellseg export slide.cellseg --to rois.zip --to cells.parquet"""
)
@click.argument("result", type=PATH)
@click.option(
    "--to",
    "names",
    multiple=True,
    required=True,
    metavar="NAME",
    help="A file of the list below; may be given several times.",
)
def export(result: Path, names: tuple[str, ...]) -> None:
    """Write a result for QuPath, ImageJ, spreadsheets or training.

    RESULT is a folder that cellseg count left, and gets the files.
    """
    check_exports(names)
    for name in dict.fromkeys(names):
        say(str(export_one(result, name)))
