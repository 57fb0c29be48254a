"""``cellseg count``."""

from __future__ import annotations

import json
import logging
import sys
import zlib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import click

from cellseg.annotations.region import read_region
from cellseg.cli._options import PIXEL_SIZE, Number, Place, Plane, precision_option
from cellseg.cli._progress import Reporter
from cellseg.cli._say import say
from cellseg.counting.request import CountRequest
from cellseg.errors import (
    CellsegError,
    InputError,
    PartialResultError,
    SettingsError,
    unexpected_text,
)
from cellseg.slide.formats import ENDINGS, has_ending, slide_name
from cellseg.storage import Location, RemotePath
from cellseg.text import visible

if TYPE_CHECKING:
    from cellseg.detect import Detector
    from cellseg.pipeline.run import CountResult

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failed:
    """An image that could not be counted."""

    image: Location
    error: CellsegError

    def as_dict(self) -> dict[str, object]:
        """An object like :meth:`CountResult.as_dict`, with the error for its only warning."""
        unknown = (
            "output", "cells", "cells_per_class", "tissue_mm2", "density_per_mm2",
            "median_area_um2", "tiles", "tiles_skipped", "tiles_failed", "seconds",
        )  # fmt: skip
        return {"image": str(self.image), **dict.fromkeys(unknown), "warnings": [str(self.error)]}


Outcome: TypeAlias = "CountResult | Failed"


def find_images(paths: tuple[Location, ...]) -> list[Location]:
    """Files, each once, folders replaced by the images in them, result folders left out.

    Raises
    ------
    InputError
        If a folder holds no image, cannot be read, or if there is nothing but results.
    """
    found: list[Location] = []
    results: list[Location] = []
    for path in paths:
        try:
            if isinstance(path, RemotePath) and has_ending(path):
                # What lies there is asked when it is opened.
                found.append(path)
            elif path.suffix.lower() == ".cellseg" and path.is_dir():
                results.append(path)
            elif not path.is_dir() or path.suffix.lower() == ".zarr":
                found.append(path)
            else:
                found += _inside(path)
        except CellsegError:
            raise
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not found:
        raise InputError(f"{results[0]}: is a result, not an image; cellseg view shows it")
    return list({image.absolute(): image for image in found}.values())


def _inside(folder: Location) -> list[Location]:
    inside: list[Location] = [
        entry for entry in folder.iterdir() if has_ending(entry) and not entry.name.startswith(".")
    ]
    inside.sort(key=str)
    if not inside:
        raise InputError(f"{folder}: no images in this folder ({', '.join(ENDINGS)})")
    return inside


def _whole_name(image: Location) -> str:
    return image.name


def _with_folder(image: Location) -> str:
    return f"{image.absolute().parent.name}-{image.name}"


def _with_its_letters(image: Location) -> str:
    """Two names that differ in capitals alone are one on many disks."""
    return f"{_with_folder(image)}-{zlib.crc32(image.name.encode()):08x}"


def folder_names(
    images: list[Location], output: Location | None, *, ending: str = ".cellseg"
) -> list[str]:
    """``slide.cellseg``; where two images would share it, the whole file name, then its folder's.

    What still differs in capitals alone gets a number made of them.

    Raises
    ------
    SettingsError
        If even those are the same.
    """
    homes = [output or image.parent for image in images]
    names = [slide_name(image) for image in images]
    for longer in (_whole_name, _with_folder, _with_its_letters):
        counts = Counter(zip(homes, (name.lower() for name in names), strict=True))
        names = [
            longer(image) if counts[home, name.lower()] > 1 else name
            for image, home, name in zip(images, homes, names, strict=True)
        ]
    counts = Counter(zip(homes, (name.lower() for name in names), strict=True))
    (_, name), most = counts.most_common(1)[0]
    if most > 1:
        raise SettingsError(
            f"{most} of the images would share the result folder {name}.cellseg: give each image "
            "once, or count them into different folders"
        )
    return [f"{name}{ending}" for name in names]


