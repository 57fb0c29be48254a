"""``cellseg count``."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from cellseg.cli._shared import OUTPUT, PATH, PLACE, Number, markers_of, refuse_missing, say, shared
from cellseg.errors import CellsegError, SettingsError
from cellseg.storage import Location

GROUPS = {
    "Input": "mpp diameter_px channel z t series files region tma recursive",
    "What is counted": (
        "protocol model score cell_types min_area max_area no_prefilter skip_bad strict"
    ),
    "Output": (
        "output export expand cells_from spatial measures thresholds names hotspot chamber "
        "dilution report parquet as_json overwrite"
    ),
    "Where it runs": "jobs device precision inference tile_px engine scheduler",
}
"""The headings of the options in the help."""


class GroupedCommand(click.Command):
    """A command whose help lists its options under headings: heading to names, spaces between."""

    def __init__(self, *given: Any, groups: dict[str, str], **settings: Any) -> None:  # noqa: ANN401
        super().__init__(*given, **settings)
        self.groups = groups

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        told = {one.name: one.get_help_record(ctx) for one in self.get_params(ctx)}
        for heading, names in self.groups.items():
            with formatter.section(heading):
                formatter.write_dl([record for name in names.split() if (record := told.pop(name))])
        with formatter.section("Other options"):
            formatter.write_dl([record for record in told.values() if record and record[1]])


@click.command(
    cls=GroupedCommand,
    groups=GROUPS,
    epilog="""\b
