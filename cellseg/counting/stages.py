"""One slide's cells, tile by tile: found, merged, gated, measured.

:class:`SlideCount` knows no folder, no progress bar and no network storage: whoever drains it
(the result folder, ``evaluate``) does with the cells what it likes, and may stop at any step.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import shapely
from numpy.typing import NDArray

from cellseg.annotations.cores import find_cores
from cellseg.counting.measured import CellMeasurer, MeasuredCells
from cellseg.counting.merge import SeamMerger, Settled
from cellseg.counting.plan import SAMPLE_PX, Plan, fit_dyes, fit_normaliser
from cellseg.counting.request import CountRequest
from cellseg.counting.tally import Tally
from cellseg.counting.tiles import (
    LocalMapper,
    TileFound,
    TileSource,
    find_tissue,
    overview_step,
    unpacked_units,
)
from cellseg.errors import Notice, RegionError, SettingsError
from cellseg.geometry import Frame, Tile
from cellseg.network.detector import Detector
from cellseg.network.timer import Timer
from cellseg.network.tissue import TissueFinder, TissueMask
from cellseg.result.journal import Journal
from cellseg.slide import Slide

if TYPE_CHECKING:
    from cellseg.counting.dask import DaskMapper


@dataclass(frozen=True, eq=False)
class Step:
    """What one tile brought: what was found in it, and cells that became final with it.

    Nothing is found in the last step of all, in which the rest is settled. ``is_new`` is False
    for a tile of an earlier, interrupted run.
    """

    found: TileFound | None
    cells: tuple[MeasuredCells, ...]
    is_new: bool = True


class SlideCount:
    """The cells of one slide, by one plan.

    With ``strict`` a tile that does not decode is an error. ``tissue`` is the whole slide's, where
    that is known already; the attribute tells where cells are looked for. ``wanted`` are the tiles
    with tissue, ``units`` the quality of the cores that came (:func:`.measured_units`).
    """

    def __init__(
        self,
        slide: Slide,
        plan: Plan,
        detector: Detector,
        *,
        mapper: LocalMapper | DaskMapper | None = None,
        strict: bool = False,
        tissue: TissueMask | None = None,
    ) -> None:
        self.slide, self.plan = slide, plan
        self.detector = detector.for_run(plan.protocol)
        self.mapper, self._strict = mapper or LocalMapper(), strict
        self._timer = Timer()
        self.tissue, everywhere = self._find_tissue(tissue)
        self.source = self._source(everywhere)
        tiles = [] if self.source.normaliser.blank else list(plan.grid)
        self.wanted = [tile for tile in tiles if self.tissue.coverage(tile.core) > 0]
        absent = {(tile.row, tile.column) for tile in {*plan.grid} - {*self.wanted}}
        self.tally = Tally(skipped=len(absent))
        self.units: dict[Tile, NDArray[np.float16]] = {}
        self.merger = SeamMerger(plan.grid, absent=absent)
        self.cells = CellMeasurer(
            self.source, self.detector.info, self.tissue, self.tally,
            frame=self.frame, dyes=self.dyes,
        )  # fmt: skip

    def steps(self, earlier: Journal | None = None) -> Generator[Step, None, None]:
        """Count: a step for each tile with tissue, and a last one.

        The tiles that an ``earlier`` interrupted run of the same plan left are not read again,
        and its cells are not measured again.

        RegionError with ``strict``, at the first tile that does not decode.
        """
        if self.source.normaliser.blank:
            self._look_for_damage()
        todo = {(tile.row, tile.column): tile for tile in self.wanted}
        for found in self._earlier(earlier) if earlier else ():
            if todo.pop((found.tile.row, found.tile.column), None):
                yield self._step(found, earlier)
        with closing(self.mapper.map(self.source, self.detector, list(todo.values()))) as results:
            for found in results:
                if self._strict and found.error:
                    raise RegionError(found.error)
                if found.raw.size:
                    self.source.kept.keep(found.tile, found.raw)
                yield self._step(found)
        rest = self._measured(self.merger.finish())
        self.source.kept.clear()
        yield Step(None, rest)

    def _look_for_damage(self) -> None:
        """A tile that does not decode may hold tissue, so an empty-looking slide is read whole."""
        plan = self.plan
        for tile in plan.grid:
            if self.tissue.coverage(tile.core) > 0:
                try:
                    self.slide.read(tile.core, downsample=plan.downsample, channels=plan.channels)
                except RegionError as error:
                    if self._strict:
                        raise
                    self.tally.failure(tile.core, str(error))
                    self.tally.skipped -= 1

    def _earlier(self, journal: Journal) -> Iterator[TileFound]:
        """Tiles of an earlier run but for those that did not decode then, whole or in part."""
        for row, column, info, instances in journal.tiles():
            if not info.get("damaged"):
                tile = self.plan.grid.at(row, column)
                limits, unlike = tuple(info.get("limits", ())), tuple(info["unlike"])
                units = unpacked_units(info["quality"], tile.core)
                yield TileFound(tile, instances, limits, unlike, units=units)

    def _step(self, found: TileFound, earlier: Journal | None = None) -> Step:
        self.tally.found(found)
        if found.units is not None:
            self.units[found.tile] = found.units
        with self._timer.stage("merge"):
            settled = self.merger.add(found.tile, found.instances)
        return Step(found, self._measured(settled, earlier), is_new=earlier is None)

    def _measured(
        self, settled: Settled, earlier: Journal | None = None
    ) -> tuple[MeasuredCells, ...]:
        if not len(settled):
            return ()
        known: tuple[MeasuredCells, ...] = ()
        with self._timer.stage("measure"):
            settled = self.cells.gated(settled)
            if earlier is not None:
                known, settled = self.cells.recalled(settled, earlier)
            return known + tuple(self.cells.measured(settled))

    @property
    def seconds(self) -> dict[str, float]:
        return self._timer.seconds | self.mapper.seconds

    def _find_tissue(self, known: TissueMask | None) -> tuple[TissueMask, TissueMask]:
        """Where cells are looked for, and what there is on the whole slide."""
        plan, regions = self.plan, self.plan.regions
        with self._timer.stage("tissue"):
            if plan.prefilter:
                mask = known or find_tissue(self.slide, plan, TissueFinder())
            else:
                extent = plan.grid.height, plan.grid.width
                mask = TissueMask.everything(extent, float(overview_step(plan)))
            looked = mask if regions is None else mask.within(self._on_lattice(regions.union))
        return looked, mask

    def _on_lattice(self, shape: shapely.MultiPolygon) -> shapely.MultiPolygon:
        return shapely.transform(shape, lambda points: points / self.plan.downsample)

    def _source(self, everywhere: TissueMask) -> TileSource:
        plan = self.plan
        with self._timer.stage("intensities"):
            # Of the whole slide, so that a region's cells are those that a whole count finds.
            boxes = plan.grid.extent.parts(SAMPLE_PX)
            patches = [box for box in boxes if everywhere.coverage(box) > 0]
            normaliser = fit_normaliser(self.slide, plan, patches)
            # None where the protocol takes the published ones.
            self.dyes = fit_dyes(self.slide, plan, patches)
        return TileSource(self.slide, plan, normaliser)

    @cached_property
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
    def skipped_share(self) -> float:
        """Share of what was looked at that holds no tissue."""
        return self.tissue.skipped_px() / max(1.0, self.tissue.looked_at_px())

    def tissue_mm2(self) -> tuple[float | None, list[float] | None]:
        """Tissue that was looked at, and in each region; None where nobody looked for any."""
        pixel_um = self.frame.lattice_mpp
        if pixel_um is None or not self.plan.prefilter:
            return None, None  # unknown, not the slide's
        unit = (pixel_um / 1000) ** 2
        shapes = [self._on_lattice(region.shape) for region in self.plan.regions or ()]
        inside = [self.tissue.within(shape).area_px() * unit for shape in shapes]
        return self.tissue.area_px() * unit, inside

    def doubts(self) -> list[str]:
        """Why the count may be wrong, as far as counting itself can tell, one line each."""
        found = [*self.tally.doubts(self.plan.protocol), *self.plan.doubts]
        is_stained = self.plan.protocol.stain in ("he", "ihc")
        if is_stained and self.plan.mpp is None and self.plan.downsample == 1:
            said = (
                "no pixel size: in stained tissue the scale decides what is taken for a nucleus, "
                "and the count may be far off"
            )
            found.append(Notice(said, hint="mpp,diameter"))
        return found

    def warnings(self) -> list[str]:
        told = self.tally.warnings(self.plan.protocol, self.frame)
        if self.dyes is not None and self.dyes.note:
            told.append(self.dyes.note)
        if self.source.normaliser.blank:
            told.append(
                "no contrast beyond noise was found: nothing is counted, as nothing as large as a "
                f"nucleus stands out of the ground (values of {self.source.normaliser.low:.4g})"
            )
        elif self.source.normaliser.faint:
            told.append(
                "the brightest pixels are barely above the noise: noise may be counted as nuclei, "
                "look at the outlines"
            )
        elif not self.wanted:
            told.append(Notice("no tissue was found: nothing is counted", hint="no_prefilter"))
        return [*self.slide.notes, *self.plan.notes, *told]


def by_core(
    slide: Slide, request: CountRequest, plan: Plan
) -> tuple[CountRequest, Plan, TissueMask]:
    """Request and plan of a tissue microarray, with a region for each core; and its tissue.

    Without a grid of cores both stay as they were, and the plan's notes say so.

    SettingsError if the request has regions already.
    """
    if request.regions is not None:
        raise SettingsError("the cores of an array are regions already", hint="region,tma")
    mask = find_tissue(slide, plan, TissueFinder())
    try:
        grid = find_cores(mask.tissue)
    except SettingsError as error:
        said = Notice(f"{error}: the whole slide is counted", hint="tma")
        return request, replace(plan, notes=(*plan.notes, said)), mask
    regions = grid.regions(mask.step * plan.downsample).on(slide.height, slide.width)
    found = replace(plan, regions=regions, notes=(*plan.notes, Notice(str(grid))))
    return replace(request, regions=regions, cores=grid), found, mask
