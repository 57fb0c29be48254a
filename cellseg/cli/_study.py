"""A study's summary, page and table of cells: what is written beside the results, and said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cellseg.cli._images import FailedImage, Outcome
from cellseg.cli._say import say
from cellseg.errors import InputError, SettingsError
from cellseg.storage import Location
from cellseg.study.folder import Study, study_at
from cellseg.study.images import ImageFile
from cellseg.study.rows import failed_row
from cellseg.study.summary import with_failures, write_cells, write_summary
from cellseg.text import visible


def home_of_study(
    given: Sequence[Location],
    images: Sequence[ImageFile],
    output: Location | None,
    *,
    report: bool,
    parquet: bool,
) -> Location | None:
    """The output, the folder that was searched, or the one that all results lie in.

    None where one image was given and nothing of a study is wanted.

    Raises
    ------
    SettingsError
        If something is wanted that has no place.
    """
    wanted = [name for name, on in (("--report", report), ("--parquet", parquet)) if on]
    if not wanted and len(images) == 1 and images[0].path == given[0]:
        return None
    if output is not None:
        return output
    if len(given) == 1 and any(image.below.parts for image in images):
        return given[0]
    homes = {image.home(None) for image in images}
    if len(homes) == 1:
        return homes.pop()
    if wanted:
        raise SettingsError(
            f"{' and '.join(wanted)}: give a folder with --output, for the images do not lie in one"
        )
    return None


def summarise_outcomes(
    home: Location | None,
    outcomes: Sequence[Outcome],
    *,
    report: bool = False,
    parquet: bool = False,
) -> None:
    """Write what a study of these images leaves; nothing where it has no home."""
    if home is None:
        return
    failed = [outcome for outcome in outcomes if isinstance(outcome, FailedImage)]
    rows = [failed_row(one.image.name, _path(one.image), str(one.error)) for one in failed]
    attempted = [_path(outcome.image) for outcome in outcomes]
    try:
        with study_at(home, report=report, parquet=parquet) as found:
            study = with_failures(found, rows, attempted=attempted)
            write_study_files(study, report=report, parquet=parquet)
    except InputError:
        if len(failed) < len(outcomes):
            raise  # otherwise the reason was told for each image


def write_study_files(
    study: Study, *, report: bool, parquet: bool, page: Path | None = None
) -> None:
    """Write a study's summary, and its table and page if wanted, and say where they are."""
    for line in study.unread:
        say(f"cellseg: {line}", err=True)
    count = len(study.results)
    of = f"{count:,} result{'s' * (count != 1)}"
    say(f"summary of {of}: {write_summary(study)}", err=True)
    if parquet:
        say(f"cells of all images: {write_cells(study)}", err=True)
    if report:
        from cellseg.study.page import write_study

        say(f"report: {write_study(study, page)}", err=True)


def _path(image: Location) -> str:
    return visible(str(image.absolute()))