Examples:
  cellseg count slide.svs
  cellseg count field.png --mpp 0.5 --protocol fluorescence
  cellseg count scans/ --recursive --output results/ --report
  cellseg count scans/ --output results/ --json > counts.json
  cellseg count cells.ome.tif --channel DAPI --z max --export labels.tif
  cellseg count cells.ome.tif --cells-from actin --measure intensity_mean_ki67 --threshold auto
  cellseg count slide.svs --engine dask --scheduler tcp://10.0.0.5:8786
  cellseg count s3://scans/slide.svs --output s3://scans/results""",
)
@click.argument("images", nargs=-1, required=True, type=PLACE, metavar="IMAGE...")
@shared(
    "mpp channel z series protocol model score no_prefilter parquet json device precision inference"
)
@click.option(
    "--types",
    "cell_types",
    type=click.Choice(["breast", "other", "none"]),
    help="H&E: sort nuclei by cell type, in the tissue that they were learned from or in another; "
    "else the protocol's choice.",
)
@click.option(
    "--diameter",
    "diameter_px",
    type=Number(0.1, 10_000.0),
    metavar="PX",
    help="Usual cell's diameter, pixels of the image: sets the scale in place of the pixel size.",
)
@click.option(
    "--min-area",
    type=Number(0.0),
    metavar="AREA",
    help="Leave out smaller cells: µm², or px² of an image without pixel size.",
)
@click.option("--max-area", type=Number(0.0, min_open=True), metavar="AREA", help="Or larger ones.")
@click.option(
    "--tile",
    "tile_px",
    type=click.IntRange(min=64),
    metavar="PX",
    help="Side of a tile, model pixels, a multiple of 64; the count hardly depends on it.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Images counted at once, each by a process of its own; by default one, or as many as "
    "there are cores where the files are many and small.",
)
@click.option(
    "--output",
    type=OUTPUT,
    metavar="DIR|URL",
    help="Folder for the results; beside each image otherwise.",
)
@click.option(
    "--export",
    multiple=True,
    metavar="NAME",
    help="Also write labels.tif, cells.geojson, rois.zip, …; cellseg export --help lists them.",
)
@click.option(
    "--expand",
    type=float,
    metavar="DISTANCE",
    help="Also grow nuclei into cells by so many µm (px of an image without a pixel size), and "
    "measure these, as cellseg expand does.",
)
@click.option(
    "--cells-from",
    metavar="CHANNEL",
    help="Grow nuclei over this channel (cytoplasm or membranes) to the cell's edge.",
)
@click.option(
    "--spatial",
    is_flag=True,
    help="Also measure where cells lie: neighbours, density, distance to the border.",
)
@shared("measure threshold name hotspot chamber dilution times")
@click.option(
    "--recursive", is_flag=True, help="Folders in folders too; results lie as the images do."
)
@click.option(
    "--files",
    metavar="PATTERN",
    help="Files of a folder that are one field, as '{well}_s{site}_w{channel}.tif'; also {plate}, "
    "{row}, {column}, {name}, {z}, {time}, *. Makers' own names are known.",
)
@click.option("--report", is_flag=True, help="Also report.html: tables and pictures of all images.")
@click.option(
    "--region",
    type=PATH,
    metavar="FILE",
    help="GeoJSON, as QuPath exports it: count only in its regions, and each for itself.",
)
@click.option(
    "--tma",
    is_flag=True,
    help="A tissue microarray: find its cores, name them A1, A2, …, and count each for itself.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "dask"]),
    default="local",
    show_default=True,
    help="dask: read and detect on a Dask cluster; the same result, by the same --inference.",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS|FILE",
    help="The Dask cluster: tcp://host:8786 or its scheduler file; else one is started here.",
)
@click.option(
    "--skip-bad",
    is_flag=True,
    help="Leave out tissue that is out of focus, folded, marked by a pen or under air bubbles.",
)
@click.option("--strict", is_flag=True, help="Stop at the first part that cannot be read.")
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace a result of other settings, or one that was changed since; otherwise refused.",
)
def count(
    images: tuple[Location, ...],
    output: Location | None,
    recursive: bool,
    files: str | None,
    report: bool,
    parquet: bool,
    as_json: bool,
    region: Path | None,
    no_prefilter: bool,
    t: int | range | None,
    chamber: float | None,
    dilution: float | None,
    jobs: int | None,
    **settings: Any,  # noqa: ANN401 - fields of CountRequest, of its recipe, and of markers_of
) -> None:
    """Count and measure the cells on each IMAGE (files or folders).

    Leaves IMAGE's name with .cellseg as a folder: cells.csv (a row a cell), labels.ome.zarr
    (masks), run.json (how it was made), overview.png (a density map). Interrupted, the same
    command goes on where it stopped. IMAGE and --output may be URLs, such as s3://bucket/a.svs.
    Folders and several images also leave summary.csv, a row an image.
    """
    if len(images) == 1 and not as_json:
        refuse_missing(images[0])
    # Here and not above: a mistyped path is said at once.
    from cellseg.cli._jobs import jobs_for, load_libraries
    from cellseg.study.images import find_images, result_names

    times, point = (t, None) if isinstance(t, range) else (None, t)
    found = find_images(images, recursive=recursive, files=files, times=times)
    paths = [image.path for image in found.images]
    jobs = min(jobs or jobs_for(paths, settings["engine"], settings["device"]), len(paths))
    if jobs > 1:
        load_libraries(jobs)
    from cellseg.annotations.geojson import read_regions
    from cellseg.cli import _images as study
    from cellseg.counting.request import CountRequest
    from cellseg.derive import Recipe
    from cellseg.table.chamber import Chamber

    regions = None if region is None else read_regions(region)
    if dilution is not None and chamber is None:
        raise SettingsError("a dilution is of the sample in a counting chamber", hint="chamber")
    if chamber is not None:
        settings["chamber"] = Chamber(depth_um=chamber, dilution=dilution or 1)
    settings["markers"] = markers_of(settings)
    recipe = Recipe(**{name: settings.pop(name) for name in Recipe.model_fields.keys() & settings})
    if regions is not None and len(found.images) > 1:
        raise SettingsError(f"--region belongs to one slide, got {len(found.images)} images")
    home = study.home_of_study(images, found.images, output, report=report, parquet=parquet)
    requests = [
        CountRequest(
            image=image.path,
            output=output and image.home(output),
            folder_name=name,
            regions=regions,
            prefilter=not no_prefilter,
            t=point if image.t is None else image.t,
            recipe=recipe,
            **settings,
        )
        for image, name in zip(found.images, result_names(found.images, output), strict=True)
    ]
    outcomes: list[study.Outcome] = [study.FailedImage(*unread) for unread in found.unread]
    for note in found.notes:
        say(note, err=True)
    for _, error in found.unread:
        say(f"cellseg: {error}", err=True)
    try:
        study.count_images(requests, outcomes, jobs=jobs)
    except BaseException:
        with suppress(CellsegError):
            study.summarise_outcomes(home, outcomes)
        raise
    finally:
        # Interrupted at the fiftieth slide, the other forty-nine are told all the same.
        if as_json:
            say(json.dumps([outcome.as_dict() for outcome in outcomes], indent=2))
        elif len(outcomes) > 1:
            say(study.table_of(outcomes))
    study.summarise_outcomes(home, outcomes, report=report, parquet=parquet)
    sys.exit(study.exit_code(outcomes))
