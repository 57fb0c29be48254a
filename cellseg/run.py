"""One slide counted and recorded, as events: what the command line and napari drain.

:func:`run` is a generator: whoever drains it decides how progress looks, and may stop at any
event; what is done stays in the journal.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from cellseg import __version__
from cellseg.counting.plan import Plan, make_plan
from cellseg.counting.record import Recording, check_tile
from cellseg.counting.remaining import Remaining
from cellseg.counting.request import CountRequest
from cellseg.counting.stages import Here, SlideCount, TileMapper
from cellseg.derive.expand import lattice_distance
from cellseg.errors import CellsegError, ExistingResultError, InputError, SettingsError
from cellseg.export import check_exports, export
from cellseg.network.detect import load_detector
from cellseg.network.detector import Detector, DetectorInfo
from cellseg.pipeline.cells import Cells
from cellseg.pipeline.classified import check_markers, classify_count
from cellseg.pipeline.events import CountResult, Event, Note, Started, TileDone
from cellseg.pipeline.expanded import expand_count
from cellseg.pipeline.spatial import spatial_count
from cellseg.result.folder import ResultFolder
from cellseg.result.publish import CORRECTIONS
from cellseg.result.result import load_result
from cellseg.result.upload import RemoteResult
from cellseg.slide import open_slide, slide_name
from cellseg.slide.formats import home_of
from cellseg.storage import Location, RemotePath, fingerprint

__all__ = [
    "CountRequest",
    "CountResult",
    "Event",
    "Note",
    "Started",
    "TileDone",
    "detector_key",
    "run",
]


def run(
    request: CountRequest,
    *,
    detector: Detector | None = None,
    detectors: MutableMapping[object, Detector] | None = None,
) -> Iterator[Event]:
    """Count one slide, event by event.

    Parameters
    ----------
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
        InputError, SettingsError or OutputError, each also the builtin that it resembles; with
        ``strict`` also RegionError at the first damaged tile.
    """
    check_exports(request.export)
    home = request.output or home_of(request.image)
    if not isinstance(home, RemotePath):
        yield from _events(request, detector, detectors)
        return
    if request.output is None:
        raise SettingsError(f"{request.image}: --output must say where its result goes")
    remote = RemoteResult.at(home.child(result_name(request)))
    whole = bool(request.export) or request.expand is not None or request.spatial
    remote.prepare(request.image, whole=whole, overwrite=request.overwrite)
    here = replace(request, output=remote.local.parent, folder_name=remote.local.name)
    for event in _events(here, detector, detectors, place=remote.url):
        if isinstance(event, CountResult):
            if (remote.local / "cells.csv").is_file():
                yield Note(f"uploading to {remote.url}")
            remote.finish(request.image, overwrite=request.overwrite)
            cells = replace(event.cells, load_table=lambda _: remote.table())
            yield replace(event, cells=cells, uploaded=remote.url)
        else:
            yield event


def result_name(request: CountRequest) -> str:
    """Name of the result folder."""
    return request.folder_name or f"{slide_name(request.image)}.cellseg"


def _events(
    request: CountRequest,
    detector: Detector | None,
    detectors: MutableMapping[object, Detector] | None,
    *,
    place: Location | None = None,
) -> Iterator[Event]:
    """A run whose result goes to a disk; ``place`` is what the user calls its folder."""
    started = time.monotonic()
    mapper = _mapper(request, detector)
    with open_slide(
        request.image, mpp=request.mpp, z=request.z, t=request.t, series=request.series
    ) as slide:
        identity = fingerprint(request.image)
        yield from (Note(text) for text in slide.notes)
        chosen = detector or _load(request, detectors)
        plan = make_plan(slide, request, chosen.info)
        yield from (Note(text) for text in plan.notes)
        key = {"slide": identity, "plan": plan.settings(), "version": __version__}
        with _open(
            request, key, plan, chosen.info.sorting(plan.protocol.cell_types), place
        ) as folder:
            if folder.already_complete and (earlier := _earlier(request.image, folder.path)):
                yield Note("counted before with the same settings: nothing to do")
                folder.close()
                yield from expand_count(folder.path, request.expand, image=request.image)
                yield from spatial_count(folder.path, is_wanted=request.spatial)
                markers = plan.protocol.classify
                yield from classify_count(folder.path, markers, image=request.image, missing=True)
                _export(request, folder.path, missing=True)
                yield _earlier(request.image, folder.path) or earlier
                return
            if folder.resumed:
                yield Note("going on from an earlier, interrupted run of the same settings")
            elif folder.started_afresh_because:
                yield Note(f"{folder.started_afresh_because}: starting afresh")
            count = SlideCount(slide, plan, chosen, mapper=mapper, strict=request.strict)
            if request.expand is not None:
                lattice_distance(request.expand, count.frame)  # before the network, not after it
            check_markers(count, expanded=request.expand is not None, is_spatial=request.spatial)
            recording = Recording(folder, count, request)
            yield from _tiles(recording)
            if (folder.path / CORRECTIONS).is_file():
                yield Note(
                    f"{folder.path}: holds corrections of an earlier count; they stay as they "
                    "are, and are not made to this one"
                )
            _refuse_replaced(request, identity, folder)
            recording.finish(started=started)
            yield from expand_count(folder.path, request.expand, image=request.image)
            yield from spatial_count(folder.path, is_wanted=request.spatial)
            yield from classify_count(folder.path, plan.protocol.classify, image=request.image)
            _export(request, folder.path)
            yield CountResult(
                image=request.image,
                cells=Cells.of(load_result(folder.path)),
                tiles=len(plan.grid),
                tiles_skipped=count.tally.skipped,
                tiles_failed=len(count.tally.failures),
                seconds=time.monotonic() - started,
            )


def _tiles(recording: Recording) -> Iterator[Event]:
    """What is said while the tiles come."""
    count, request = recording.count, recording.request
    total = len(count.wanted)
    yield Started(request.image, total, _about(count), count.frame)
    remaining = Remaining(
        {tile: count.tissue.coverage(tile.core) * tile.core.area for tile in count.wanted}
    )
    with closing(recording.steps()) as steps:
        for done, step in enumerate(steps, start=1):
            if step.mapped is None:
                return
            tile = step.mapped.tile
            (remaining.done if step.is_new else remaining.replayed)(tile)
            kept, left = count.tally.kept, remaining.seconds()
            yield TileDone(tile, step.instances, done, total, kept, left)
            remaining.goes_on()


def _about(count: SlideCount) -> str:
    """What will be counted, in one line."""
    slide, plan, pixel_um = count.slide, count.plan, count.cells.scale.lattice_mpp
    scale = f"{pixel_um:.3g} µm/px" if pixel_um else "its own scale"
    where = (
        f"{len(count.wanted):,} of {len(plan.grid):,} tiles hold tissue, "
        f"{count.tally.skipped:,} skipped"
    )
    if (regions := plan.regions) is not None:
        number = f"{len(regions):,} region{'s' * (len(regions) > 1)}"
        where = f"{number}, {len(count.wanted):,} tiles to look at"
    return (
        f"{slide.width:,} × {slide.height:,} px, protocol {plan.protocol.name} at {scale}, {where}"
    )


def _open(
    request: CountRequest,
    key: Mapping[str, object],
    plan: Plan,
    info: DetectorInfo,
    place: Location | None,
) -> ResultFolder:
    """The result folder; a refusal names it as the user knows it."""
    path = Path(str(request.output or home_of(request.image))) / result_name(request)
    try:
        return ResultFolder.open(
            path,
            key=key,
            image=request.image,
            sound=lambda tile: check_tile(tile, plan, info),
            overwrite=request.overwrite,
        )
    except ExistingResultError as error:
        raise error.at(place or path) from error


def _refuse_replaced(
    request: CountRequest, identity: list[str | int], folder: ResultFolder
) -> None:
    """What was read of two slides is no result of either.

    Raises
    ------
    InputError
    """
    if fingerprint(request.image) != identity:
        folder.forget_tiles()
        raise InputError(
            f"{request.image}: was replaced or changed while it was counted; nothing was "
            "written, count it again"
        )


def _export(request: CountRequest, folder: Path, *, missing: bool = False) -> None:
    """Add the exports that the request names; ``missing``: only those that are not there."""
    # A file that the result does not list is of a run that was killed before it did.
    there = load_result(folder)
    for name in request.export:
        if not (missing and there.has_export(name)):
            export(folder, name)


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
            counted_before=True,
        )
    except (CellsegError, LookupError, TypeError, ValueError):
        return None


def _mapper(request: CountRequest, detector: Detector | None) -> TileMapper:
    """Where tiles are read and detected; the scheduler of a cluster has answered."""
    if request.engine == "local":
        if request.scheduler is not None:
            raise SettingsError("--scheduler is the address of a Dask cluster: add --engine dask")
        return Here(request.batch)
    # Imported late: only a run on a cluster needs it.
    from cellseg.counting.dask.engine import There

    return There(request, detector)


def detector_key(model: str | Path, device: str, precision: str = "auto") -> tuple[str, str, str]:
    """Where :func:`run` looks for a model in ``detectors``."""
    return str(model), device, precision


def _load(request: CountRequest, detectors: MutableMapping[object, Detector] | None) -> Detector:
    """The request's Mask R-CNN, loaded once a command."""
    # On a cluster this machine only asks the model what it is; it may lack the workers' device.
    here = request.engine == "local"
    device = request.device if here else "cpu"
    key = detector_key(request.model, device, request.precision)
    store: MutableMapping[object, Detector] = {} if detectors is None else detectors
    if key not in store:
        precision = None if request.precision == "auto" or not here else request.precision
        store[key] = load_detector(request.model, device=device, precision=precision)
    return store[key]
