"""From tiles to the result folder: journal, merge, measure, spool, totals."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from cellseg.counting.plan import Plan
from cellseg.counting.provenance import Provenance, Tally
from cellseg.counting.request import CountRequest
from cellseg.counting.tiles import TileSource, overview_step
from cellseg.detect import DetectorInfo
from cellseg.errors import RegionError
from cellseg.geometry import Box, Tile
from cellseg.instances import Instances
from cellseg.intensity.normalise import Normaliser
from cellseg.measure import REGION, Column, Scale, columns, measure
from cellseg.measure.summary import Summary, SummaryBuilder
from cellseg.merge import SeamMerger, Settled
from cellseg.results import (
    FinishedTile,
    Frame,
    Ground,
    Overview,
    Report,
    ResultFolder,
    readable,
    tissue_outline,
)
from cellseg.slide import Slide
from cellseg.tissue import TissueMask


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


class Recorder:
    """Takes tiles as they finish and leaves the result.

    Attributes
    ----------
    wanted : list of Tile
        Tiles with tissue.
    total, tiles_in : int
        Tiles with tissue, and those that came.
    tally : Tally
    seconds : dict
        Time per stage.
    """

    def __init__(
        self,
        folder: ResultFolder,
        slide: Slide,
        plan: Plan,
        source: TileSource,
        tissue: TissueMask,
        info: DetectorInfo,
    ) -> None:
        self.folder, self.slide, self.plan, self.source = folder, slide, plan, source
        self.tissue, self.info = tissue, info
        tiles = list(plan.grid)
        searched = [] if source.normaliser.blank else tiles
        self.wanted = [tile for tile in searched if tissue.coverage(tile.core) > 0]
        wanted = {(tile.row, tile.column) for tile in self.wanted}
        absent = {(tile.row, tile.column) for tile in tiles} - wanted
        self.tally = Tally(skipped=len(absent))
        self.total = len(self.wanted)
        self._earlier: set[tuple[int, int]] = set()
        self.tiles_in = 0
        self.seconds: dict[str, float] = defaultdict(float)
        self.merger = SeamMerger(plan.grid, absent=absent)
        self.scale = Scale(plan.downsample, slide.mpp)
        self.builder = SummaryBuilder(
            info.classes, object=info.object, scale=self.scale, regions=plan.regions
        )

    @property
    def frame(self) -> Frame:
        """The slide's size, and how the lattice lies on it."""
        return Frame(
            height=self.slide.height,
            width=self.slide.width,
            lattice_height=self.plan.grid.height,
            lattice_width=self.plan.grid.width,
            downsample=self.plan.downsample,
            mpp=self.slide.mpp,
        )

    @property
    def columns(self) -> tuple[Column, ...]:
        """The table's columns."""
        return columns(
            self._channels,
            stain=self.plan.protocol.stain,
            has_mpp=self.slide.mpp is not None,
            has_regions=self.plan.regions is not None,
        )

    @property
    def _channels(self) -> tuple[str, ...]:
        return self.source.channel_names if self.plan.protocol.intensity else ()

    @property
    def _white(self) -> float | None:
        """Raw value of full transmission, for optical densities."""
        normaliser = self.source.normaliser
        return normaliser.high if normaliser.light == "transmitted" else None

    def todo(self) -> list[Tile]:
        """Tiles with tissue that :meth:`replay` did not bring."""
        return [tile for tile in self.wanted if (tile.row, tile.column) not in self._earlier]

    def replay(self) -> Iterator[tuple[Tile, Instances]]:
        """Merge what an earlier run left in the journal.

        Tiles that did not decode then, in whole or in part, are left to be read again.
        """
        wanted = {(tile.row, tile.column) for tile in self.wanted}
        for entry in self.folder.tiles():
            whole = entry.status == "done" and not entry.info.get("damaged")
            if not whole or (entry.row, entry.column) not in wanted:
                continue
            self._earlier.add((entry.row, entry.column))
            tile = self.plan.grid.at(entry.row, entry.column)
            self.tally.tile(entry.info)
            self._merge(tile, entry.instances)
            yield tile, entry.instances

    def done(
        self, tile: Tile, instances: Instances, *, limits: tuple[str, ...], damaged: int
    ) -> Instances:
        """A tile's instances, on the slide's lattice."""
        info: dict[str, object] = {"limits": list(limits), "damaged": damaged}
        self.folder.tile_done(tile.row, tile.column, instances, status="done", info=info)
        self.tally.tile(info)
        self._merge(tile, instances)
        return instances

    def failed(self, tile: Tile, error: str) -> Instances:
        """A tile that did not decode."""
        nothing = Instances.empty()
        self.folder.tile_done(
            tile.row, tile.column, nothing, status="failed", info={"error": error}
        )
        self.tally.failure(tile, error)
        self._merge(tile, nothing)
        return nothing

    def _merge(self, tile: Tile, instances: Instances) -> None:
        self.tiles_in += 1
        start = time.monotonic()
        settled = self.merger.add(tile, instances)
        self.seconds["merge"] += time.monotonic() - start
        self._settle(settled)

    def _settle(self, settled: Settled) -> None:
        """Gate, measure and spool cells that are final."""
        settled = self._gate(settled)
        if not len(settled.instances):
            return
        start = time.monotonic()
        for tile, chosen in self._by_tile(settled.instances):
            part = settled.instances.take(chosen)
            table = self._table(
                part, tile, settled.stitched[chosen], settled.touches_border[chosen]
            )
            if self.plan.regions is not None:
                place = table["centroid_y_px"], table["centroid_x_px"]
                held = np.unique(self.plan.regions.holding(*place)[0])
                table, part = table.iloc[held], part.take(held)
            self.tally.kept += len(part)
            self.builder.add(table)
            self.folder.add_cells(table, part)
        self.seconds["measure"] += time.monotonic() - start

    def _gate(self, settled: Settled) -> Settled:
        """Drop what is too small, too large, or outside the tissue: asked of the cell."""
        instances = settled.instances
        if not len(instances):
            return settled
        pixel_um = self.scale.lattice_mpp or self.plan.protocol.mpp
        area = instances.areas * pixel_um**2
        gate = self.plan.protocol
        sized = (area >= gate.min_area_um2) & (area <= gate.max_area_um2)
        centres = (instances.boxes[:, :2] + instances.boxes[:, 2:]) / 2
        inside = self.tissue.contains(centres[:, 0], centres[:, 1])
        self.tally.gated += int(np.count_nonzero(~sized))
        self.tally.outside += int(np.count_nonzero(sized & ~inside))
        keep = np.flatnonzero(sized & inside)
        return Settled(instances.take(keep), settled.stitched[keep], settled.touches_border[keep])

    def _by_tile(self, instances: Instances) -> Iterator[tuple[Tile | None, NDArray[np.int64]]]:
        """Group cells by the tile whose padded box holds them; None for larger ones."""
        side = self.plan.grid.tile
        groups: dict[tuple[int, int] | None, list[int]] = defaultdict(list)
        for index, (y0, x0, y1, x1) in enumerate(instances.boxes.tolist()):
            place = ((y0 + y1 - 1) // 2 // side, (x0 + x1 - 1) // 2 // side)
            padded = self.plan.grid.at(*place).padded
            fits = y0 >= padded.y0 and x0 >= padded.x0 and y1 <= padded.y1 and x1 <= padded.x1
            groups[place if fits else None].append(index)
        for key, chosen in groups.items():
            if key is None:
                for index in chosen:
                    yield None, np.array([index])
            else:
                yield self.plan.grid.at(*key), np.array(chosen)

    def _table(
        self,
        part: Instances,
        tile: Tile | None,
        stitched: NDArray[np.bool_],
        border: NDArray[np.bool_],
    ) -> pd.DataFrame:
        raw, origin = self._pixels(part, tile)
        table = measure(
            part,
            raw,
            origin,
            scale=self.scale,
            channels=self._channels,
            stain=self.plan.protocol.stain,
            white=self._white,
        )
        names = np.array(self.info.classes, dtype=object)
        table["class"] = names[part.classes]
        table["object"] = self.info.object
        table["stitched"], table["touches_border"] = stitched, border
        table["label"] = 0
        return table[[column.name for column in self.columns if column.name != REGION]]

    def _pixels(
        self, part: Instances, tile: Tile | None
    ) -> tuple[NDArray[np.generic] | None, tuple[int, int]]:
        if not self._channels:
            return None, (0, 0)
        box = Box(
            int(part.boxes[:, 0].min()),
            int(part.boxes[:, 1].min()),
            int(part.boxes[:, 2].max()),
            int(part.boxes[:, 3].max()),
        )
        try:
            if tile is not None:
                pixels = self.source.cached(tile)
                return pixels.raw, (pixels.box.y0, pixels.box.x0)
            return self.source.region(box), (box.y0, box.x0)
        except RegionError:
            self.tally.unmeasured += len(part)
            empty = np.full((*box.shape, len(self._channels)), np.nan, dtype=np.float32)
            return empty, (box.y0, box.x0)

    def finish(
        self,
        *,
        tissue_mm2: tuple[float | None, list[float] | None],
        seconds: dict[str, float],
        started: float,
        request: CountRequest,
    ) -> tuple[Summary, list[str]]:
        """Settle the rest and write everything.

        Parameters
        ----------
        tissue_mm2 : (float or None, list of float or None)
            Tissue that was looked at, and in each region; None where nobody measured it.
        seconds : dict
            Time per stage so far.
        started : float
            When the run began, by :func:`time.monotonic`.
        request : CountRequest
        """
        self._settle(self.merger.finish())
        self.source.forget()
        calibration = self.plan.protocol.calibration
        summary = self.builder.build(
            tissue_mm2=tissue_mm2[0],
            tissue_mm2_in_regions=tissue_mm2[1],
            skipped_share=self._skipped_share() if self.plan.prefilter else None,
            interval=calibration.interval if calibration else None,
        )
        warnings = self.warnings()
        writing = time.monotonic()

        def provenance() -> dict[str, object]:
            now = time.monotonic()
            stages = {**seconds, **self.seconds, "write": now - writing, "total": now - started}
            rounded = {name: round(took, 3) for name, took in stages.items()}
            return {**self._provenance(request).record(summary, warnings), "seconds": rounded}

        title = f"{readable(self.slide.path.name)}: {summary.cells:,} {self.info.object} masks"
        self.folder.finish(
            Report(
                frame=self.frame,
                columns=self.columns,
                class_names=self.info.classes,
                object_name=self.info.object,
                provenance=provenance,
                overview=self._overview(title, tissue=self.plan.prefilter),
                ground=Ground(
                    slide=self.slide,
                    channels=self.plan.channels,
                    normaliser=self.source.normaliser,
                    title=title,
                ),
                tissue=self._outline() if self.plan.prefilter else None,
                regions=request.regions,
                complete=not self.tally.failures,
            )
        )
        return summary, warnings

    def _skipped_share(self) -> float:
        return self.tissue.skipped_px() / max(1.0, self.tissue.looked_at_px())

    def _outline(self) -> dict[str, object] | None:
        step = self.tissue.step * self.plan.downsample
        return tissue_outline(self.tissue.tissue & self.tissue.search, downsample=step)

    def _overview(self, title: str, *, tissue: bool) -> Overview | None:
        """The picture's ground; None where the slide no longer decodes at all."""
        try:
            image, downsample = self.slide.overview()
        except RegionError:
            return None
        normaliser = Normaliser.fit(image[..., list(self.plan.channels)], self.plan.protocol.light)
        seen = normaliser.apply(image[..., list(self.plan.channels)])
        return Overview(
            image=np.round(seen * 255).astype(np.uint8),
            downsample=downsample,
            mpp=self.slide.mpp,
            tissue=self.tissue.tissue if tissue else None,
            tissue_downsample=self.tissue.step * self.plan.downsample,
            title=title,
        )

    def warnings(self) -> list[str]:
        """What a person should know, one line each."""
        told = self.tally.warnings(self.plan.protocol, self.scale)
        if self.source.normaliser.blank:
            told.append("no contrast beyond noise was found: nothing is counted")
        elif not self.wanted:
            told.append("no tissue was found: nothing is counted; --no-prefilter looks everywhere")
        return [*self.slide.notes, *self.plan.notes, *told]

    def _provenance(self, request: CountRequest) -> Provenance:
        return Provenance(
            slide=self.slide,
            plan=self.plan,
            request=request,
            info=self.info,
            normaliser=self.source.normaliser,
            lattice_mpp=self.scale.lattice_mpp,
            tally=self.tally,
            tiles={
                "skipped_area_share": self._skipped_share(),
                "overview_step_px": overview_step(self.plan),
            },
            merging={name: int(value) for name, value in vars(self.merger.stats).items()},
        )