@click.command(
    epilog="""\b
Examples:
  cellseg count slide.svs
  cellseg count field.png --mpp 0.5 --protocol fluorescence
  cellseg count scans/ --output results/ --json > counts.json
  cellseg count cells.ome.tif --channel DAPI --z max --export labels.tif
  cellseg count slide.svs --engine dask --scheduler tcp://10.0.0.5:8786
  cellseg count s3://scans/slide.svs --output s3://scans/results"""
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
    "--types/--no-types",
    "cell_types",
    default=None,
    help="Sort nuclei by cell type, where the model can; the protocol's choice otherwise.",
)
@click.option(
    "--mpp",
    type=PIXEL_SIZE,
    help="µm per pixel, where the file does not say or is wrong.",
)
@click.option(
    "--diameter",
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
    "exports",
    multiple=True,
    metavar="NAME",
    help="Also write labels.tif, cells.geojson, rois.zip, …; cellseg export --help lists them.",
)
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
    help="GeoJSON, as QuPath exports it: count only inside its polygons.",
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
    protocol: str | None,
    model: str,
    score: float | None,
    cell_types: bool | None,
    mpp: float | None,
    diameter: float | None,
    min_area: float | None,
    max_area: float | None,
    channel: str | None,
    z: int | Literal["max", "mean"] | None,
    t: int | None,
    series: int,
    tile: int | None,
    device: str,
    precision: Literal["auto", "float32", "bfloat16", "float16"],
    batch: int | None,
    output: Location | None,
    exports: tuple[str, ...],
    as_json: bool,
    region: Path | None,
    engine: Literal["local", "dask"],
    scheduler: str | None,
    strict: bool,
    overwrite: bool,
    no_prefilter: bool,
) -> None:
    """Count and measure the cells on each IMAGE (files or folders).

    Leaves IMAGE's name with .cellseg as a folder: cells.csv (a row a cell), labels.ome.zarr
    (masks), run.json (how it was made), overview.png (a density map). Interrupted, the same
    command goes on where it stopped. IMAGE and --output may be URLs, such as s3://bucket/a.svs.
    """
    found = find_images(images)
    inside = None if region is None else read_region(region)
    base = CountRequest(
        image=found[0],
        output=output,
        protocol=protocol,
        score=score,
        cell_types=cell_types,
        tile_px=tile,
        model=model,
        mpp=mpp,
        diameter_px=diameter,
        min_area=min_area,
        max_area=max_area,
        channel=channel,
        z=z,
        t=t,
        series=series,
        prefilter=not no_prefilter,
        region=inside,
        strict=strict,
        overwrite=overwrite,
        export=exports,
        device=device,
        precision=precision,
        batch=batch,
        engine=engine,
        scheduler=scheduler,
    )
    if region is not None and len(found) > 1:
        raise SettingsError(f"--region belongs to one slide, got {len(found)} images")
    names = folder_names(found, output, ending=".cellseg" if inside is None else inside.ending)
    requests = [
        replace(base, image=image, folder_name=name)
        for image, name in zip(found, names, strict=True)
    ]
    outcomes: list[Outcome] = []
    try:
        count_all(requests, outcomes)
    finally:
        # Interrupted at the fiftieth slide, the other forty-nine are told all the same.
        if as_json:
            say(json.dumps([outcome.as_dict() for outcome in outcomes], indent=2))
        elif len(outcomes) > 1:
            say(table_of(outcomes))
    finish(outcomes)


def count_all(requests: list[CountRequest], outcomes: list[Outcome]) -> None:
    """Count each and add it to ``outcomes``; one file's error does not stop the others."""
    detectors: dict[object, Detector] = {}
    for request in requests:
        with Reporter(sys.stderr) as reporter:
            try:
                refuse_missing(request.image)
                # Here and not above: torch takes seconds to load.
                from cellseg.pipeline.run import CountResult, run

                for event in run(request, detectors=detectors):
                    reporter.show(event)
                    if isinstance(event, CountResult):
                        outcomes.append(event)
            except CellsegError as error:
                reporter.fail(request.image, error)
                outcomes.append(Failed(request.image, error))
            except Exception as error:
                log.info("unexpected", exc_info=True)
                unexpected = CellsegError(unexpected_text(error))
                reporter.fail(request.image, unexpected)
                outcomes.append(Failed(request.image, unexpected))


def refuse_missing(image: Location) -> None:
    """Say so before anything is loaded; what lies behind a URL is asked when it is opened.

    Raises
    ------
    InputError
    """
    if isinstance(image, Path) and not image.exists():
        raise InputError(f"{image}: no such file; check the path")


def finish(outcomes: list[Outcome]) -> None:
    """Choose the exit code: nothing done, done in part, or done."""
    failed = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
    if failed and len(failed) == len(outcomes):
        sys.exit(failed[0].error.exit_code)
    if failed or any(getattr(outcome, "tiles_failed", 0) for outcome in outcomes):
        sys.exit(PartialResultError.exit_code)


def table_of(outcomes: list[Outcome]) -> str:
    """A summary table for several images."""
    header = f"{'image':<40} {'cells':>9} {'per mm²':>9} {'median µm²':>11}"
    lines = [header, "-" * len(header)]
    results = []
    for result in outcomes:
        if isinstance(result, Failed):
            lines.append(f"{visible(result.image.name)[:40]:<40} {'failed':>9}")
            continue
        results.append(result)
        density = result.cells.summary.density_per_mm2
        median = result.cells.summary.median_area_um2
        lines.append(
            f"{visible(result.image.name)[:40]:<40} {len(result.cells):>9,} "
            f"{'—' if density is None else f'{density:,.0f}':>9} "
            f"{'—' if median is None else f'{median:.1f}':>11}"
        )
    total = sum(len(result.cells) for result in results)
    counted = f"{len(results)} image{'s' * (len(results) != 1)}" + (
        f", {len(outcomes) - len(results)} failed" if len(results) < len(outcomes) else ""
    )
    lines += ["-" * len(header), f"{counted:<40} {total:>9,}"]
    return "\n".join(lines)
