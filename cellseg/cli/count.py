"""``cellseg count``."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from cellseg.cli._options import (
    PIXEL_SIZE,
    GroupedCommand,
    Number,
    Place,
    Plane,
    precision_option,
    refuse_missing,
)
from cellseg.cli._say import say
from cellseg.errors import CellsegError, SettingsError
from cellseg.storage import Location

GROUPS = {
    "Input": "mpp diameter_px channel z t series region recursive",
    "What is counted": "protocol model score cell_types min_area max_area no_prefilter strict",
    "Output": "output export expand spatial report parquet as_json overwrite",
    "Where it runs": "device precision batch tile_px engine scheduler",
}
"""The headings of the options in the help."""


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
  cellseg count slide.svs --engine dask --scheduler tcp://10.0.0.5:8786
  cellseg count s3://scans/slide.svs --output s3://scans/results""",
)
@click.argument("images", nargs=-1, required=True, type=Place(), metavar="IMAGE...")
@click.option(
    "--protocol",
    metavar="NAME|FILE",
    help="he, he_20x, ihc, fluorescence, brightfield or a YAML file; else by the image.",
)
@click.option(
    "--model",
    default="default",
    show_default=True,
    metavar="default|FILE",
    help="The shipped model, or one made by 'cellseg train'.",
)
@click.option(
    "--score",
    type=Number(0.01, 1.0),
    help="Count cells from this score on; the protocol's otherwise.",
)
@click.option(
    "--types",
    "cell_types",
    type=click.Choice(["breast", "other", "none"]),
    help="H&E: sort nuclei by cell type, in the tissue that they were learned from or in another; "
    "else the protocol's choice.",
)
@click.option(
    "--mpp",
    type=PIXEL_SIZE,
    help="µm per pixel, where the file does not say or is wrong.",
)
@click.option(
    "--diameter",
    "diameter_px",
    type=Number(0.1, 10_000.0),
    metavar="PX",
    help="Usual cell's diameter, pixels of the image: sets the scale in place of the pixel size.",
)
@click.option(
    "--channel", metavar="NUMBER|NAME", help="Channel to count in, as cellseg info lists them."
)
@click.option(
    "--min-area",
    type=Number(0.0),
    metavar="AREA",
    help="Leave out smaller cells: µm², or px² of an image without pixel size.",
)
@click.option("--max-area", type=Number(0.0, min_open=True), metavar="AREA", help="Larger cells.")
@click.option(
    "--z",
    type=Plane(),
    metavar="N|max|mean",
    help="Plane (from 0) or projection; the middle plane otherwise.",
)
@click.option(
    "--series", type=click.IntRange(min=0), default=0, help="Image (from 0) of a file with several."
)
@click.option("--t", type=click.IntRange(min=0), help="Time point (from 0); the first otherwise.")
@click.option(
    "--tile",
    "tile_px",
    type=click.IntRange(min=64),
    metavar="PX",
    help="Side of a tile, model pixels, a multiple of 64; the count hardly depends on it.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps.")
@precision_option
@click.option(
    "--batch", type=click.IntRange(min=1), help="Tiles that go through the network together."
)
@click.option(
    "--output",
    type=Place(folder=True),
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
    "--spatial",
    is_flag=True,
    help="Also measure where cells lie: neighbours, density, distance to the border.",
)
@click.option(
    "--recursive", is_flag=True, help="Folders in folders too; results lie as the images do."
)
@click.option("--report", is_flag=True, help="Also report.html: tables and pictures of all images.")
@click.option("--parquet", is_flag=True, help="Also cells.parquet: the cells of all images.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print a JSON list, one object per image, and nothing else on stdout.",
)
@click.option(
    "--region",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="GeoJSON, as QuPath exports it: count only in its regions, and each for itself.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "dask"]),
    default="local",
    show_default=True,
    help="dask: read and detect on a Dask cluster; the result is the same.",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS|FILE",
    help="The Dask cluster: tcp://host:8786 or its scheduler file; else one is started here.",
)
@click.option("--strict", is_flag=True, help="Stop at the first tile that does not decode.")
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace a result of other settings, or one that was changed since; otherwise refused.",
)
@click.option("--no-prefilter", is_flag=True, help="Look everywhere, not only where tissue is.")
def count(
    images: tuple[Location, ...],
    output: Location | None,
    recursive: bool,
    report: bool,
    parquet: bool,
    as_json: bool,
    region: Path | None,
    no_prefilter: bool,
    **settings: Any,  # noqa: ANN401 - fields of CountRequest
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
    from cellseg.annotations.geojson import read_regions
    from cellseg.cli._images import FailedImage, Outcome, count_images, exit_code, table_of
    from cellseg.cli._study import home_of_study, summarise_outcomes
    from cellseg.counting.request import CountRequest
    from cellseg.study.images import find_images, result_names

    regions = None if region is None else read_regions(region)
    found = find_images(images, recursive=recursive)
    if regions is not None and len(found.images) > 1:
        raise SettingsError(f"--region belongs to one slide, got {len(found.images)} images")
    home = home_of_study(images, found.images, output, report=report, parquet=parquet)
    requests = [
        CountRequest(
            image=image.path,
            output=output and image.home(output),
            folder_name=name,
            regions=regions,
            prefilter=not no_prefilter,
            **settings,
        )
        for image, name in zip(found.images, result_names(found.images, output), strict=True)
    ]
    outcomes: list[Outcome] = [FailedImage(*unread) for unread in found.unread]
    for _, error in found.unread:
        say(f"cellseg: {error}", err=True)
    try:
        count_images(requests, outcomes)
    except BaseException:
        with suppress(CellsegError):
            summarise_outcomes(home, outcomes)
        raise
    finally:
        # Interrupted at the fiftieth slide, the other forty-nine are told all the same.
        if as_json:
            say(json.dumps([outcome.as_dict() for outcome in outcomes], indent=2))
        elif len(outcomes) > 1:
            say(table_of(outcomes))
    summarise_outcomes(home, outcomes, report=report, parquet=parquet)
    sys.exit(exit_code(outcomes))
