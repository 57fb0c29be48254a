"""Images, counted one by one or several at once: progress, table and study of the outcomes."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cellseg.cli._jobs import Run, at_once
from cellseg.cli._shared import option, refuse_missing, say
from cellseg.counting.request import CountRequest
from cellseg.errors import (
    CellsegError,
    InputError,
    Notice,
    PartialResultError,
    SettingsError,
    hinted,
    unforeseen,
)
from cellseg.events import JSON_KEYS, CountResult, Event, ProgressBar, Started
from cellseg.slide.formats import image_name, slide_name
from cellseg.storage import Location
from cellseg.study.images import ImageFile
from cellseg.table.summary import lines
from cellseg.text import shortened, visible

if TYPE_CHECKING:
    from cellseg.study.folder import Study

log = logging.getLogger(__name__)


class Reporter(ProgressBar):
    """Lines above a bar on a terminal; elsewhere also how far it is, a line every ``quiet_s``.

    Notices that are ``known`` from the images before are not said again; of several time points
    each line says which, ``t``.
    """

    def __init__(
        self,
        *,
        err: bool = True,
        quiet_s: float = 15.0,
        known: set[str] | None = None,
        t: int | None = None,
    ) -> None:
        super().__init__(sys.stderr if err else sys.stdout)
        self._err, self._quiet_s, self._last = err, quiet_s, time.monotonic()
        self._said = set() if known is None else known
        self._point = "" if t is None else f", t {t}"

    def say(self, text: str) -> None:
        say(text, err=self._err, console=None if self.bar.disable else self.bar.console)

    def update(self, share: float, doing: str, so_far: str, line: str) -> None:
        """Move the bar, or print the line where there is none."""
        super().update(share, doing, so_far, line)
        if self.bar.disable and time.monotonic() - self._last > self._quiet_s:
            self.say(line)
            self._last = time.monotonic()

    def show(self, event: Event) -> None:
        super().show(event)
        if isinstance(event, Notice):
            if event not in self._said:
                self.say(Notice(f"  {event}", hint=event.hint))
            self._said.add(str(event))
        elif isinstance(event, Started):
            self.say(f"{image_name(event.image)}{self._point}: {event.text}")
        elif isinstance(event, CountResult):
            self.say(f"{image_name(event.image)}{self._point}: {event.summary}")
            told = [text for text in event.warnings if text not in self._said]
            for text in [*lines(event.summary.regions, event.summary.object), *told]:
                self.say(Notice(f"  {text}", hint=getattr(text, "hint", "")))
            self.say(f"  results in {event.uploaded or event.folder}")

    def fail(self, image: Location, error: BaseException, name: str) -> None:
        text = hinted(error, option)
        if text.startswith(f"{image.name}: "):
            text = name + text.removeprefix(image.name)
        elif not any(name in text for name in (image.name, f"{slide_name(image)}.cellseg")):
            text = f"{image if name == image.name else name}: {text}"
        self.say(f"cellseg: {text}")


@dataclass(frozen=True)
class FailedImage:
    """An image that could not be counted, or a folder that could not be looked into."""

    image: Location
    error: CellsegError
    t: int | None = None

    tiles_failed, counted_before, made_anew = 0, False, False

    @property
    def name(self) -> str:
        """The image's name, with the time point that was asked for."""
        return image_name(self.image) + ("" if self.t is None else f", t {self.t}")

    def as_dict(self) -> dict[str, object]:
        """An object like :meth:`CountResult.as_dict`, with the error for its only warning."""
        known = {"image": str(self.image), "warnings": [str(self.error)]}
        return dict.fromkeys(JSON_KEYS) | known


Outcome = CountResult | FailedImage


