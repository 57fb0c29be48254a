"""Commands on what was counted: expand, spatial, export, overlay, report, classify."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cellseg.cli._shared import FILE, PLACE, Number, say, shared, tell
from cellseg.errors import CellsegError, InputError, Notice, PartialResultError, SettingsError
from cellseg.storage import Location

if TYPE_CHECKING:
    from cellseg.protocol import Marker
    from cellseg.result import Result
    from cellseg.study.folder import Study
    from cellseg.table.hotspot import HotSpot
    from cellseg.table.taught import TaughtClasses

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
    made again. Without the slide's pixels areas alone are measured.
    """
    if by is None and cells_from is None:
        raise click.UsageError("say --by DISTANCE, --from CHANNEL, or both")
    from cellseg.run import change

    def grow(path: Path) -> None:
        done = change(path, image=image, on_notice=tell, expand=by, cells_from=cells_from)
        found = done.run["expansion"]
        over = f"over {found['from']} by at most" if found["from"] else "by"
        names = ", ".join(found["columns"])
        say(f"grown {over} {found['by']:g} {found['unit']}; new columns: {names}")
        say(f"look: cellseg overlay --cells {shlex.quote(str(path))}")

    _for_each(paths, grow, image)


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
    """
    from cellseg.run import change

    def measure(path: Path) -> None:
        result = change(path, on_notice=tell, spatial=True, within=within)
        for name, median in result.run["spatial"]["medians"].items():
            say(f"{path.stem}: {name}: median {median:,.4g}")

    _for_each(paths, measure)


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

    def write_all(path: Path) -> None:
        for name in dict.fromkeys(names):
            say(str(write(path, name)))

    _for_each(paths, write_all)


def _studies_of(paths: Sequence[Path], image: object) -> list[Study]:
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


def _for_each(paths: Sequence[Path], work: Callable[[Path], None], image: object = None) -> None:
    """Work on results, and on those of folders; PartialResultError where some of several fail."""
    studies = _studies_of(paths, image)
    failed = [line for study in studies for line in study.unread]
    for path in dict.fromkeys(one.path for study in studies for one in study.results) or paths:
        try:
            work(path)
        except CellsegError as error:
            if not studies:
                raise
            failed.append(f"{path.stem}: {error}")
    if failed:
        say("\n".join(f"cellseg: {line}" for line in failed), err=True)
        raise PartialResultError(f"{len(failed)} of the results failed")


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
    if isinstance(folder, Path) and not folder.is_dir():
        raise InputError(f"{folder}: {'is no folder' if folder.exists() else 'no such folder'}")
    from cellseg.cli._images import write_study_files
    from cellseg.study.folder import study_at, with_failures, write_spreadsheet

    with study_at(folder, report=True, parquet=parquet) as found:
        study = with_failures(found)
        write_study_files(study, output, report=True, parquet=parquet)
        if xlsx is not None:
            write_spreadsheet(study, xlsx)
            say(f"spreadsheet: {xlsx}", err=True)
    if study.unread:
        raise PartialResultError(f"{len(study.unread)} of the results could not be read")


@click.command(
    epilog="""\b
