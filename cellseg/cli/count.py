"""``cellseg count``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from cellseg.cli._options import PLACE, HeadedCommand, Limits, Number, options, refuse_missing
from cellseg.cli._say import say
from cellseg.cli.classify import markers_of
from cellseg.errors import CellsegError, SettingsError
from cellseg.storage import Location

OPTIONS = """
Input:
--mpp
--diameter PX             Usual cell's diameter, pixels of the image: sets the scale in place of the
                          pixel size.
--channel --z
--t N|FIRST-LAST|all      Time point (from 0), or several, each counted for itself; the first
                          otherwise.
--series
--files PATTERN           Files of a folder that are one field, as '{well}_s{site}_w{channel}.tif';
                          also {plate}, {row}, {column}, {name}, {z}, {time}, *. Makers' own names
                          are known.
--region FILE             GeoJSON, as QuPath exports it: count only in its regions, and each for
                          itself.
--tma                     A tissue microarray: find its cores, name them A1, A2, …, and count each
                          for itself.
--recursive               Folders in folders too; results lie as the images do.
What is counted:
--protocol --model --score
--types [breast|other|none]  H&E: sort nuclei by cell type, in the tissue that they were learned
                          from or in another; else the protocol's choice.
--min-area AREA           Leave out smaller cells: µm², or px² of an image without pixel size.
--max-area AREA           Larger cells.
--no-prefilter
--skip-bad                Leave out tissue that is out of focus, folded or marked by a pen, and say
                          how much.
--strict                  Stop at the first tile that does not decode.
Output:
--output DIR|URL          Folder for the results; beside each image otherwise.
--export NAME...          Also write labels.tif, cells.geojson, rois.zip, …; cellseg export --help
                          lists them.
--expand DISTANCE         Also grow nuclei into cells by so many µm (px of an image without a pixel
                          size), and measure these, as cellseg expand does.
--cells-from CHANNEL      Grow nuclei over this channel (cytoplasm or membranes) to the cell's edge.
--spatial                 Also measure where cells lie: neighbours, density, distance to the border.
--measure --threshold --name --hotspot
--chamber NAME|DEPTH      A counting chamber (neubauer, fuchs-rosenthal, … or its depth in µm): tell
                          cells per mL.
--dilution NUMBER         To how many parts a part of the sample in the chamber was diluted; 2: one
                          to one.
--report                  Also report.html: tables and pictures of all images.
--parquet --json
--overwrite               Replace a result of other settings, or one that was changed since;
                          otherwise refused.
Where it runs:
--device --precision --inference
--batch N                 Tiles in the network at once.
--tile PX                 Side of a tile, model pixels, a multiple of 64; the count hardly depends
                          on it.
--engine [local|dask]     dask: read and detect on a Dask cluster; the result is the same. [default:
                          local]
--scheduler ADDRESS|FILE  The Dask cluster: tcp://host:8786 or its scheduler file; else one is
                          started here.
"""


@click.command(
    cls=HeadedCommand,
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
@options(
    OPTIONS,
    diameter_px=Number(0.1, 10_000.0),
    min_area=Number(0.0),
    max_area=Number(0.0, min_open=True),
    expand=float,
    dilution=Number(1.0),
    batch=click.IntRange(min=1),
    tile_px=click.IntRange(min=64),
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
    measure: Sequence[str],
    threshold: Sequence[Limits],
    name: Sequence[str],
    **settings: Any,  # noqa: ANN401 - fields of CountRequest, and of its recipe
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
    from cellseg.cli import _images as study
    from cellseg.counting.request import CountRequest
    from cellseg.derive import Recipe
    from cellseg.study.images import find_images, result_names
    from cellseg.table.chamber import Chamber

    regions = None if region is None else read_regions(region)
    if dilution is not None and chamber is None:
        raise SettingsError("a dilution is of the sample in a counting chamber", hint="chamber")
    if chamber is not None:
        settings["chamber"] = Chamber(depth_um=chamber, dilution=dilution or 1)
    settings["markers"] = markers_of(measure, threshold, name)
    recipe = Recipe(
        **{field: settings.pop(field) for field in Recipe.model_fields.keys() & settings}
    )
    times, point = (t, None) if isinstance(t, range) else (None, t)
    found = find_images(images, recursive=recursive, files=files, times=times)
    if regions is not None and len(found.images) > 1:
        raise SettingsError(f"--region belongs to one slide, got {len(found.images)} images")
    home = study.home_of_study(images, found.images, output, report=report, parquet=parquet)
    requests = [
        CountRequest(
            image=image.path,
            output=output and image.home(output),
            folder_name=folder,
            regions=regions,
            prefilter=not no_prefilter,
            t=point if image.t is None else image.t,
            recipe=recipe,
            **settings,
        )
        for image, folder in zip(found.images, result_names(found.images, output), strict=True)
    ]
    outcomes: list[study.Outcome] = [study.FailedImage(*unread) for unread in found.unread]
    for _, error in found.unread:
        say(f"cellseg: {error}", err=True)
    try:
        study.count_images(requests, outcomes)
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
