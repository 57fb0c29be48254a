"""Commands on what was counted: ``expand``, ``spatial``, ``export``, ``overlay``, ``report``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from cellseg.cli._shared import FILE, PATH, PLACE, say, shared, tell
from cellseg.errors import InputError, PartialResultError
from cellseg.storage import Location

# What they call is imported late: it takes seconds, and --help needs none of it.


@click.command(
    epilog="""\b
Examples:
  cellseg expand slide.cellseg --by 5
  cellseg expand cells.cellseg --from actin
  cellseg expand slide.cellseg --by 5 --image /mnt/archive/slide.svs
  cellseg classify slide.cellseg --measure cytoplasm_dab_od_mean --threshold 0.2"""
)
@shared("result")
@click.option(
    "--by",
    type=float,
    metavar="DISTANCE",
    help="µm, or pixels of an image without a pixel size; up to 50 µm or 200 px. With --from the "
    "most: 15 µm, or two diameters of a nucleus, unless given.",
)
@click.option(
    "--from",
    "--cells-from",
    "cells_from",
    metavar="CHANNEL",
    help="Grow over this channel (cytoplasm or membranes) to the cell's edge.",
)
@shared("image")
def expand(path: Path, by: float | None, cells_from: str | None, image: Location | None) -> None:
    """Grow a result's nuclei into cells, and measure these and their cytoplasm.

    Each nucleus grows until it meets its neighbour or the distance. cells.csv gets columns
    cell_… and cytoplasm_…, and cells.ome.zarr has the cells' masks; exports that were made are
    made again. Without the slide's pixels areas alone are measured.
    """
    if by is None and cells_from is None:
        raise click.UsageError("say --by DISTANCE, --from CHANNEL, or both")
    from cellseg.run import change

    done = change(path, image=image, on_notice=tell, expand=by, cells_from=cells_from)
    found = done.run["expansion"]
    over = f"over {found['from']} by at most" if found["from"] else "by"
    say(f"grown {over} {found['by']:g} {found['unit']}; new columns: {', '.join(found['columns'])}")
    say(f"look: cellseg overlay --cells {shlex.quote(str(path))}")


@click.command(
    epilog="""\b
Examples:
  cellseg spatial slide.cellseg
  cellseg spatial slide.cellseg --within 50
  cellseg classify slide.cellseg --measure neighbours_30um --threshold 10"""
)
@shared("result")
@click.option(
    "--within",
    type=int,
    metavar="DISTANCE",
    help="Count neighbours within it: whole µm (30 unless said), or pixels of an image without "
    "a pixel size.",
)
def spatial(path: Path, within: int | None) -> None:
    """Measure neighbours, density and distance to the border, of a finished result.

    Neither the network nor the slide's pixels are needed. cells.csv gets the columns; exports that
    were made are made again. With several classes also the distance to the nearest cell of each.
    """
    from cellseg.run import change

    result = change(path, on_notice=tell, spatial=True, within=within)
    for name, median in result.run["spatial"]["medians"].items():
        say(f"{name}: median {median:,.4g}")


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
    from cellseg.export import check_exports
    from cellseg.export import export as write

    check_exports(names)
    for name in dict.fromkeys(names):
        say(str(write(result, name)))


@click.command(
    epilog="""\b
Examples:
  cellseg overlay slide.cellseg
  cellseg overlay slide.cellseg --box 10240 5120 10752 5632
  cellseg overlay slide.cellseg --image /mnt/archive/slide.svs -o slide.png"""
)
@shared("result")
@click.option(
    "--box",
    type=int,
    nargs=4,
    metavar="Y0 X0 Y1 X1",
    help="This place, in pixels of the slide; otherwise the field, or crops of a larger slide.",
)
@click.option(
    "-o",
    "--output",
    type=FILE,
    metavar="FILE.png",
    help="The picture; otherwise one in the result folder.",
)
@click.option("--cells", is_flag=True, help="The cells that cellseg expand grew around the nuclei.")
@shared("image")
def overlay(path: Path, **settings: Any) -> None:  # noqa: ANN401 - arguments of draw
    """Draw a result's outlines over its slide, anywhere, as a PNG.

    Cells are outlined by class, under a legend with their numbers and a scale bar. A slide that
    was moved is named with --image.
    """
    from cellseg.draw.pictures import overlay as draw
    from cellseg.result.result import load_result

    say(str(draw(load_result(path), **settings)))


@click.command(
    epilog="""\b
Examples:
  cellseg report results/
  cellseg report results/ --parquet
  cellseg report results/ -o ~/study.html
  cellseg report s3://scans/results"""
)
@click.argument("folder", type=PLACE)
@click.option(
    "-o",
    "--output",
    type=FILE,
    metavar="FILE.html",
    help="The page; report.html in the folder otherwise.",
)
@shared("parquet")
def report(folder: Location, output: Path | None, parquet: bool) -> None:
    """Summarise all results below FOLDER as a page and a table.

    Leaves report.html, one file that opens without a network, and summary.csv, a row an image,
    made anew from the result folders, however they were counted. FOLDER may be a URL.
    """
    if isinstance(folder, Path) and not folder.is_dir():
        raise InputError(f"{folder}: {'is no folder' if folder.exists() else 'no such folder'}")
    from cellseg.cli._images import write_study_files
    from cellseg.study.folder import study_at, with_failures

    with study_at(folder, report=True, parquet=parquet) as found:
        study = with_failures(found)
        write_study_files(study, report=True, parquet=parquet, page=output)
    if study.unread:
        raise PartialResultError(f"{len(study.unread)} of the results could not be read")
