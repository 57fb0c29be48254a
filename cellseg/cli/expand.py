"""``cellseg expand``."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from cellseg.cli._options import shared
from cellseg.cli._say import say, tell
from cellseg.storage import Location


@click.command(
    epilog="""\b
Examples:
  cellseg expand slide.cellseg --by 5
  cellseg expand slide.cellseg --by 5 --image /mnt/archive/slide.svs
  cellseg classify slide.cellseg --measure cytoplasm_dab_od_mean --threshold 0.2"""
)
@shared("result")
@click.option(
    "--by",
    type=float,
    required=True,
    metavar="DISTANCE",
    help="µm, or pixels of an image without a pixel size; up to 50 µm or 200 px.",
)
@shared("image")
def expand(path: Path, by: float, image: Location | None) -> None:
    """Grow a result's nuclei into cells, and measure these and their cytoplasm.

    Each nucleus grows until it meets its neighbour or the distance. cells.csv gets columns
    cell_… and cytoplasm_…, and cells.ome.zarr has the cells' masks; exports that were made are
    made again. Without the slide's pixels areas alone are measured.
    """
    from cellseg.run import change  # late: it takes seconds, and --help needs none of it

    found = change(path, image=image, on_notice=tell, expand=by).run["expansion"]
    say(f"grown by {by:g} {found['unit']}; new columns: {', '.join(found['columns'])}")
    say(f"look: cellseg overlay --cells {shlex.quote(str(path))}")
