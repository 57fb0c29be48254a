"""``cellseg export``: other files from a result folder."""

from __future__ import annotations

from pathlib import Path

import click

from cellseg.cli._say import say
from cellseg.export import EXPORTS, check_exports
from cellseg.export import export as export_one


@click.command(
    epilog="""\b
Examples:
  cellseg export slide.cellseg --to cells.geojson        outlines, for QuPath
  cellseg export slide.cellseg --to rois.zip --to cells.parquet"""
)
@click.argument("result", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "names",
    multiple=True,
    required=True,
    metavar="NAME",
    help=f"{', '.join(EXPORTS)}; may be given several times.",
)
def export(result: Path, names: tuple[str, ...]) -> None:
    """Write a result for QuPath, ImageJ, spreadsheets or training.

    The files go into the RESULT folder; what each is for: docs/exports.md.
    """
    check_exports(names)
    for name in dict.fromkeys(names):
        say(str(export_one(result, name)))
