"""``cellseg expand``."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from cellseg.cli._shared import say, shared, tell
from cellseg.storage import Location


@click.command(
    epilog="""\b
Examples:
  cellseg expand slide.cellseg --by 5
  cellseg expand cells.cellseg --from actin
  cellseg expand slide.cellseg --by 5 --image /mnt/archive/slide.svs
  cellseg classify slide.cellseg --measure cytoplasm_dab_od_mean --threshold 0.2"""
)
@shared("result")
@click.option(
    "--by",
    type=float,
    metavar="DISTANCE",
    help="µm, or pixels of an image without a pixel size; up to 50 µm or 200 px. With --from the "
    "most: 15 µm, or two diameters of a nucleus, unless given.",
)
@click.option(
    "--from",
    "--cells-from",
    "cells_from",
    metavar="CHANNEL",
    help="Grow over this channel (cytoplasm or membranes) to the cell's edge.",
)
@shared("image")
def expand(path: Path, by: float | None, cells_from: str | None, image: Location | None) -> None:
    """Grow a result's nuclei into cells, and measure these and their cytoplasm.

    Each nucleus grows until it meets its neighbour or the distance. cells.csv gets columns
    cell_… and cytoplasm_…, and cells.ome.zarr has the cells' masks; exports that were made are
    made again. Without the slide's pixels areas alone are measured.
    """
    if by is None and cells_from is None:
        raise click.UsageError("say --by DISTANCE, --from CHANNEL, or both")
    from cellseg.run import change  # late: it takes seconds, and --help needs none of it

    done = change(path, image=image, on_notice=tell, expand=by, cells_from=cells_from)
    found = done.run["expansion"]
    over = f"over {found['from']} by at most" if found["from"] else "by"
    say(f"grown {over} {found['by']:g} {found['unit']}; new columns: {', '.join(found['columns'])}")
    say(f"look: cellseg overlay --cells {shlex.quote(str(path))}")
