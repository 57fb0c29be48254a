"""``cellseg spatial``."""

from __future__ import annotations

from pathlib import Path

import click

from cellseg.cli._options import Place
from cellseg.cli._say import say, tell
from cellseg.errors import InputError
from cellseg.storage import Location


@click.command(
    epilog="""\b
Examples:
  cellseg spatial slide.cellseg
  cellseg spatial slide.cellseg --within 50
  cellseg classify slide.cellseg --measure neighbours_30um --threshold 10"""
)
@click.argument("path", metavar="RESULT", type=Place())
@click.option(
    "--within",
    type=int,
    metavar="DISTANCE",
    help="Count neighbours within it: whole µm (30 unless said), or pixels of an image without "
    "a pixel size.",
)
def spatial(path: Location, within: int | None) -> None:
    """Measure neighbours, density and distance to the border, of a finished result.

    Neither the network nor the slide's pixels are needed. cells.csv gets the columns; exports that
    were made are made again. With several classes also the distance to the nearest cell of each.
    """
    if not isinstance(path, Path):
        raise InputError(f"{path}: is behind a URL; copy the result folder to a disk first")
    # Imported late: it takes seconds, and --help needs none of it.
    from cellseg.run import change

    result = change(path, on_notice=tell, spatial=True, within=within)
    for name, median in result.run["spatial"]["medians"].items():
        say(f"{name}: median {median:,.4g}")
