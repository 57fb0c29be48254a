"""The run: slide to tissue, tiles, cells, merged, measured, written; as events.

:func:`run` is a generator: whoever drains it (the command line, a widget) decides how
progress looks, and may stop at any event; what is done stays in the journal.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Generator, Iterable, Iterator, MutableMapping
from contextlib import closing
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cellseg import __version__
from cellseg.cells import Cells, Summary
from cellseg.detect import Detector, load_detector
from cellseg.engine import LocalEngine, Mapped
from cellseg.errors import CellsegError, OutputError, RegionError, SettingsError
from cellseg.export import check_exports, export
from cellseg.geometry import Tile
from cellseg.instances import Instances
from cellseg.location import Location, RemotePath, as_location, fingerprint, is_another
from cellseg.plan import CountRequest, Plan, fit_normaliser, make_plan, sample_boxes
from cellseg.protocol import CountProtocol
from cellseg.recorder import Recorder
from cellseg.remaining import Remaining
from cellseg.results import CORRECTIONS, Frame, ResultFolder, load_result
from cellseg.slide import Slide, open_slide, slide_name
from cellseg.tiles import TileSource, find_tissue, overview_step, tile_outlooks
from cellseg.tissue import TissueFinder, TissueMask
from cellseg.upload import RemoteResult
from cellseg.work import TileFound, TileRead, TileWork

if TYPE_CHECKING:
    from cellseg.cluster.engine import DaskEngine

log = logging.getLogger(__name__)

CLUSTER_TILES = 16
"""Tiles of a cluster that are timed together: they come in no order, some at once."""


@dataclass(frozen=True)
class Note:
    """Something a person should know."""

    text: str


@dataclass(frozen=True)
class Started:
    """The network starts; ``tiles`` are left after the prefilter.

    Attributes
    ----------
    image : Path or RemotePath
    tiles : int
    text : str
        One line for a person.
    frame : Frame
        The slide's size, and how the lattice of ``TileDone`` lies on it.
    """

    image: Location
    tiles: int
    text: str
    frame: Frame


@dataclass(frozen=True, eq=False)
class TileDone:
    """A tile is done.

    Attributes
    ----------
    tile : Tile
    instances : Instances
        What the detector found there, on the slide's lattice, before merging.
    done, total : int
        Tiles done and to do, those of an earlier, interrupted run included.
    cells : int
        Cells settled so far and still to be settled: an estimate until the end.
    seconds_left : float or None
        To the end of the run, the writing included; None until there is enough to go by.
        :func:`cellseg.remaining.in_words` says it.
    """

    tile: Tile
    instances: Instances
    done: int
    total: int
    cells: int
    seconds_left: float | None = None


@dataclass(frozen=True, eq=False)
class CountResult:
    """The end of a run: everything is written.

    Attributes
    ----------
    uploaded : RemotePath or None
        Where the result folder is, if its place is a URL.
    """

    image: Location
    cells: Cells
    tiles: int
    tiles_skipped: int
    tiles_failed: int
    seconds: float
    uploaded: RemotePath | None = None

    def as_dict(self) -> dict[str, object]:
        """The object that ``--json`` prints; null where unknown."""
        summary = self.cells.summary
        return {
            "image": str(self.image),
            "output": str(self.uploaded or self.cells.folder),
            "cells": summary.cells,
            "cells_per_class": summary.cells_per_class,
            "tissue_mm2": summary.tissue_mm2,
            "density_per_mm2": summary.density_per_mm2,
            "median_area_um2": summary.median_area_um2,
            "tiles": self.tiles,
            "tiles_skipped": self.tiles_skipped,
            "tiles_failed": self.tiles_failed,
            "seconds": round(self.seconds, 2),
            "warnings": list(self.cells.warnings),
        }


Event = Note | Started | TileDone | CountResult


def count(
    image: str | Location,
    *,
    protocol: str | CountProtocol | None = None,
    output: str | Location | None = None,
    mpp: float | None = None,
    model: str | Path = "default",
    device: str = "auto",
) -> Cells:
    """Count the cells of one slide and wait for the end.

    Parameters
    ----------
    image : path or URL
        A slide or a field, in any format that :func:`cellseg.open_slide` reads.
    protocol : str or CountProtocol, optional
        Chosen from the image otherwise.
    output : path or URL, optional
        Folder that gets the result folder; beside the image otherwise.
    mpp : float, optional
        µm per pixel, where the file does not say.
    model : str or path
        ``"default"`` or a file of ``cellseg train``.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Returns
    -------
    Cells
        The summary, and the table when it is asked for.

    Raises
    ------
    CellsegError
        InputError, SettingsError or OutputError, each also the builtin that it resembles.
        Tiles that do not decode are in ``Cells.warnings`` and raise nothing.

    For more settings build a :class:`cellseg.plan.CountRequest` and drain :func:`run`.
    """
    request = CountRequest(
        image=as_location(image),
        output=None if output is None else as_location(output),
        protocol=protocol,
        mpp=mpp,
        model=model,
        device=device,
    )
    for event in run(request):
        if isinstance(event, CountResult):
            return event.cells
    raise CellsegError(f"{image}: the run ended without a result")


def run(
    request: CountRequest,
    *,
    detector: Detector | None = None,
    detectors: MutableMapping[object, object] | None = None,
) -> Iterator[Event]:
    """Count one slide, event by event.

    Parameters
    ----------
    request : CountRequest
    detector : Detector, optional
        Takes the place of the Mask R-CNN that ``request.model`` names.
    detectors : dict, optional
        Keeps loaded models between the slides of one command.

    Yields
    ------
    Note, Started, TileDone, and one CountResult at the end

    Raises
    ------
    CellsegError
        As :func:`count`; with ``strict`` also RegionError at the first damaged tile.
    """
    check_exports(request.export)
    home = request.output or request.image.parent
    if not isinstance(home, RemotePath):
        yield from _events(request, detector, detectors)
        return
    if request.output is None:
        raise SettingsError(f"{request.image}: --output must say where its result goes")
    remote = RemoteResult.at(home / result_name(request))
    remote.prepare(request.image, whole=bool(request.export))
    here = replace(request, output=remote.local.parent, folder_name=remote.local.name)
    for event in _events(here, detector, detectors):
        if isinstance(event, CountResult):
            if (remote.local / "cells.csv").is_file():
                yield Note(f"uploading to {remote.url}")
            remote.finish()
            cells = replace(event.cells, load_table=lambda _: remote.table())
            yield replace(event, cells=cells, uploaded=remote.url)
        else:
            yield event


def result_name(request: CountRequest) -> str:
    """Name of the result folder."""
    kind = ".cellseg" if request.region is None else request.region.ending
    return request.folder_name or f"{slide_name(request.image)}{kind}"


def _events(
    request: CountRequest,
    detector: Detector | None,
    detectors: MutableMapping[object, object] | None,
) -> Iterator[Event]:
    """A run whose result goes to a disk."""
    start = time.monotonic()
    cluster = _cluster(request)
    with open_slide(
        request.image, mpp=request.mpp, z=request.z, t=request.t, series=request.series
    ) as slide:
        yield from (Note(text) for text in slide.notes)
        chosen = detector or _load(request, detectors)
        plan = make_plan(slide, request, chosen.info)
        if detector is None:
            chosen = _load(request, detectors, plan)
        yield from (Note(text) for text in plan.notes)
        own = detector is not None
        yield from _Run(slide, request, plan, chosen, start, cluster=cluster, own=own).events()


def _cluster(request: CountRequest) -> DaskEngine | None:
    """The cluster's engine, if the request asks for one; its scheduler has answered."""
    if request.engine == "local":
        if request.scheduler is not None:
            raise SettingsError("--scheduler is the address of a Dask cluster: add --engine dask")
        return None
    # Imported late: only a run on a cluster needs it.
    from cellseg.cluster.engine import DaskEngine

    engine = DaskEngine(request.scheduler, batch=request.batch)
    engine.check()
    return engine


