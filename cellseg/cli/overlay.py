"""``cellseg overlay``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cellseg.cli._shared import FILE, say, shared


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
    from cellseg.draw.pictures import overlay as draw  # late: --help needs none of it
    from cellseg.result.result import load_result

    say(str(draw(load_result(path), **settings)))
