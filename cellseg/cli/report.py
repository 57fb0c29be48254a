"""``cellseg report``: the page and the summary of all results in a folder."""

from __future__ import annotations

from pathlib import Path

import click

from cellseg.cli._shared import FILE, PLACE, shared
from cellseg.errors import InputError, PartialResultError
from cellseg.storage import Location


@click.command(
    epilog="""\b
Examples:
  cellseg report results/
  cellseg report results/ --parquet
  cellseg report results/ -o ~/study.html
  cellseg report s3://scans/results"""
)
@click.argument("folder", type=PLACE)
@click.option(
    "-o",
    "--output",
    type=FILE,
    metavar="FILE.html",
    help="The page; report.html in the folder otherwise.",
)
@shared("parquet")
def report(folder: Location, output: Path | None, parquet: bool) -> None:
    """Summarise all results below FOLDER as a page and a table.

    Leaves report.html, one file that opens without a network, and summary.csv, a row an image,
    made anew from the result folders, however they were counted. FOLDER may be a URL.
    """
    if isinstance(folder, Path) and not folder.is_dir():
        raise InputError(f"{folder}: {'is no folder' if folder.exists() else 'no such folder'}")
    # Imported late: it takes seconds, and --help needs none of it.
    from cellseg.cli._images import write_study_files
    from cellseg.study.folder import study_at
    from cellseg.study.summary import with_failures

    with study_at(folder, report=True, parquet=parquet) as found:
        study = with_failures(found)
        write_study_files(study, report=True, parquet=parquet, page=output)
    if study.unread:
        raise PartialResultError(f"{len(study.unread)} of the results could not be read")