def count_images(
    requests: Sequence[CountRequest], outcomes: list[Outcome], *, jobs: int = 1
) -> None:
    """Count each, ``jobs`` at once, and add it to ``outcomes``; one's error stops no other one."""
    from cellseg.run import run

    known: set[str] = set()
    here: nullcontext[list[Run]] = nullcontext([partial(run, request) for request in requests])
    with at_once(requests, jobs) if jobs > 1 else here as runs:
        for done, (request, events) in enumerate(zip(requests, runs, strict=True)):
            with Reporter(known=known, t=request.t) as reporter:
                if jobs > 1:
                    so_far = f"{done:,}/{len(requests):,} images"
                    reporter.update(done / len(requests), "counting", so_far, so_far)
                try:
                    refuse_missing(request.image)
                    for event in events():
                        reporter.show(event)
                        if isinstance(event, CountResult):
                            outcomes.append(event)
                except Exception as error:
                    if not isinstance(error, CellsegError):
                        log.info("unexpected", exc_info=True)
                        error = unforeseen(error)
                    failed = FailedImage(request.image, error, request.t)
                    reporter.fail(request.image, error, failed.name)
                    outcomes.append(failed)
    if len(outcomes) > 1 and all(outcome.counted_before for outcome in outcomes):
        images = f"all {len(outcomes):,} images were counted before with the same settings"
        anew = any(outcome.made_anew for outcome in outcomes)
        besides = f"{images}; what was asked for besides was made anew"
        say(besides if anew else f"nothing to do: {images}", err=True)


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """Nothing done, done in part, or done."""
    failed = [outcome.error for outcome in outcomes if isinstance(outcome, FailedImage)]
    if failed and len(failed) == len(outcomes):
        return failed[0].exit_code
    is_partial = failed or any(outcome.tiles_failed for outcome in outcomes)
    return PartialResultError.exit_code if is_partial else 0


def table_of(outcomes: Sequence[Outcome]) -> str:
    """A summary table for several images."""
    rows = [("image", "cells", "per mm²", "median area")]
    counted = [outcome.summary for outcome in outcomes if isinstance(outcome, CountResult)]
    for outcome in outcomes:
        if isinstance(outcome, FailedImage):
            name = shortened(visible(outcome.name), 40)
            rows.append((name, "failed", "", ""))
            continue
        name = shortened(outcome.result.image_name, 40)
        summary, density = outcome.summary, outcome.summary.density_per_mm2
        areas, unit = (summary.area_um2, "µm²") if summary.area_um2 else (summary.area_px, "px²")
        median = "—" if areas is None else f"{areas.median:.1f} {unit}"
        per_mm2 = "—" if density is None else f"{density:,.0f}"
        rows.append((name, f"{summary.cells:,}", per_mm2, median))
    said = f"{len(counted)} image{'s' * (len(counted) != 1)}"
    if len(counted) < len(outcomes):
        said += f", {len(outcomes) - len(counted)} failed"
    rows.append((said, f"{sum(summary.cells for summary in counted):,}", "", ""))
    first, *others, last = [f"{a:<40} {b:>9} {c:>9} {d:>12}".rstrip() for a, b, c, d in rows]
    rule = "-" * len(first)
    return "\n".join([first, rule, *others, rule, last])


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
    # Imported late, as below: one image leaves no study.
    from cellseg.study.folder import study_at, with_failures
    from cellseg.study.rows import failed_row

    paths = [visible(str(outcome.image.absolute())) for outcome in outcomes]
    failed = [
        failed_row(outcome.name, path, str(outcome.error))
        for outcome, path in zip(outcomes, paths, strict=True)
        if isinstance(outcome, FailedImage)
    ]
    try:
        with study_at(home, report=report, parquet=parquet) as found:
            study = with_failures(found, failed, attempted=paths)
            for line in study.unread:
                say(f"cellseg: {line}", err=True)
            write_study_files(study, report=report, parquet=parquet)
    except InputError:
        if len(failed) < len(outcomes):
            raise  # otherwise the reason was told for each image


def write_study_files(
    study: Study, page: Path | None = None, *, report: bool = False, parquet: bool = False
) -> None:
    """Write a study's page and table if wanted, and its summary, and say where they are."""
    from cellseg.study.arrays import write_wells
    from cellseg.study.folder import write_cells, write_summary

    if report:  # first, as it may lie elsewhere than in a folder that cannot be written to
        from cellseg.study.page import write_study

        say(f"report: {write_study(study, page)}", err=True)
    count = len(study.results)
    of = f"{count:,} result{'s' * (count != 1)}"
    say(f"summary of {of}: {write_summary(study)}", err=True)
    for row in study.rows:
        if row.get("drawn"):
            say(f"  {row['image']}: {row['drawn']}", err=True)
    if (wells := write_wells(study)) is not None:
        say(f"wells: {wells}", err=True)
    if parquet:
        say(f"cells of all images: {write_cells(study)}", err=True)
