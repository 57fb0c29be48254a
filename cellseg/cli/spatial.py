"""``cellseg spatial``."""

from __future__ import annotations

from pathlib import Path

import click

from cellseg.cli._shared import say, shared, tell


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
    from cellseg.run import change  # late: it takes seconds, and --help needs none of it

    result = change(path, on_notice=tell, spatial=True, within=within)
    for name, median in result.run["spatial"]["medians"].items():
        say(f"{name}: median {median:,.4g}")
