"""The run: slide to tissue, tiles, cells, merged, measured, written; as events.

:func:`run` is a generator: whoever drains it (the command line, a widget) decides how
progress looks, and may stop at any event; what is done stays in the journal.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, MutableMapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cellseg.counting.events import CountResult, Event, Note, Started, TileDone
from cellseg.counting.plan import Plan, make_plan
from cellseg.counting.request import CountRequest
from cellseg.counting.slide_run import SlideRun, result_name
from cellseg.detect import Detector
from cellseg.detect.maskrcnn import load_detector
from cellseg.errors import SettingsError
from cellseg.export import check_exports
from cellseg.results.upload import RemoteResult
from cellseg.slide import open_slide
from cellseg.storage import Location, RemotePath, fingerprint

if TYPE_CHECKING:
    from cellseg.counting.dask.engine import DaskEngine

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
        InputError, SettingsError or OutputError, each also the builtin that it resembles; with
        ``strict`` also RegionError at the first damaged tile.
    """
    check_exports(request.export)
    home = request.output or request.image.parent
    if not isinstance(home, RemotePath):
        yield from _events(request, detector, detectors)
        return
    if request.output is None:
        raise SettingsError(f"{request.image}: --output must say where its result goes")
    remote = RemoteResult.at(home.child(result_name(request)))
    whole = bool(request.export)
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


def _events(
    request: CountRequest,
    detector: Detector | None,
    detectors: MutableMapping[object, Detector] | None,
    *,
    place: Location | None = None,
) -> Iterator[Event]:
    """A run whose result goes to a disk; ``place`` is what the user calls its folder."""
    start = time.monotonic()
    cluster = _cluster(request)
    with open_slide(
        request.image, mpp=request.mpp, z=request.z, t=request.t, series=request.series
    ) as slide:
        identity = fingerprint(request.image)
        yield from (Note(text) for text in slide.notes)
        chosen = detector or _load(request, detectors)
        plan = make_plan(slide, request, chosen.info)
        if detector is None:
            chosen = _load(request, detectors, plan)
        yield from (Note(text) for text in plan.notes)
        own = detector is not None
        yield from SlideRun(
            slide,
            request,
            plan,
            chosen,
            start,
            identity=identity,
            cluster=cluster,
            own=own,
            place=place,
        ).events()


def _cluster(request: CountRequest) -> DaskEngine | None:
    """The cluster's engine, if the request asks for one; its scheduler has answered."""
    if request.engine == "local":
        if request.scheduler is not None:
            raise SettingsError("--scheduler is the address of a Dask cluster: add --engine dask")
        return None
    # Imported late: only a run on a cluster needs it.
    from cellseg.counting.dask.engine import DaskEngine

    engine = DaskEngine(request.scheduler, batch=request.batch)
    engine.check()
    return engine


def detector_key(model: str | Path, device: str, precision: str = "auto") -> tuple[str, str, str]:
    """Where :func:`run` looks for a model in ``detectors``."""
    return str(model), device, precision


def _load(
    request: CountRequest,
    detectors: MutableMapping[object, Detector] | None,
    plan: Plan | None = None,
) -> Detector:
    """The request's Mask R-CNN, loaded once a command, set to the plan's thresholds."""
    # On a cluster this machine only asks the model what it is; it may lack the workers' device.
    here = request.engine == "local"
    device = request.device if here else "cpu"
    key = detector_key(request.model, device, request.precision)
    store: MutableMapping[object, Detector] = {} if detectors is None else detectors
    if key not in store:
        precision = None if request.precision == "auto" or not here else request.precision
        store[key] = load_detector(request.model, device=device, precision=precision)
    loaded = store[key]
    if plan is None:
        return loaded
    return loaded.with_thresholds(score=plan.protocol.score, nms_iou=plan.protocol.nms_iou)
