"""Commands on what was counted: expand, spatial, export, overlay, report."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cellseg.cli._shared import FILE, PLACE, say, shared, tell
from cellseg.errors import CellsegError, InputError, Notice, PartialResultError, SettingsError
from cellseg.storage import Location

if TYPE_CHECKING:
    from cellseg.study.folder import Study

# What they call is imported late: it takes seconds, and --help needs none of it.


@click.command(
    epilog="""\b
Examples:
  cellseg expand slide.cellseg --by 5
  cellseg expand cells.cellseg --from actin
  cellseg expand slide.cellseg --by 5 --image /mnt/archive/slide.svs
  cellseg expand results/ --by 5
  cellseg classify slide.cellseg --measure cytoplasm_dab_od_mean --threshold 0.2"""
)
@shared("results")
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
def expand(
    paths: Sequence[Path], by: float | None, cells_from: str | None, image: Location | None
) -> None:
    """Grow a result's nuclei into cells, and measure these and their cytoplasm.

    Each nucleus grows until it meets its neighbour or the distance. cells.csv gets columns
    cell_… and cytoplasm_…, and cells.ome.zarr has the cells' masks; exports that were made are
    made again. Without the slide's pixels areas alone are measured. Of a folder summary.csv and
    report.html are made anew.
    """
    if by is None and cells_from is None:
        raise click.UsageError("say --by DISTANCE, --from CHANNEL, or both")
    from cellseg.run import change

    def grow(path: Path, told: Callable[[Notice], None]) -> None:
        done = change(path, image=image, on_notice=told, expand=by, cells_from=cells_from)
        found = done.run["expansion"]
        over = f"over {found['from']} by at most" if found["from"] else "by"
        names = ", ".join(found["columns"])
        say(f"grown {over} {found['by']:g} {found['unit']}; new columns: {names}")
        say(f"look: cellseg overlay --cells {shlex.quote(str(path))}")

    _for_each(paths, grow, image, renews=True)


@click.command(
    epilog="""\b
Examples:
  cellseg spatial slide.cellseg
  cellseg spatial results/ --within 50
  cellseg classify slide.cellseg --measure neighbours_30um --threshold 10"""
)
@shared("results")
@click.option(
    "--within",
    type=int,
    metavar="DISTANCE",
    help="Count neighbours within it: whole µm (30 unless said), or pixels of an image without "
    "a pixel size.",
)
def spatial(paths: Sequence[Path], within: int | None) -> None:
    """Measure neighbours, density and distance to the border, of a finished result.

    Neither the network nor the slide's pixels are needed. cells.csv gets the columns; exports that
    were made are made again. With several classes also the distance to the nearest cell of each.
    Of a folder summary.csv and report.html are made anew.
    """
    from cellseg.run import change

    def measure(path: Path, told: Callable[[Notice], None]) -> None:
        result = change(path, on_notice=told, spatial=True, within=within)
        for name, median in result.run["spatial"]["medians"].items():
            say(f"{path.stem}: {name}: median {median:,.4g}")

    _for_each(paths, measure, renews=True)


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
  cellseg export results/ --to rois.zip --to cells.xlsx"""
)
@shared("results")
@click.option(
    "--to",
    "names",
    multiple=True,
    required=True,
    metavar="NAME",
    help="A file of the list below; may be given several times.",
)
def export(paths: Sequence[Path], names: tuple[str, ...]) -> None:
    """Write a result for QuPath, ImageJ, spreadsheets or training.

    RESULT is a folder that cellseg count left, and gets the files, or a folder of such.
    """
    from cellseg.export import check_exports
    from cellseg.export import export as write

    check_exports(names)

    def write_all(path: Path, _: Callable[[Notice], None]) -> None:
        for name in dict.fromkeys(names):
            say(str(write(path, name)))

    _for_each(paths, write_all)


def studies_of(paths: Sequence[Path], image: object) -> list[Study]:
    """Studies of what is named; none of a single result, whose slide is at ``image``."""
    from cellseg.result.publish import RUN
    from cellseg.study.folder import load_study
    from cellseg.study.images import RESULT as ENDING

    is_one = paths[0].suffix.lower() == ENDING or not paths[0].is_dir() or (paths[0] / RUN).exists()
    if len(paths) == 1 and is_one:
        return []
    if image is not None:
        raise SettingsError("--image belongs to one result")
    studies = [load_study(path) for path in paths]
    if not any(study.results for study in studies):
        raise InputError(f"{paths[0]}: no result there is finished and can be read")
    return studies


def tell_of(path: Path, studies: Sequence[Study]) -> Callable[[Notice], None]:
    """Prints notices, those of one result of several with its name."""
    return lambda note: tell(Notice(f"{path.stem}: {note}", hint=note.hint) if studies else note)


def renew(paths: Sequence[Path], studies: Sequence[Study]) -> None:
    """Write the tables and pages of changed folders anew; of single results say which are old."""
    from cellseg.cli._images import write_study_files
    from cellseg.study.folder import CELLS, SUMMARY, load_study, with_failures
    from cellseg.study.images import RESULT as ENDING

    folders = [path for path in paths if studies and path.suffix.lower() != ENDING]
    for path in folders:
        study = with_failures(load_study(path))
        write_study_files(study, report=True, parquet=(path / CELLS).exists())
    for home in dict.fromkeys(path.parent for path in paths if path not in folders):
        if (summary := home / SUMMARY).exists():
            again = shlex.join(["cellseg", "report", str(home)])
            tell(f"{summary} is not made anew: {again} does so")


def refuse(failed: Iterable[str]) -> None:
    """Say what failed of several results, and end with a PartialResultError."""
    if lines := [f"cellseg: {line}" for line in failed]:
        say("\n".join(lines), err=True)
        raise PartialResultError(f"{len(lines)} of the results failed")


def _for_each(
    paths: Sequence[Path],
    work: Callable[[Path, Callable[[Notice], None]], None],
    image: object = None,
    *,
    renews: bool = False,
) -> None:
    """Work on results, and on those of folders; PartialResultError where some of several fail.

    ``work`` gets a result and what prints its notices. ``renews``: see :func:`renew`.
    """
    studies = studies_of(paths, image)
    failed = [line for study in studies for line in study.unread]
    for path in dict.fromkeys(one.path for study in studies for one in study.results) or paths:
        try:
            work(path, tell_of(path, studies))
        except CellsegError as error:
            if not studies:
                raise
            failed.append(f"{path.stem}: {error}")
    if renews:
        renew(paths, studies)
    refuse(failed)


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
  cellseg report results/ --parquet --xlsx ~/study.xlsx
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
@click.option("--xlsx", type=FILE, metavar="FILE.xlsx", help="Also the summary for Excel.")
def report(folder: Location, output: Path | None, parquet: bool, xlsx: Path | None) -> None:
    """Summarise all results below FOLDER as a page and a table.

    Leaves report.html, one file that opens without a network, and summary.csv, a row an image,
    made anew from the result folders, however they were counted. FOLDER may be a URL.
    """
    from cellseg.cli._images import write_study_files
    from cellseg.study.folder import study_at, with_failures, write_spreadsheet

    with study_at(folder, report=True, parquet=parquet) as found:
        study = with_failures(found)
        write_study_files(study, output, report=True, parquet=parquet)
        if xlsx is not None:
            write_spreadsheet(study, xlsx)
            say(f"spreadsheet: {xlsx}", err=True)
    refuse(study.unread)
