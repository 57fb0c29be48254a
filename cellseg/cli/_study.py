"""What counting a folder, or several images, leaves beside their results."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cellseg.cli._many import Failed, Outcome
from cellseg.cli._say import say
from cellseg.errors import InputError, SettingsError
from cellseg.storage import Location
from cellseg.study.images import ImageFile
from cellseg.text import visible

if TYPE_CHECKING:
    from cellseg.study.folder import Study
    from cellseg.study.rows import SummaryRow


@dataclass(frozen=True, kw_only=True)
class Left:
    """The tables and pages of a study.

    Attributes
    ----------
    home : Path, RemotePath or None
        The folder that gets them; None: there is no study.
    report, parquet : bool
        Whether they are wanted.
    """

    home: Location | None
    report: bool
    parquet: bool

    @classmethod
    def of(
        cls,
        given: Sequence[Location],
        images: Sequence[ImageFile],
        output: Location | None,
        *,
        report: bool,
        parquet: bool,
    ) -> Left:
        """What the command's arguments ask for.

        Raises
        ------
        SettingsError
            If something is wanted that has no place.
        """
        home = _home(given, images, output)
        wanted = [name for name, on in (("--report", report), ("--parquet", parquet)) if on]
        if home is None and wanted:
            raise SettingsError(
                f"{' and '.join(wanted)}: give a folder with --output, for the images do "
                "not lie in one"
            )
        one = len(images) == 1 and images[0].path == given[0]
        return cls(home=None if one and not wanted else home, report=report, parquet=parquet)

    def summarise(self, outcomes: Sequence[Outcome], *, alone: bool = True) -> None:
        """Write ``summary.csv``, where there are results, and what else is wanted if not alone."""
        if self.home is None:
            return
        # Here and not above: it takes a second to load.
        from cellseg.study.folder import study_at
        from cellseg.study.summary import with_failures

        failed = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
        report, parquet = (wanted and not alone for wanted in (self.report, self.parquet))
        with ExitStack() as stack:
            try:
                found = stack.enter_context(study_at(self.home, report=report, parquet=parquet))
            except InputError:
                if len(failed) == len(outcomes):
                    return  # why, was told of each
                raise
            attempted = [_path(outcome.image) for outcome in outcomes]
            study = with_failures(found, [_failed(one) for one in failed], attempted=attempted)
            summarise(study)
            leave(study, report=report, parquet=parquet)

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """Write all that is wanted."""
        before = [getattr(outcome, "counted_before", False) for outcome in outcomes]
        if len(before) > 1 and all(before):
            say(
                f"nothing to do: all {len(before):,} images were counted before with the same "
                "settings",
                err=True,
            )
        self.summarise(outcomes, alone=False)


def summarise(study: Study) -> None:
    """Write a study's ``summary.csv``, and say where it is and what could not be read."""
    from cellseg.study.summary import write_summary

    for line in study.unread:
        say(f"cellseg: {line}", err=True)
    count = len(study.results)
    of = f"{count:,} result{'s' * (count != 1)}"
    say(f"summary of {of}: {write_summary(study)}", err=True)


def leave(study: Study, *, report: bool, parquet: bool, page: Path | None = None) -> None:
    """Write a study's page and its table of cells, and say where they are."""
    if parquet:
        from cellseg.study.summary import write_cells

        say(f"cells of all images: {write_cells(study)}", err=True)
    if report:
        from cellseg.study.page import write_study

        say(f"report: {write_study(study, page)}", err=True)


def _home(
    given: Sequence[Location], images: Sequence[ImageFile], output: Location | None
) -> Location | None:
    """The output, the folder that was searched, or the one that all results lie in."""
    home = output
    if home is None and len(given) == 1 and any(image.below.parts for image in images):
        home = given[0]
    if home is None:
        homes = {image.home(None) for image in images}
        home = homes.pop() if len(homes) == 1 else None
    return home


def _path(image: Location) -> str:
    return visible(str(image.absolute()))


def _failed(outcome: Failed) -> SummaryRow:
    from cellseg.study.rows import failed_row

    return failed_row(outcome.image.name, _path(outcome.image), str(outcome.error))
