"""Several images, counted one after the other."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cellseg.cli._options import refuse_missing
from cellseg.cli._progress import Reporter
from cellseg.cli._say import say
from cellseg.counting.request import CountRequest
from cellseg.errors import CellsegError, PartialResultError, unforeseen
from cellseg.events import CountResult
from cellseg.slide.formats import image_name
from cellseg.storage import Location
from cellseg.text import visible

if TYPE_CHECKING:
    from cellseg.network.detector import Detector

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FailedImage:
    """An image that could not be counted, or a folder that could not be looked into."""

    image: Location
    error: CellsegError

    tiles_failed, counted_before = 0, False

    def as_dict(self) -> dict[str, object]:
        """An object like :meth:`CountResult.as_dict`, with the error for its only warning."""
        unknown = (
            "output", "cells", "cells_per_class", "tissue_mm2", "density_per_mm2",
            "median_area_um2", "regions", "tiles", "tiles_skipped", "tiles_failed", "seconds",
        )  # fmt: skip
        return {"image": str(self.image), **dict.fromkeys(unknown), "warnings": [str(self.error)]}


Outcome = CountResult | FailedImage


def count_images(requests: Sequence[CountRequest], outcomes: list[Outcome]) -> None:
    """Count each and add it to ``outcomes``; one file's error does not stop the others."""
    from cellseg.run import run

    detectors: dict[object, Detector] = {}
    for request in requests:
        with Reporter(sys.stderr) as reporter:
            try:
                refuse_missing(request.image)
                for event in run(request, detectors=detectors):
                    reporter.show(event)
                    if isinstance(event, CountResult):
                        outcomes.append(event)
            except Exception as error:
                if not isinstance(error, CellsegError):
                    log.info("unexpected", exc_info=True)
                    error = unforeseen(error)
                reporter.fail(request.image, error)
                outcomes.append(FailedImage(request.image, error))
    if len(outcomes) > 1 and all(outcome.counted_before for outcome in outcomes):
        say(
            f"nothing to do: all {len(outcomes):,} images were counted before with the same "
            "settings",
            err=True,
        )


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """Nothing done, done in part, or done."""
    failed = [outcome.error for outcome in outcomes if isinstance(outcome, FailedImage)]
    if failed and len(failed) == len(outcomes):
        return failed[0].exit_code
    is_partial = failed or any(outcome.tiles_failed for outcome in outcomes)
    return PartialResultError.exit_code if is_partial else 0


def table_of(outcomes: Sequence[Outcome]) -> str:
    """A summary table for several images."""
    header = f"{'image':<40} {'cells':>9} {'per mm²':>9} {'median area':>12}"
    lines = [header, "-" * len(header)]
    counted = [outcome.summary for outcome in outcomes if isinstance(outcome, CountResult)]
    for outcome in outcomes:
        name = f"{visible(image_name(outcome.image))[:40]:<40}"
        if isinstance(outcome, FailedImage):
            lines.append(f"{name} {'failed':>9}")
            continue
        summary, density = outcome.summary, outcome.summary.density_per_mm2
        areas, unit = (summary.area_um2, "µm²") if summary.area_um2 else (summary.area_px, "px²")
        lines.append(
            f"{name} {summary.cells:>9,} {'—' if density is None else f'{density:,.0f}':>9} "
            f"{'—' if areas is None else f'{areas.median:.1f} {unit}':>12}"
        )
    said = f"{len(counted)} image{'s' * (len(counted) != 1)}"
    if len(counted) < len(outcomes):
        said += f", {len(outcomes) - len(counted)} failed"
    total = sum(summary.cells for summary in counted)
    return "\n".join([*lines, "-" * len(header), f"{said:<40} {total:>9,}"])
