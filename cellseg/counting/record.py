"""From a count's steps to the result folder: what is kept while it goes on, what is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from cellseg.counting.expected import expected_sizes
from cellseg.counting.local import Mapped
from cellseg.counting.plan import Plan
from cellseg.counting.provenance import record
from cellseg.counting.report import Report
from cellseg.counting.request import CountRequest
from cellseg.counting.stages import SlideCount, Step
from cellseg.counting.work import TileFound
from cellseg.draw.outlined import Ground
from cellseg.draw.overview import Overview
from cellseg.draw.tissue_outline import tissue_outline
from cellseg.errors import RegionError
from cellseg.instances import Instances
from cellseg.network.detector import DetectorInfo
from cellseg.result.files import readable
from cellseg.result.folder import ResultFolder
from cellseg.result.journal import FinishedTile, TileStatus
from cellseg.slide.formats import image_name
from cellseg.stain.normalise import Normaliser
from cellseg.table.doubts import doubts
from cellseg.table.regions import counted
from cellseg.table.summary import Summary, SummaryBuilder
from cellseg.text import visible


class TileInfo(BaseModel):
    """What the journal keeps beside a tile's instances."""

    model_config = ConfigDict(strict=True, extra="forbid")

    limits: list[str] = []
    damaged: int = Field(default=0, ge=0)
    error: str | None = None


def check_tile(tile: FinishedTile, plan: Plan, info: DetectorInfo) -> None:
    """That a tile out of a journal can be one of this run.

    Raises
    ------
    ValueError
    """
    TileInfo.model_validate(tile.info)
    found, grid = tile.instances, plan.grid
    if not (0 <= tile.row < grid.rows and 0 <= tile.column < grid.columns):
        raise ValueError(f"there is no tile ({tile.row}, {tile.column})")
    padded = grid.at(tile.row, tile.column).padded
    low, high = [padded.y0, padded.x0], [padded.y1, padded.x1]
    if (found.boxes[:, :2] < low).any() or (found.boxes[:, 2:] > high).any():
        raise ValueError(f"a box outside of its tile ({tile.row}, {tile.column})")
    if not all(mask.any() for mask in found.masks):
        raise ValueError("an empty mask")
    if not ((found.scores >= 0) & (found.scores <= 1)).all():
        raise ValueError("a score that is none")
    if ((found.classes < 0) | (found.classes >= len(info.classes))).any():
        raise ValueError("a class that the model does not have")


class Recording:
    """Keeps a count's tiles and cells as they come, and leaves the result.

    Parameters
    ----------
    folder : ResultFolder
        Open; its journal holds what an interrupted run found.
    """

    def __init__(self, folder: ResultFolder, count: SlideCount, request: CountRequest) -> None:
        self.folder, self.count, self.request = folder, count, request
        info = count.detector.info
        self._summary = SummaryBuilder(
            info.classes,
            object=info.object,
            scale=count.cells.scale,
            regions=count.plan.regions,
        )

    def steps(self) -> Generator[Step, None, None]:
        """The count's steps, each kept before it is handed on."""
        with closing(self.count.steps(self)) as steps:
            for step in steps:
                self._keep(step)
                yield step

    def tiles(self) -> Iterator[Mapped[TileFound]]:
        """What an earlier run left in the journal: see :class:`cellseg.counting.measured.Earlier`.

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
        """See :class:`cellseg.counting.measured.Earlier`."""
        return self.folder.recall(instances, columns)

    def _keep(self, step: Step) -> None:
        for cells in step.cells:
            self._summary.add(cells.table)
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

    def finish(self, *, started: float) -> None:
        """Write everything.

        Parameters
        ----------
        started : float
            When the run began, by ``time.monotonic()``.
        """
        count, prefilter = self.count, self.count.plan.prefilter
        info, calibration = count.detector.info, count.plan.protocol.calibration
        tissue_mm2, in_regions = count.tissue_mm2()
        summary = self._summary.build(
            tissue_mm2=tissue_mm2,
            tissue_mm2_in_regions=in_regions,
            skipped_share=count.skipped_share if prefilter else None,
            interval=calibration.interval if calibration else None,
        )
        sizes = expected_sizes(count.plan, self.request, info)
        common = self._summary.most_common_area_px()
        suspect = {
            "doubts": doubts(summary, common, sizes) if count.wanted else [],
            "expected_sizes": sizes.as_dict(),
        }
        warnings = [*count.warnings(), *suspect["doubts"]]
        title = f"{readable(count.slide.path.name)}: {counted(summary.cells, info.object)}"
        ground = Ground(
            slide=count.slide,
            channels=count.plan.channels,
            normaliser=count.source.normaliser,
            title=title,
        )
        self.folder.finish(
            Report(
                frame=count.frame,
                columns=count.cells.columns,
                class_names=info.classes,
                object_name=info.object,
                image_name=visible(image_name(count.slide.path)),
                provenance=self._provenance(summary, warnings, suspect, started),
                overview=self._overview(title),
                ground=ground,
                tissue=self._outline() if prefilter else None,
                regions=self.request.regions,
                complete=not count.tally.failures,
            )
        )

    def _provenance(
        self, summary: Summary, warnings: list[str], suspect: dict[str, Any], started: float
    ) -> Callable[[], dict[str, object]]:
        """The record of the run, asked for when all else is written."""
        writing = time.monotonic()

        def provenance() -> dict[str, object]:
            now = time.monotonic()
            stages = {**self.count.seconds, "write": now - writing, "total": now - started}
            rounded = {name: round(took, 3) for name, took in stages.items()}
            made = record(self.count, self.request, summary, warnings)
            return {**made, **suspect, "seconds": rounded}

        return provenance

    def _outline(self) -> dict[str, object] | None:
        tissue = self.count.tissue
        step = tissue.step * self.count.plan.downsample
        slide = self.count.slide
        within = (slide.height, slide.width)
        return tissue_outline(tissue.tissue & tissue.search, downsample=step, within=within)

    def _overview(self, title: str) -> Overview | None:
        """The picture's ground; None where the slide no longer decodes at all."""
        count = self.count
        try:
            image, downsample = count.slide.overview()
        except RegionError:
            return None
        pixels = image[..., list(count.plan.channels)]
        seen = Normaliser.fit(pixels, count.plan.protocol.light).apply(pixels)
        return Overview(
            image=np.round(seen * 255).astype(np.uint8),
            downsample=downsample,
            mpp=count.slide.mpp,
            tissue=count.tissue.tissue if count.plan.prefilter else None,
            tissue_downsample=count.tissue.step * count.plan.downsample,
            title=title,
        )
