"""Counting several images, one after the other."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from cellseg.cli._options import refuse_missing
from cellseg.cli._progress import Reporter
from cellseg.counting.request import CountRequest
from cellseg.errors import CellsegError, PartialResultError, unforeseen
from cellseg.slide.formats import image_name
from cellseg.storage import Location
from cellseg.text import visible

if TYPE_CHECKING:
    from cellseg.network.detector import Detector
    from cellseg.run import CountResult

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failed:
    """An image that could not be counted, or a folder that could not be looked into."""

    image: Location
    error: CellsegError

    def as_dict(self) -> dict[str, object]:
        """An object like :meth:`CountResult.as_dict`, with the error for its only warning."""
        unknown = (
            "output", "cells", "cells_per_class", "tissue_mm2", "density_per_mm2",
            "median_area_um2", "regions", "tiles", "tiles_skipped", "tiles_failed", "seconds",
        )  # fmt: skip
        return {"image": str(self.image), **dict.fromkeys(unknown), "warnings": [str(self.error)]}


Outcome: TypeAlias = "CountResult | Failed"


def count_all(requests: list[CountRequest], outcomes: list[Outcome]) -> None:
    """Count each and add it to ``outcomes``; one file's error does not stop the others."""
    detectors: dict[object, Detector] = {}
    for request in requests:
        with Reporter(sys.stderr) as reporter:
            try:
                refuse_missing(request.image)
                # Here and not above: torch takes seconds to load.
                from cellseg.run import CountResult, run

                for event in run(request, detectors=detectors):
                    reporter.show(event)
                    if isinstance(event, CountResult):
                        outcomes.append(event)
            except Exception as error:
                if not isinstance(error, CellsegError):
                    log.info("unexpected", exc_info=True)
                    error = unforeseen(error)
                reporter.fail(request.image, error)
                outcomes.append(Failed(request.image, error))


def finish(outcomes: list[Outcome]) -> None:
    """Choose the exit code: nothing done, done in part, or done."""
    failed = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
    if failed and len(failed) == len(outcomes):
        sys.exit(failed[0].error.exit_code)
    if failed or any(getattr(outcome, "tiles_failed", 0) for outcome in outcomes):
        sys.exit(PartialResultError.exit_code)


def table_of(outcomes: list[Outcome]) -> str:
    """A summary table for several images."""
    header = f"{'image':<40} {'cells':>9} {'per mm²':>9} {'median area':>12}"
    lines = [header, "-" * len(header)]
    results = []
    for result in outcomes:
        if isinstance(result, Failed):
            lines.append(f"{visible(image_name(result.image))[:40]:<40} {'failed':>9}")
            continue
        results.append(result)
        density = result.summary.density_per_mm2
        summary = result.summary
        areas, unit = (summary.area_um2, "µm²") if summary.area_um2 else (summary.area_px, "px²")
        lines.append(
            f"{visible(image_name(result.image))[:40]:<40} {result.summary.cells:>9,} "
            f"{'—' if density is None else f'{density:,.0f}':>9} "
            f"{'—' if areas is None else f'{areas.median:.1f} {unit}':>12}"
        )
    total = sum(result.summary.cells for result in results)
    counted = f"{len(results)} image{'s' * (len(results) != 1)}" + (
        f", {len(outcomes) - len(results)} failed" if len(results) < len(outcomes) else ""
    )
    lines += ["-" * len(header), f"{counted:<40} {total:>9,}"]
    return "\n".join(lines)
