"""One slide's run, from a plan to a result folder."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import shapely

from cellseg import __version__
from cellseg.counting.cells import Cells
from cellseg.counting.events import CountResult, Event, Note, Started, TileDone
from cellseg.counting.local import LocalEngine, Mapped
from cellseg.counting.plan import Plan, fit_normaliser, sample_boxes
from cellseg.counting.recorder import Recorder, check_tile
from cellseg.counting.remaining import Remaining
from cellseg.counting.request import CountRequest
from cellseg.counting.tiles import TileSource, find_tissue, overview_step
from cellseg.counting.work import TileFound, TileRead, TileWork, tiles_together
from cellseg.detect import Detector
from cellseg.errors import (
    CellsegError,
    ExistingResultError,
    InputError,
    OutputError,
    RegionError,
)
from cellseg.export import export
from cellseg.geometry import Tile
from cellseg.instances import Instances
from cellseg.results import CORRECTIONS, ResultFolder, load_result
from cellseg.slide import Slide, slide_name
from cellseg.storage import Location, fingerprint, is_another
from cellseg.tissue import TissueFinder, TissueMask

if TYPE_CHECKING:
    from cellseg.counting.dask.engine import DaskEngine


def result_name(request: CountRequest) -> str:
    """Name of the result folder."""
    return request.folder_name or f"{slide_name(request.image)}.cellseg"


class SlideRun:
    """One slide's run, from plan to result."""

    def __init__(
        self,
        slide: Slide,
        request: CountRequest,
        plan: Plan,
        detector: Detector,
        start: float,
        *,
        identity: list[str | int],
        cluster: DaskEngine | None = None,
        own: bool = False,
        place: Location | None = None,
    ) -> None:
        self.identity, self.cluster, self.own = identity, cluster, own
        self.slide, self.request, self.plan, self.detector = slide, request, plan, detector
        self.place = place or self._path()
        self.start = start
        self.seconds: dict[str, float] = {}
        self.remaining: Remaining[Tile] = Remaining({})

    def events(self) -> Iterator[Event]:
        self._refuse_other_slide()
        with self._open() as folder:
            if folder.already_complete and (earlier := _earlier(self.request.image, folder.path)):
                yield Note("counted before with the same settings: nothing to do")
                folder.close()
                self._export(folder.path, missing=True)
                yield earlier
                return
            if folder.resumed:
                yield Note("going on from an earlier, interrupted run of the same settings")
            elif folder.started_afresh_because:
                yield Note(f"{folder.started_afresh_because}: starting afresh")
            tissue, everywhere = self._tissue()
            recorder, source = self._recorder(folder, tissue, everywhere)
            self.remaining = Remaining(
                {tile: tissue.coverage(tile.core) * tile.core.area for tile in recorder.wanted}
            )
            total = recorder.total
            yield Started(self.request.image, total, self._about(total), recorder.frame)
            yield from self._replay(recorder, total)
            yield from self._tiles(recorder, source, recorder.todo(), total)
            if (folder.path / CORRECTIONS).is_file():
                yield Note(
                    f"{folder.path}: holds corrections of an earlier count; they stay as they "
                    "are, and are not made to this one"
                )
            self._refuse_replaced(folder)
            yield self._finish(folder, recorder, tissue)

    def _path(self) -> Path:
        return Path(str(self.request.output or self.request.image.parent)) / result_name(
            self.request
        )

    def _open(self) -> ResultFolder:
        """The result folder; a refusal names it as the user knows it."""
        try:
            return ResultFolder.open(
                self._path(),
                key=self._key(),
                image=self.request.image,
                sound=lambda tile: check_tile(tile, self.plan, self.detector.info),
                overwrite=self.request.overwrite,
            )
        except ExistingResultError as error:
            raise error.at(self.place) from error

    def _refuse_other_slide(self) -> None:
        """Never write one slide's result over that of another one with the same name."""
        path = self._path()
        try:
            other = str(load_result(path).run["image"]["path"])
        except (CellsegError, LookupError, TypeError):
            return  # no result there
        if is_another(other, self.request.image):
            raise OutputError(f"{path}: holds the result of {other}; take another --output")

    def _export(self, folder: Path, *, missing: bool = False) -> None:
        # A file that the result does not list is of a run that was killed before it did.
        there = load_result(folder)
        for name in self.request.export:
            if not (missing and there.has_export(name)):
                export(folder, name)

    def _key(self) -> dict[str, object]:
        """Everything that determines the result."""
        return {"slide": self.identity, "plan": self.plan.settings(), "version": __version__}

    def _refuse_replaced(self, folder: ResultFolder) -> None:
        """What was read of two slides is no result of either.

        Raises
        ------
        InputError
        """
        if fingerprint(self.request.image) != self.identity:
            folder.forget_tiles()
            raise InputError(
                f"{self.request.image}: was replaced or changed while it was counted; nothing was "
                "written, count it again"
            )

    @property
    def _networks(self) -> int:
        """Batches in the network at once."""
        return self.detector.threads

    def _batch(self, source: TileSource) -> int:
        """Tiles that go through the network together."""
        return tiles_together(source, self.detector, self.request.batch)

    def _tissue(self) -> tuple[TissueMask, TissueMask]:
        """Where cells are looked for, and what there is on the whole slide."""
        start = time.monotonic()
        grid = self.plan.grid
        if self.plan.prefilter:
            mask = find_tissue(self.slide, self.plan, TissueFinder())
        else:
            mask = TissueMask.everything((grid.height, grid.width), float(overview_step(self.plan)))
        regions = self.plan.regions
        looked = mask if regions is None else mask.within(self._on_lattice(regions.union))
        self.seconds["tissue"] = time.monotonic() - start
        return looked, mask

    def _on_lattice(self, shape: shapely.MultiPolygon) -> shapely.MultiPolygon:
        return shapely.transform(shape, lambda points: points / self.plan.downsample)

    def _tissue_mm2(self, tissue: TissueMask) -> tuple[float | None, list[float] | None]:
        """Tissue that was looked at, and in each region; None where nobody looked for any."""
        mpp, regions = self.slide.mpp, self.plan.regions
        if mpp is None or not self.plan.prefilter:
            return None, None  # unknown, not the slide's
        unit = (mpp * self.plan.downsample / 1000) ** 2
        inside = [tissue.area_in(self._on_lattice(region.shape)) * unit for region in regions or ()]
        return tissue.area_px() * unit, inside

    def _recorder(
        self, folder: ResultFolder, tissue: TissueMask, everywhere: TissueMask
    ) -> tuple[Recorder, TileSource]:
        start = time.monotonic()
        grid = self.plan.grid
        # Of the whole slide, so that a region's cells are those that a whole count finds there.
        patches = [
            box for box in sample_boxes(grid.height, grid.width) if everywhere.coverage(box) > 0
        ]
        normaliser = fit_normaliser(
            self.slide, self.plan, light=self.plan.protocol.light, tissue=patches
        )
        self.seconds["intensities"] = time.monotonic() - start
        source = TileSource(self.slide, self.plan, normaliser)
        return Recorder(folder, self.slide, self.plan, source, tissue, self.detector.info), source

    def _about(self, total: int) -> str:
        grid = self.plan.grid
        skipped = len(grid) - total
        scale = (
            f"{self.slide.mpp * self.plan.downsample:.3g} µm/px"
            if self.slide.mpp
            else "its own scale"
        )
        where = f"{total:,} of {len(grid):,} tiles hold tissue, {skipped:,} skipped"
        if self.plan.regions is not None:
            number = len(self.plan.regions)
            where = f"{number:,} region{'s' * (number > 1)}, {total:,} tiles to look at"
        return (
            f"{self.slide.width:,} × {self.slide.height:,} px, "
            f"protocol {self.plan.protocol.name} at {scale}, {where}"
        )

    def _replay(self, recorder: Recorder, total: int) -> Iterator[Event]:
        for tile, instances in recorder.replay():
            self.remaining.replayed(tile)
            yield self._done(recorder, tile, instances, total)

    def _tiles(
        self, recorder: Recorder, source: TileSource, todo: list[Tile], total: int
    ) -> Iterator[Event]:
        mapped = self._here if self.cluster is None else self._there
        with closing(mapped(recorder, source, todo)) as results:
            for result in results:
                instances = self._take(recorder, result)
                self.remaining.done(result.tile)
                yield self._done(recorder, result.tile, instances, total)
                self.remaining.goes_on()

    def _here(
        self, recorder: Recorder, source: TileSource, todo: list[Tile]
    ) -> Generator[Mapped[TileFound], None, None]:
        """Tiles mapped in this process."""
        work = TileWork(source, self.detector)
        self.detector.take_seconds()  # what an interrupted run of another slide left
        engine: LocalEngine[TileRead, TileFound] = LocalEngine(
            batch=self._batch(source),
            readers=1 + self._networks,
            networks=self._networks,
            expected=(RegionError,),
        )
        with closing(engine.map(todo, work.read, work.detect)) as results:
            yield from results
        self.seconds["wait for input"] = engine.clock.wait
        self.seconds["detect"] = engine.clock.detect
        self.seconds["read"], self.seconds["normalise"] = work.seconds
        self.seconds.update(self.detector.take_seconds())

    def _there(
        self, recorder: Recorder, source: TileSource, todo: list[Tile]
    ) -> Generator[Mapped[TileFound], None, None]:
        """Tiles mapped on the cluster."""
        from cellseg.counting.dask.recipe import Recipe

        assert self.cluster is not None
        recipe = Recipe.of(
            self.request,
            self.slide,
            self.plan,
            source.normaliser,
            checksum=self.detector.info.checksum,
            version=json.dumps(self.identity),
            detector=self.detector if self.own else None,
        )
        with closing(self.cluster.map(recipe, todo)) as results:
            yield from results
        self.seconds |= self.cluster.stages
        devices = ", ".join(sorted(self.cluster.devices))
        recorder.info = replace(recorder.info, device=devices)

    def _take(self, recorder: Recorder, mapped: Mapped[TileFound]) -> Instances:
        if mapped.found is None:
            if self.request.strict and mapped.error is not None:
                raise mapped.error
            return recorder.failed(mapped.tile, str(mapped.error))
        found = mapped.found
        if found.pixels is not None:
            recorder.source.keep(mapped.tile, found.pixels)
        return recorder.done(
            mapped.tile, found.instances, limits=found.limits, damaged=found.damaged
        )

    def _done(self, recorder: Recorder, tile: Tile, instances: Instances, total: int) -> TileDone:
        left = self.remaining.seconds()
        return TileDone(tile, instances, recorder.tiles_in, total, recorder.tally.kept, left)

    def _finish(self, folder: ResultFolder, recorder: Recorder, tissue: TissueMask) -> CountResult:
        seconds = {**self.seconds, **recorder.seconds}
        summary, warnings = recorder.finish(
            tissue_mm2=self._tissue_mm2(tissue),
            seconds=seconds,
            started=self.start,
            request=self.request,
        )
        self._export(folder.path)
        return CountResult(
            image=self.request.image,
            cells=Cells(summary, folder.path, warnings=tuple(warnings)),
            tiles=len(self.plan.grid),
            tiles_skipped=recorder.tally.skipped,
            tiles_failed=len(recorder.tally.failures),
            seconds=time.monotonic() - self.start,
        )


def _earlier(image: Location, folder: Path) -> CountResult | None:
    """What an earlier run left; None where its record does not say all of it."""
    try:
        result = load_result(folder)
        record = result.run
        tiles = record["tiles"]
        return CountResult(
            image=image,
            cells=Cells.of(result),
            tiles=int(tiles["all"]),
            tiles_skipped=int(tiles["skipped"]),
            tiles_failed=len(tiles["failed"]),
            seconds=float(record["seconds"]["total"]),
        )
    except (CellsegError, LookupError, TypeError, ValueError):
        return None
