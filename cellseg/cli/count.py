"""``cellseg count``."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Literal

import click

from cellseg.cli._progress import Reporter
from cellseg.cli.info import Plane
from cellseg.errors import CellsegError, InputError, PartialResultError
from cellseg.pipeline import CountResult, run
from cellseg.plan import CountRequest
from cellseg.slide import slide_name

SUFFIXES = (
    ".tif", ".tiff", ".svs", ".ndpi", ".png", ".jpg", ".jpeg", ".zarr", ".btf", ".qptiff",
)  # fmt: skip


def find_images(paths: tuple[Path, ...]) -> list[Path]:
    """Files as they are, folders replaced by the images in them.

    Raises
    ------
    InputError
        If a folder holds no image.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir() or path.suffix.lower() == ".zarr":
            found.append(path)
            continue
        inside = sorted(
            entry
            for entry in path.iterdir()
            if entry.suffix.lower() in SUFFIXES and not entry.name.startswith(".")
        )
        if not inside:
            raise InputError(f"{path}: no images in this folder ({', '.join(SUFFIXES)})")
        found += inside
    return found


def folder_names(images: list[Path], output: Path | None) -> list[str]:
    """``slide.cellseg``; the whole file name where two images would share it."""
    homes = [(output or image.parent, slide_name(image)) for image in images]
    counts = Counter(homes)
    return [
        f"{home[1] if counts[home] == 1 else image.name}.cellseg"
        for image, home in zip(images, homes, strict=True)
    ]


@click.command(
    epilog="""\b
Examples:
  cellseg count slide.svs
  cellseg count field.png --mpp 0.5 --protocol fluorescence
  cellseg count scans/ --output results/ --json > counts.json
  cellseg count cells.ome.tif --channel DAPI --z max --export labels.tif"""
)
@click.argument(
    "images", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="IMAGE..."
)
@click.option(
    "--protocol",
    metavar="NAME|FILE",
    help="he, ihc, fluorescence, brightfield, or a YAML file; chosen from the image otherwise.",
)
@click.option(
    "--model",
    default="default",
    show_default=True,
    metavar="FILE",
    help="A model made by 'cellseg train'.",
)
@click.option(
    "--score",
    type=click.FloatRange(0.01, 1.0),
    help="Count cells from this score on; the protocol's otherwise.",
)
@click.option(
    "--mpp",
    type=click.FloatRange(0.0, 100.0, min_open=True),
    help="µm per pixel, where the file does not say or is wrong.",
)
@click.option(
    "--diameter",
    type=click.FloatRange(0.0, 10_000.0, min_open=True),
    metavar="PX",
    help="Usual cell's diameter in pixels, for images without pixel size.",
)
@click.option("--channel", metavar="NAME|NUMBER", help="Channel to count in (numbers from 0).")
@click.option(
    "--z",
    type=Plane(),
    metavar="N|max|mean",
    help="Plane (from 0) or projection; the middle plane otherwise.",
)
@click.option("--t", type=click.IntRange(min=0), help="Time point (from 0); the first otherwise.")
@click.option(
    "--tile",
    type=click.IntRange(min=64),
    metavar="PX",
    help="Side of a tile, model pixels; the count does not depend on it.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps.")
@click.option(
    "--batch", type=click.IntRange(min=1), help="Tiles that go through the network together."
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder for the results; beside each image otherwise.",
)
@click.option(
    "--export",
    "exports",
    multiple=True,
    metavar="labels.tif",
    help="Also write the labels as a TIFF of the slide's size.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print a JSON list, one object per image, and nothing else on stdout.",
)
@click.option("--strict", is_flag=True, help="Stop at the first tile that does not decode.")
@click.option("--no-prefilter", is_flag=True, help="Look everywhere, not only where tissue is.")
def count(
    images: tuple[Path, ...],
    protocol: str | None,
    model: str,
    score: float | None,
    mpp: float | None,
    diameter: float | None,
    channel: str | None,
    z: int | Literal["max", "mean"] | None,
    t: int | None,
    tile: int | None,
    device: str,
    batch: int | None,
    output: Path | None,
    exports: tuple[str, ...],
    as_json: bool,
    strict: bool,
    no_prefilter: bool,
) -> None:
    """Count and measure the cells on each IMAGE (files or folders).

    Leaves IMAGE's name with .cellseg as a folder: cells.csv (a row a cell), labels.ome.zarr
    (masks), run.json (how it was made), overview.png (a density map). Interrupted, the same
    command goes on where it stopped.
    """
    found = find_images(images)
    base = CountRequest(
        image=found[0],
        output=output,
        protocol=protocol,
        score=score,
        tile_px=tile,
        model=model,
        mpp=mpp,
        diameter_px=diameter,
        channel=channel,
        z=z,
        t=t,
        prefilter=not no_prefilter,
        strict=strict,
        export=exports,
        device=device,
        batch=batch,
    )
    names = folder_names(found, output)
    requests = [
        replace(base, image=image, folder_name=name)
        for image, name in zip(found, names, strict=True)
    ]
    results, errors = count_all(requests)
    if as_json:
        click.echo(json.dumps([result.as_dict() for result in results], indent=2))
    elif len(results) > 1:
        click.echo(table_of(results))
    finish(results, errors, files=len(requests))


def count_all(
    requests: list[CountRequest],
) -> tuple[list[CountResult], list[CellsegError]]:
    """Count each; one file's error does not stop the others."""
    results: list[CountResult] = []
    errors: list[CellsegError] = []
    detectors: dict[object, object] = {}
    for request in requests:
        with Reporter(sys.stderr) as reporter:
            try:
                for event in run(request, detectors=detectors):
                    reporter.show(event)
                    if isinstance(event, CountResult):
                        results.append(event)
            except CellsegError as error:
                reporter.fail(request.image, error)
                errors.append(error)
    return results, errors


def finish(results: list[CountResult], errors: list[CellsegError], *, files: int) -> None:
    """Choose the exit code: nothing done, done in part, or done."""
    if errors and not results:
        sys.exit(errors[0].exit_code)
    if errors or any(result.tiles_failed for result in results):
        sys.exit(PartialResultError.exit_code)


def table_of(results: list[CountResult]) -> str:
    """A summary table for several images."""
    header = f"{'image':<40} {'cells':>9} {'per mm²':>9} {'median µm²':>11}"
    lines = [header, "-" * len(header)]
    for result in results:
        density = result.cells.summary.density_per_mm2
        median = result.cells.summary.median_area_um2
        lines.append(
            f"{result.image.name[:40]:<40} {len(result.cells):>9,} "
            f"{'—' if density is None else f'{density:,.0f}':>9} "
            f"{'—' if median is None else f'{median:.1f}':>11}"
        )
    total = sum(len(result.cells) for result in results)
    lines += ["-" * len(header), f"{f'{len(results)} images':<40} {total:>9,}"]
    return "\n".join(lines)