Examples:
  cellseg classify slide.cellseg --measure dab_od_mean --threshold 0.2
  cellseg classify slide.cellseg --measure dab_od_mean --threshold 0.15,0.3,0.45
  cellseg classify results/ --measure dab_od_mean --threshold auto
  cellseg classify slide.cellseg --name CD3 --measure intensity_mean_cd3 --threshold 400 \\
                                 --name CD8 --measure intensity_mean_cd8 --threshold 250
  cellseg classify slide.cellseg --clicks clicks.csv -o classes.json
  cellseg classify results/ --taught classes.json --unsure 0.5"""
)
@shared("results measure threshold name")
@click.option(
    "--clicks",
    type=FILE,
    help="Learn classes from these cells: a CSV of class, and label or y and x (and result).",
)
@click.option(
    "--taught", type=FILE, help="Classes that were learned before; --clicks adds to them."
)
@click.option("-o", "--output", type=FILE, help="The file that gets these classes.")
@click.option(
    "--unsure",
    type=Number(0.0, 0.99),
    help="Cells that belong to no class with this probability become 'unsure'; 0: none do.",
)
@click.option("--undo", is_flag=True, help="Back to the classes of the model.")
@shared("hotspot image json")
def classify(
    paths: Sequence[Path],
    undo: bool,
    hotspot: HotSpot | None,
    image: Location | None,
    as_json: bool,
    **lesson: Any,  # noqa: ANN401 - of markers_of, and of _taught
) -> None:
    """Sort cells by thresholds, or like cells that you clicked.

    Neither the network nor the slide's pixels are needed. The classes go into cells.csv, run.json,
    histogram.png and the pictures; exports that were made are made again. RESULT may be a folder
    of results: all slides get the same threshold, auto from all their cells together, or the same
    taught classes, and summary.csv and report.html are made anew.
    """
    from cellseg.cli._images import write_study_files
    from cellseg.derive.classes import common_thresholds
    from cellseg.run import change
    from cellseg.study.folder import load_study, with_failures
    from cellseg.study.images import RESULT as ENDING

    markers = tuple(markers_of(lesson))
    given = {name for name, value in lesson.items() if value is not None}
    teaches = bool(given & {"clicks", "taught"})
    if (bool(markers), teaches, undo).count(True) != 1 or (given and not teaches):
        raise click.UsageError("say one of --measure; --clicks or --taught; --undo")
    studies = _studies_of(paths, image)
    is_one = not studies
    results = [result for study in studies for result in study.results]
    decided: dict[str, Any] = {"markers": markers}
    if teaches:
        decided = {"taught": _taught([one.path for one in results] or paths, **lesson)}
        if not as_json:
            for name, (clicks, precision, recall) in decided["taught"].scores().items():
                say(f"{name}: {clicks} clicks, precision {precision:.2f}, recall {recall:.2f}")
    more: dict[str, Any] = {} if hotspot is None else {"hotspot": hotspot}
    if markers and not is_one:
        results = _measured(results, markers)
        markers, methods, notices = common_thresholds(results, markers)
        decided = {"markers": markers, "methods": methods}
        for notice in notices:
            tell(f"all slides: {notice}")
    done = []
    for path in paths if is_one else [result.path for result in results]:
        about = tell if is_one else partial(_tell_of, path.stem)
        result = change(
            path, image=image, on_notice=about, is_lenient=not is_one, **decided, **more
        )
        done.append(_classes_json(result))
        if not as_json:
            say(str(result.summary) if is_one else f"{result.image_name}: {result.summary}")
    if as_json:
        say(done[0] if is_one else f"[{', '.join(done)}]")
    elif is_one:
        pictures = ("histogram.png", "outlines.png") if markers else ("outlines.png",)
        there = [str(paths[0] / name) for name in pictures if (paths[0] / name).exists()]
        say(f"look: {', '.join(there)}")
    for path in paths:
        if path.suffix.lower() != ENDING:
            write_study_files(with_failures(load_study(path)), report=True)
    if unread := sum(len(study.unread) for study in studies):
        raise PartialResultError(f"{unread} of the results could not be read")


def _tell_of(name: str, notice: Notice) -> None:
    tell(Notice(f"{name}: {notice}", hint=notice.hint))


def _measured(results: Sequence[Result], markers: Sequence[Marker]) -> list[Result]:
    """Those that have what is asked for; all where none has, so that the error says why."""
    from cellseg.derive.classes import known_markers

    found = []
    for result in results:
        with suppress(SettingsError):
            known_markers(markers, result.table.dtypes)
            found.append(result)
    if not found:
        return list(results)
    for result in results:
        if result not in found:
            tell(Notice(f"{result.image_name}: has no such measurement, and is left as it is"))
    return found


def _taught(
    paths: Sequence[Path],
    clicks: Path | None,
    taught: Path | None,
    unsure: float | None,
    output: Path | None,
) -> TaughtClasses:
    """The classes of a file, of clicks, or of both."""
    from cellseg.derive.clicks import read_classes, teach_classes, to_look_at, write_classes
    from cellseg.result import load_result

    known = None if taught is None else read_classes(taught)
    if clicks is not None:
        known = teach_classes(paths, clicks, more=known, unsure=unsure)
    elif known is not None and unsure is not None:
        known = known.model_copy(update={"unsure": unsure})
    assert known is not None  # one of both was given
    for one in map(load_result, paths):  # before any of them is changed
        to_look_at(one, one.table.names, known.measurements)
    if output is not None:
        write_classes(known, output)
    return known


def _classes_json(result: Result) -> str:
    kept = ("cells_per_class", "corrected_per_class", "labelling")
    found = {name: result.run["summary"][name] for name in kept}
    if taught := result.section("taught"):
        found["taught"] = taught
    return json.dumps({"image": result.image_name, **found}, indent=2)


def markers_of(settings: dict[str, Any]) -> list[Marker]:
    """Markers from ``measures``, ``thresholds`` and ``names``, which are removed from the settings.

    A SettingsError if they do not fit together.
    """
    from pydantic import ValidationError

    from cellseg.protocol import MOST_MARKERS, Marker

    measures, thresholds, names = (settings.pop(n) for n in ("measures", "thresholds", "names"))
    if len(measures) != len(thresholds):
        raise SettingsError(
            f"{len(measures)} --measure and {len(thresholds)} --threshold: each needs the other"
        )
    if names and len(names) != len(measures):
        raise SettingsError(f"{len(names)} --name for {len(measures)} --measure: name all or none")
    if len(measures) > MOST_MARKERS:
        raise SettingsError(f"at most {MOST_MARKERS} markers together, got {len(measures)}")
    found = []
    for measure, limits, name in zip_longest(measures, thresholds, names, fillvalue=""):
        threshold = limits[0] if len(limits) == 1 else limits
        wanted = {"measure": measure, "threshold": threshold, "name": name}
        try:
            found.append(Marker.model_validate(wanted))
        except ValidationError as error:
            raise SettingsError(f"--threshold: {error.errors()[0]['msg']}") from error
    return found