def detector_key(model: str | Path, device: str, precision: str = "auto") -> tuple[str, str, str]:
    """Where :func:`run` looks for a model in ``detectors``."""
    return str(model), device, precision


def _load(
    request: CountRequest,
    detectors: MutableMapping[object, object] | None,
    plan: Plan | None = None,
) -> Detector:
    """The request's Mask R-CNN, loaded once a command, set to the plan's thresholds."""
    # On a cluster this machine only asks the model what it is; it may lack the workers' device.
    here = request.engine == "local"
    device = request.device if here else "cpu"
    key = detector_key(request.model, device, request.precision)
    store: MutableMapping[object, object] = {} if detectors is None else detectors
    if key not in store:
        precision = None if request.precision == "auto" or not here else request.precision
        store[key] = load_detector(request.model, device=device, precision=precision)
    loaded = store[key]
    if plan is not None:
        loaded.score, loaded.nms_iou = plan.protocol.score, plan.protocol.nms_iou  # type: ignore[attr-defined]
    return loaded  # type: ignore[return-value]


class _Run:
    """One slide's run, from plan to result."""

    def __init__(
        self,
        slide: Slide,
        request: CountRequest,
        plan: Plan,
        detector: Detector,
        start: float,
        *,
        cluster: DaskEngine | None = None,
        own: bool = False,
    ) -> None:
        self.cluster, self.own = cluster, own
        self.slide, self.request, self.plan, self.detector = slide, request, plan, detector
        self.start = start
        self.seconds: dict[str, float] = {}
        self.cells = 0
        self.remaining: Remaining[Tile] = Remaining({})

    def events(self) -> Iterator[Event]:
        self._refuse_other_slide()
        folder = ResultFolder.open(self._path(), key=self._key())
        with folder:
            if folder.already_complete and (earlier := _earlier(self.request.image, folder.path)):
                yield Note("counted before with the same settings: nothing to do")
                folder.close()
                self._export(folder.path, missing=True)
                yield earlier
                return
            if folder.resumed:
                yield Note("going on from an earlier, interrupted run of the same settings")
            elif folder.started_afresh_because:
                yield Note(f"starting afresh: {folder.started_afresh_because}")
            tissue, everywhere = self._tissue()
            recorder, source = self._recorder(folder, tissue, everywhere)
            outlooks = tile_outlooks(source, recorder.wanted)
            self.remaining = Remaining(outlooks, batch=self._together)
            total = recorder.total
            yield Started(self.request.image, total, self._about(total), recorder.frame)
            yield from self._replay(recorder, total)
            todo = self.remaining.in_order(recorder.todo())
            yield from self._tiles(recorder, source, todo, total)
            if (folder.path / CORRECTIONS).is_file():
                yield Note(
                    f"{folder.path}: holds corrections of an earlier count; they stay as they "
                    "are, and are not made to this one"
                )
            yield self._finish(folder, recorder, tissue)

    def _path(self) -> Path:
        return Path(str(self.request.output or self.request.image.parent)) / result_name(
            self.request
        )

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
        there = load_result(folder).run.get("exports", ()) if missing else ()
        for name in self.request.export:
            if not (name in there and (folder / name).is_file()):
                export(folder, name)

    def _key(self) -> str:
        """A hash of everything that determines the result."""
        settings = {
            "image": fingerprint(self.request.image),
            "protocol": self.plan.protocol.model_dump(mode="json"),
            "channels": list(self.plan.channels),
            "downsample": self.plan.downsample,
            "mpp": self.slide.mpp,
            "z": self.request.z,
            "t": self.request.t,
            "series": self.request.series,
            "prefilter": self.request.prefilter,
            "region": None if self.request.region is None else self.request.region.as_geojson(),
            "model": self.detector.info.checksum,
            "version": __version__,
        }
        return sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    @property
    def _batch(self) -> int:
        """Tiles that go through the network together."""
        if self.request.batch:
            return self.request.batch
        side = self.plan.grid.tile + 2 * self.plan.grid.halo
        fitting = getattr(self.detector, "batch_for", None)
        return 1 if fitting is None else int(fitting(side * side))

    @property
    def _networks(self) -> int:
        """Batches in the network at once."""
        return int(getattr(self.detector, "threads", 1))

    @property
    def _together(self) -> int:
        """Tiles that are under way at once, and so tend to come together."""
        return self._batch * self._networks if self.cluster is None else CLUSTER_TILES

    @property
    def _prefilter(self) -> bool:
        return self.request.prefilter and self.plan.protocol.prefilter

    def _tissue(self) -> tuple[TissueMask, TissueMask]:
        """Where cells are looked for, and what there is on the whole slide."""
        start = time.monotonic()
        grid = self.plan.grid
        if self._prefilter:
            mask = find_tissue(self.slide, self.plan, TissueFinder())
        else:
            mask = TissueMask.everything((grid.height, grid.width), float(overview_step(self.plan)))
        region = self.request.region
        looked = mask if region is None else mask.within(region.scaled(self.plan.downsample))
        self.seconds["tissue"] = time.monotonic() - start
        if region is not None and looked.looked_at_px() <= 0:
            raise SettingsError(
                f"{self.request.image}: the region lies outside of the slide, or is smaller "
                "than a pixel"
            )
        return looked, mask

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
        return (
            f"{self.slide.width:,} × {self.slide.height:,} px, "
            f"protocol {self.plan.protocol.name} at {scale}, "
            f"{total:,} of {len(grid):,} tiles hold tissue, {skipped:,} skipped"
        )

    def _replay(self, recorder: Recorder, total: int) -> Iterator[Event]:
        for tile, instances in recorder.replay():
            cells = self._own(tile, instances)
            self.remaining.replayed(tile, cells, settled=recorder.settled)
            yield self._done(recorder, tile, instances, total)

    def _tiles(
        self, recorder: Recorder, source: TileSource, todo: list[Tile], total: int
    ) -> Iterator[Event]:
        mapped = self._here if self.cluster is None else self._there
        with closing(mapped(recorder, source, todo)) as results:
            for result in results:
                instances = self._take(recorder, result)
                cells = self._own(result.tile, instances)
                self.remaining.done(result.tile, cells, settled=recorder.settled)
                yield self._done(recorder, result.tile, instances, total)
                self.remaining.goes_on()

    def _here(
        self, recorder: Recorder, source: TileSource, todo: list[Tile]
    ) -> Generator[Mapped[TileRead, TileFound], None, None]:
        """Tiles mapped in this process."""
        work = TileWork(source, self.detector)
        stages = getattr(self.detector, "take_seconds", dict)
        stages()  # what an interrupted run of another slide left
        engine: LocalEngine[TileRead, TileFound] = LocalEngine(
            batch=self._batch,
            readers=1 + self._networks,
            networks=self._networks,
            expected=(RegionError,),
        )
        with closing(engine.map(todo, work.read, work.detect)) as results:
            yield from results
        self.seconds["wait for input"] = engine.clock.wait
        self.seconds["detect"] = engine.clock.detect
        self.seconds["read"], self.seconds["normalise"] = work.seconds
        self.seconds.update(stages())

    def _there(
        self, recorder: Recorder, source: TileSource, todo: list[Tile]
    ) -> Generator[Mapped[TileRead, TileFound], None, None]:
        """Tiles mapped on the cluster."""
        from cellseg.cluster.recipe import Recipe

        assert self.cluster is not None
        recipe = Recipe.of(
            self.request,
            self.slide,
            self.plan,
            source.normaliser,
            checksum=self.detector.info.checksum,
            version=json.dumps(fingerprint(self.request.image)),
            detector=self.detector if self.own else None,
        )
        with closing(self.cluster.map(recipe, todo)) as results:
            yield from results
        self.seconds |= self.cluster.stages
        devices = ", ".join(sorted(self.cluster.devices))
        recorder.info = replace(recorder.info, device=devices)

    def _take(self, recorder: Recorder, mapped: Mapped[TileRead, TileFound]) -> Instances:
        if mapped.found is None:
            if self.request.strict and mapped.error is not None:
                raise mapped.error
            return recorder.failed(mapped.tile, str(mapped.error))
        if mapped.read is not None:
            recorder.source.keep(mapped.tile, mapped.read.pixels)
        found = mapped.found
        return recorder.done(
            mapped.tile, found.instances, limits=found.limits, damaged=found.damaged
        )

    def _own(self, tile: Tile, instances: Instances) -> int:
        """Count the cells whose middle lies in the tile's core."""
        core = tile.core
        centres = (instances.boxes[:, :2] + instances.boxes[:, 2:]) / 2
        inside = np.count_nonzero(
            (centres[:, 0] >= core.y0)
            & (centres[:, 0] < core.y1)
            & (centres[:, 1] >= core.x0)
            & (centres[:, 1] < core.x1)
        )
        self.cells += int(inside)
        return int(inside)

    def _done(self, recorder: Recorder, tile: Tile, instances: Instances, total: int) -> TileDone:
        measured = recorder.seconds["merge"] + recorder.seconds["measure"]
        left = self.remaining.seconds(measured=measured)
        return TileDone(tile, instances, recorder.tiles_in, total, self.cells, left)

    def _finish(self, folder: ResultFolder, recorder: Recorder, tissue: TissueMask) -> CountResult:
        seconds = {**self.seconds, **recorder.seconds}
        mpp = self.slide.mpp
        # Without the prefilter nobody looked for tissue: its area is unknown, not the slide's.
        tissue_mm2 = (
            tissue.area_mm2(mpp * self.plan.downsample) if mpp and self._prefilter else None
        )
        summary, warnings = recorder.finish(
            tissue_mm2=tissue_mm2, seconds=seconds, started=self.start, request=self.request
        )
        self._export(folder.path)
        return CountResult(
            image=self.request.image,
            cells=_cells(summary, folder.path, warnings),
            tiles=len(self.plan.grid),
            tiles_skipped=recorder.skipped,
            tiles_failed=recorder.failed_tiles,
            seconds=time.monotonic() - self.start,
        )


def _cells(summary: Summary, folder: Path, warnings: Iterable[str]) -> Cells:
    return Cells(
        summary=summary,
        folder=folder,
        load_table=lambda path: load_result(path).table(),
        warnings=tuple(warnings),
    )


def _earlier(image: Location, folder: Path) -> CountResult | None:
    """What an earlier run left; None where its record does not say all of it."""
    try:
        record = load_result(folder).run
        tiles = record["tiles"]
        return CountResult(
            image=image,
            cells=_cells(Summary.from_dict(record["summary"]), folder, record["warnings"]),
            tiles=int(tiles["all"]),
            tiles_skipped=int(tiles["skipped"]),
            tiles_failed=len(tiles["failed"]),
            seconds=float(record["seconds"]["total"]),
        )
    except (CellsegError, LookupError, TypeError, ValueError):
        return None
