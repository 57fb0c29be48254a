"""``cellseg annotations``: what was outlined in other programs."""

from typing import Any

import click

from cellseg.cli._shared import FILE, PATH, say, shared


@click.group(no_args_is_help=True)
def annotations() -> None:
    """Turn outlines from QuPath or ImageJ into training data."""


@annotations.command(
    epilog="""\b
Examples:
  cellseg annotations convert slide.geojson --image slide.svs -o training/cells.json
  cellseg annotations convert RoiSet.zip --image field.tif -o training/cells.json
  cellseg annotations convert drawn/*.geojson --image slides/ -o training/cells.json
  cellseg train training/cells.json"""
)
@click.argument("inputs", nargs=-1, required=True, type=PATH, metavar="FILE...")
@click.option(
    "-o",
    "--output",
    required=True,
    type=FILE,
    metavar="FILE.json",
    help="The training data; its pictures go into a folder images/ beside it.",
)
@click.option(
    "--image",
    "images",
    multiple=True,
    type=PATH,
    metavar="SLIDE|FOLDER",
    help="The slide that was drawn on: once for each FILE, in the same order; or a folder, in "
    "which slides are called as the FILEs are. Without it they lie beside the FILEs.",
)
@shared("mpp channel")
@click.option(
    "--class",
    "kind",
    default="cell",
    show_default=True,
    metavar="NAME",
    help="What objects without a class are called.",
)
@click.option(
    "--whole-cells",
    is_flag=True,
    help="Of QuPath's cells take the cell's outline; otherwise its nucleus's.",
)
@click.option("--overwrite", is_flag=True, help="Replace FILE.json if it is there already.")
def convert(**settings: Any) -> None:  # noqa: ANN401 - fields of ConvertRequest
    """Turn FILEs of outlines into training data for cellseg train.

    FILE is a GeoJSON that QuPath exported (.geojson, .geojson.gz) or what ImageJ's ROI manager
    saved (.zip, .roi).

    Outline every cell, or mark where you outlined every cell: in QuPath as annotations of class
    Region*, in ImageJ as ROIs whose name begins with Region*. Each region is then cut out and
    learned from alone. What lies in annotations of class Ignore* is neither learned as a cell nor
    as background.
    """
    # Imported late: what reads slides takes a second to load, and --help needs none of it.
    from cellseg.train.convert import ConvertRequest, convert

    made = convert(ConvertRequest(**settings))
    for note in made.notes:
        say(note, err=True)
    say(f"{made.output}: {made.objects:,} objects on {made.pictures:,} pictures")
