"""From a count's steps to the result folder: what is kept while it goes on, what is found."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from cellseg.annotations.tissue_outline import tissue_outline
from cellseg.counting.local import Mapped
from cellseg.counting.provenance import record
from cellseg.counting.request import CountRequest
from cellseg.counting.stages import SlideCount, Step
from cellseg.counting.work import TileFound
from cellseg.instances import Instances
from cellseg.result import Change, Result, ResultFolder
from cellseg.result.folder import Findings
from cellseg.result.journal import TileStatus
from cellseg.slide.formats import image_name
from cellseg.text import visible


class Recording:
    """Keeps a count's tiles and cells as they come, and leaves what was found.

    Parameters
    ----------
    folder : ResultFolder
        Open; its journal holds what an interrupted run found.
    """

    def __init__(self, folder: ResultFolder, count: SlideCount, request: CountRequest) -> None:
        self.folder, self.count, self.request = folder, count, request

    def steps(self) -> Generator[Step, None, None]:
        """The count's steps, each kept before it is handed on."""
        with closing(self.count.steps(self)) as steps:
            for step in steps:
                self._keep(step)
                yield step

    def tiles(self) -> Iterator[Mapped[TileFound]]:
        """Tiles in the journal: see :class:`cellseg.counting.measured.EarlierRun`.

        Tiles that did not decode then, in whole or in part, are left to be read again.
        """
        for entry in self.folder.tiles():
            if entry.status == "done" and not entry.info.get("damaged"):
                tile = self.count.plan.grid.at(entry.row, entry.column)
                limits = tuple(entry.info.get("limits", ()))
                yield Mapped(tile, TileFound(entry.instances, limits))

    def recall(
        self, instances: Instances, columns: Sequence[str]
    ) -> Mapping[int, NDArray[np.float64]]:
        """See :class:`cellseg.counting.measured.EarlierRun`."""
        return self.folder.recall(instances, columns)

    def _keep(self, step: Step) -> None:
        new = [(cells.table, cells.instances) for cells in step.cells if cells.is_new]
        if step.mapped is None or not step.is_new:
            for table, instances in new:
                self.folder.add_cells(table, instances)
            return
        tile, found = step.mapped.tile, step.mapped.found
        info: dict[str, object] = {"error": str(step.mapped.error)}
        if found is not None:
            blocks = found.damaged + (found.lost.blocks if found.lost else 0)
            info = {"limits": list(found.limits), "damaged": blocks}
        status: TileStatus = "failed" if found is None else "done"
        self.folder.tile_done(
            tile.row, tile.column, step.instances, status=status, info=info, cells=new
        )

    def finish(self, complete: Callable[[Change], None], *, started: float) -> Result:
        """Write everything.

        Parameters
        ----------
        complete : callable
            Gets what was found, and adds what follows from it.
        started : float
            When the run began, by ``time.monotonic()``.
        """
        count, info, writing = self.count, self.count.detector.info, time.monotonic()

        def completed(change: Change) -> None:
            complete(change)
            now = time.monotonic()
            stages = {**count.seconds, "write": now - writing, "total": now - started}
            change.run["seconds"] = {name: round(took, 3) for name, took in stages.items()}

        findings = Findings(
            frame=count.frame,
            columns=count.cells.columns,
            class_names=info.classes,
            object_name=info.object,
            image_name=visible(image_name(count.slide.path)),
            facts=self._facts(),
            record=record(count, self.request),
            tissue=self._outline() if count.plan.prefilter else None,
            regions=self.request.regions,
            is_complete=not count.tally.failures,
        )
        return self.folder.finish(findings, completed)

    def _facts(self) -> dict[str, object]:
        """What of the count no later change alters."""
        count, tally = self.count, self.count.tally
        calibration = count.plan.protocol.calibration
        tissue_mm2, in_regions = count.tissue_mm2()
        return {
            "tissue_mm2": tissue_mm2,
            "tissue_mm2_in_regions": in_regions,
            "skipped_share": count.skipped_share if count.plan.prefilter else None,
            "interval": calibration.interval if calibration else None,
            "warnings": count.warnings(),
            "is_doubted": bool(count.wanted),
            "counted": {
                "outside_size_gates": tally.gated,
                "saturated_share": tally.at_limit / tally.pixels if tally.pixels else None,
                "outside_tissue": tally.outside,
                "like_background": tally.background,
                **{f"merge_{name}": value for name, value in vars(count.merger.stats).items()},
            },
        }

    def _outline(self) -> dict[str, object] | None:
        tissue = self.count.tissue
        step = tissue.step * self.count.plan.downsample
        slide = self.count.slide
        within = (slide.height, slide.width)
        return tissue_outline(tissue.tissue & tissue.search, downsample=step, within=within)
