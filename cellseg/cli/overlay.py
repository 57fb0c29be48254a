"""``cellseg overlay``."""

from __future__ import annotations

from pathlib import Path

import click

from cellseg.cli._options import moved_option, result_argument
from cellseg.cli._say import say
from cellseg.storage import Location


@click.command(
    epilog="""\b
Examples:
  cellseg overlay slide.cellseg
  cellseg overlay slide.cellseg --box 10240 5120 10752 5632
  cellseg overlay slide.cellseg --image /mnt/archive/slide.svs -o slide.png"""
)
@result_argument
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
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.png",
    help="The picture; otherwise one in the result folder.",
)
@click.option("--cells", is_flag=True, help="The cells that cellseg expand grew around the nuclei.")
@moved_option
def overlay(
    path: Path,
    box: tuple[int, int, int, int] | None,
    output: Path | None,
    cells: bool,
    image: Location | None,
) -> None:
    """Draw a result's outlines over its slide, anywhere, as a PNG.

    Cells are outlined by class, under a legend with their numbers and a scale bar. A slide that
    was moved is named with --image.
    """
    # Imported late: it takes seconds, and --help needs none of it.
    from cellseg.draw.pictures import overlay as draw
    from cellseg.result.result import load_result

    say(str(draw(load_result(path), box=box, image=image, output=output, cells=cells)))
