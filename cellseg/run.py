"""One slide from the request to the finished result: the only place that joins all rooms.

:func:`run` counts, derives, draws and exports, and tells it as events; whoever drains them decides
how progress looks, and may stop at any event: what is done stays in the journal. :func:`change`
derives a finished result anew from another recipe, :func:`save` from a person's corrections.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cellseg import __version__
from cellseg.counting.request import CountRequest
from cellseg.derive import Classification, NoThresholdError, Recipe, derive, refuse_early
from cellseg.derive.classes import known_markers
from cellseg.draw.histogram import draw_histograms
from cellseg.draw.pictures import draw_pictures
from cellseg.errors import CellsegError, ExistingResultError, InputError, Notice, SettingsError
from cellseg.events import CountResult, Event, Started, TileDone
from cellseg.export import EXPORTS, check_exports, export, write_export
from cellseg.protocol import CountProtocol, Marker
from cellseg.result import Change, Result, ResultFolder, add_file, changing, load_result
from cellseg.result.publish import CORRECTIONS, HISTOGRAM, corrected_path
from cellseg.result.upload import RemoteResult
from cellseg.slide import Slide, open_slide, slide_name
from cellseg.slide.formats import home_of
from cellseg.storage import Location, RemotePath, fingerprint

if TYPE_CHECKING:
    from cellseg.counting.dask import DaskMapper
    from cellseg.counting.record import Recording
    from cellseg.counting.stages import SlideCount
    from cellseg.counting.tiles import LocalMapper
    from cellseg.derive.corrections import Corrections
    from cellseg.network.detector import Detector

FEWEST_TILES = 8
"""Tiles after which the remaining time is estimated."""

__all__ = ["CountRequest", "CountResult", "Event", "change", "run", "save"]


def run(request: CountRequest, *, detector: Detector | None = None) -> Iterator[Event]:
    """Count one slide, event by event: notices and tiles, and a CountResult at the end.

    Parameters
    ----------
    detector : Detector, optional
        Takes the place of the Mask R-CNN that ``request.model`` names.

    Raises
    ------
    CellsegError
        InputError, SettingsError or OutputError, each also the builtin that it resembles; with
        ``strict`` also RegionError at the first damaged tile.
    """
    check_exports(request.export)
    home = request.output or home_of(request.image)
    if not isinstance(home, RemotePath):
        yield from _events(request, detector)
        return
    if request.output is None:
        raise SettingsError(f"{request.image}: say where its result goes", hint="output")
    remote = RemoteResult.at(home.child(result_name(request)))
    local = replace(request, output=remote.local.parent, folder_name=remote.local.name)
    with remote.fetched(request.image):
        for event in _events(local, detector, place=remote.url):
            if not isinstance(event, CountResult):
                yield event
                continue
            if remote.is_new:
                yield Notice(f"uploading to {remote.url}")
                remote.upload(request.image, overwrite=request.overwrite)
            ended = replace(event, uploaded=remote.url)
    yield ended


def change(
    folder: Path,
    *,
    image: Location | None = None,
    on_notice: Callable[[Notice], None] | None = None,
    is_lenient: bool = False,
    **decisions: object,
) -> Result:
    """Derive a finished result anew, with other decisions; its network is not asked again.

    Parameters
    ----------
    image : Path or RemotePath, optional
        Where the slide is by now, if it was moved.
    on_notice : callable, optional
        Gets what a person should know.
    is_lenient : bool
        What this slide cannot have is left out, with a notice, as in a count.
    **decisions
        Fields of :class:`cellseg.derive.Recipe` that change: ``expand``, ``cells_from``,
        ``spatial``, ``within``, ``markers``, ``taught``, ``hotspot``, ``chamber``.

    Raises
    ------
    SettingsError
        If a measurement is not there, a distance does not fit, or no threshold can be proposed.
        The result stays as it was, but for ``histogram.png`` in the last case.
    InputError
        If the folder is no finished result, or is damaged.
    OutputError
        If the disk refuses, or a run is writing there; the result stays as it was.
    """
    if unknown := decisions.keys() - Recipe.model_fields.keys():
        raise TypeError(f"a recipe has no {', '.join(sorted(unknown))}")
    if "markers" in decisions:
        decisions = {"methods": (), "taught": None} | decisions
    elif decisions.get("taught") is not None:
        decisions |= {"markers": (), "methods": ()}
    try:
        with changing(Path(folder)) as changed:
            _ = changed.result.summary
            recipe = Recipe.of(changed.result).model_copy(update=decisions)
            with _slide_of(changed.result, image) as (slide, why):
                has = changed.exports
                notices = _complete(changed, recipe, slide, has, why=why, is_lenient=is_lenient)
            result = changed.commit()
    except NoThresholdError as error:
        result = load_result(Path(folder))
        asked, given = _undecided(recipe, result), Classification.of(result.run)
        add_file(result, HISTOGRAM, lambda path: draw_histograms(result, given, path, asked=asked))
        text = f"{error}; {HISTOGRAM} of the result shows it"
        raise NoThresholdError(text, hint=error.hint) from error
    if on_notice is not None:
        for notice in notices:
            on_notice(notice)
    return result


def save(corrections: Corrections, folder: Path | None = None) -> Result:
    """Write the corrected result, beside the automatic one unless ``folder`` says otherwise.

    Its ``run.json`` is the automatic one's with ``corrected_from`` and ``corrections``: who
    changed what, and when. Its labels run from 1 by position again, and everything is derived
    from its cells by the automatic result's recipe.

    Raises
    ------
    OutputError
        If it cannot be written, if the slide was counted again meanwhile, or if ``folder``
        holds another result.
    SettingsError
        If it is being saved already. Edits meanwhile are refused in the same way.
    """
    from cellseg.derive.corrections.write import write_corrected  # late: a count does without

    automatic = corrections.result
    recipe = Recipe.of(automatic)

    def complete(changed: Change) -> None:
        with _slide_of(automatic) as (slide, why):
            _complete(changed, recipe, slide, why=why, is_lenient=True)

    return write_corrected(corrections, folder, complete)


@contextmanager
def _slide_of(
    result: Result, image: Location | None = None
) -> Iterator[tuple[Slide | None, CellsegError | None]]:
    """A result's slide, or why it is not there; an error where a person said where it is."""
    try:
        slide = result.slide(image)
    except CellsegError as error:
        if image is not None:
            raise
        yield None, error
        return
    with slide:
        yield slide, None


def _complete(
    changed: Change,
    recipe: Recipe,
    slide: Slide | None,
    exports: Sequence[str] = (),
    *,
    why: CellsegError | None = None,
    is_lenient: bool = False,
) -> list[Notice]:
    """Derive, draw, export: everything that follows from what was found."""
    notices = derive(changed, recipe, slide=slide, is_lenient=is_lenient)
    asked = () if changed.run.get("classification") else _undecided(recipe, changed.result)
    notices += draw_pictures(changed, slide, why=why, asked=asked)
    result = changed.result
    for name in exports:
        if name not in EXPORTS:  # a picture of one place
            notices.append(Notice(f"{name} still shows the result before; draw it again"))
            continue
        try:
            write_export(result, name, changed.path(name))
        except CellsegError as error:
            changed.remove(name)
            notices.append(Notice(f"{name} was left out: {error}", hint=error.hint))
    return notices


def _undecided(recipe: Recipe, result: Result) -> tuple[Marker, ...]:
    """Markers of a recipe without a threshold in numbers, by columns of a result."""
    asked = [marker for marker in recipe.markers if marker.threshold == "auto"]
    return known_markers(asked, result.table.dtypes)


def result_name(request: CountRequest) -> str:
    """Name of the result folder."""
    return request.folder_name or f"{slide_name(request.image)}.cellseg"


def _events(
    request: CountRequest, detector: Detector | None, *, place: Location | None = None
) -> Iterator[Event]:
    """A run whose result goes to a disk; ``place`` is what the user calls its folder."""
    # First, so that a wrong address is said before torch is loaded.
    mapper = _mapper(request, detector)
    from cellseg.counting.plan import choose_assay, make_plan
    from cellseg.counting.record import Recording
    from cellseg.counting.stages import SlideCount, by_core

    started = time.monotonic()
    with open_slide(
        request.image, mpp=request.mpp, z=request.z, t=request.t, series=request.series
    ) as slide:
        identity = fingerprint(request.image)
        yield from map(Notice, slide.notes)
        assay = choose_assay(slide, request)
        loading = time.monotonic()
        chosen = detector or _load(request, assay.model)
        started += time.monotonic() - loading  # once a command, however many slides it counts
        plan = make_plan(slide, request, chosen.info, assay=assay, detector=chosen)
        tissue = None
        if request.tma:
            request, plan, tissue = by_core(slide, request, plan)
        yield from map(Notice, plan.notes)
        markers = request.recipe.markers or plan.protocol.classify
        recipe = request.recipe.model_copy(update={"markers": markers})
        if recipe.cells_from is not None:
            slide.channel_number(recipe.cells_from, hint="cells_from")
        key = {"slide": identity, "plan": plan.settings(), "version": __version__}
        with _open(request, key, place) as folder:
            if folder.already_complete and (earlier := _earlier(request.image, folder.path)):
                folder.close()
                yield from _brought_up(earlier, request, slide, plan.protocol)
                return
            if folder.journal.resumed:
                yield Notice("going on from an earlier, interrupted run of the same settings")
            elif why := folder.journal.discarded_because:
                yield Notice(f"{why}: starting afresh")
            count = SlideCount(
                slide, plan, chosen, mapper=mapper, strict=request.strict, tissue=tissue
            )
            refuse_early(recipe, count.frame, count.cells.columns, slide.channels, plan.protocol)
            recording = Recording(folder, count, request)
            yield from _tiles(recording)
            if (folder.path / CORRECTIONS).is_file():
                yield Notice(f"{folder.path}: corrections of an older count are kept, not applied")
            # What was read of two slides is no result of either.
            if fingerprint(request.image) != identity:
                folder.journal.close(keep=False)
                raise InputError(f"{request.image}: changed while it was counted; count it again")
            notices: list[Notice] = []

            def complete(changed: Change) -> None:
                notices.extend(_complete(changed, recipe, slide, request.export, is_lenient=True))

            result = recording.finish(complete, started=started)
            said = {*slide.notes, *plan.notes}
            yield from (Notice(text) for text in count.warnings() if text not in said)
            yield from notices
            yield CountResult(request.image, result, time.monotonic() - started)


def _brought_up(
    earlier: CountResult, request: CountRequest, slide: Slide, protocol: CountProtocol
) -> Iterator[Event]:
    """A finished count, which gets what the request asks for beyond it."""
    folder, result, recipe = earlier.folder, earlier.result, request.recipe
    there, names = Recipe.of(result), ("expand", "cells_from", "hotspot", "chamber", "markers")
    asked = {name: getattr(recipe, name) for name in names}
    wanted = {n: value for n, value in asked.items() if value not in (None, (), getattr(there, n))}
    if recipe.spatial and not (there.spatial and there.within is None):
        wanted |= {"spatial": True, "within": None}
    notices, before = list[Notice](), "counted before with the same settings"
    if not wanted:
        yield Notice(f"{before}: nothing to do")
    else:
        now = there.model_copy(update=wanted)
        refuse_early(now, result.frame, result.columns_found, slide.channels, protocol)
        yield Notice(f"{before}; what is asked for besides is made anew")
        tell, image = notices.append, request.image
        result = change(folder, image=image, on_notice=tell, is_lenient=True, **wanted)
    for name in (name for name in request.export if not result.has_export(name)):
        export(folder, name)
    yield from notices
    if (corrected := corrected_path(folder)).is_dir():
        yield Notice(f"a corrected result lies beside it: {corrected}")
    yield replace(_earlier(request.image, folder) or earlier, made_anew=bool(wanted))


def _tiles(recording: Recording) -> Iterator[Event]:
    """The count's progress, tile by tile."""
    count = recording.count
    total = len(count.wanted)
    yield Started(recording.request.image, total, _about(count), count.frame)
    new, took, asked = 0, 0.0, time.monotonic()
    with closing(recording.steps()) as steps:
        for done, step in enumerate(steps, start=1):
            if (found := step.found) is None:
                return
            if step.is_new:  # what an earlier run left comes faster
                new, took = new + 1, took + time.monotonic() - asked
            left = took / new * (total - done) if new >= FEWEST_TILES else None
            yield TileDone(found.tile, found.instances, done, total, count.tally.kept, left)
            asked = time.monotonic()  # whoever takes the events may pause


def _about(count: SlideCount) -> str:
    """What will be counted, in one line."""
    slide, plan, pixel_um = count.slide, count.plan, count.frame.lattice_mpp
    own = "its own scale" if plan.downsample == 1 else f"{1 / plan.downsample:.2g} times its size"
    scale = f"{pixel_um:.3g} µm/px" if pixel_um else own
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


def _open(request: CountRequest, key: Mapping[str, object], place: Location | None) -> ResultFolder:
    """The result folder; a refusal names it as the user knows it."""
    path = Path(str(request.output or home_of(request.image))) / result_name(request)
    try:
        return ResultFolder.open(path, key=key, image=request.image, overwrite=request.overwrite)
    except ExistingResultError as error:
        raise ExistingResultError(error.why, place=place or path) from error


def _earlier(image: Location, folder: Path) -> CountResult | None:
    """What an earlier run left; None where its record does not say all of it."""
    try:
        result = load_result(folder)
        _ = result.summary
        seconds = float(result.section("seconds")["total"])
        return CountResult(image, result, seconds, counted_before=True)
    except (CellsegError, LookupError, TypeError, ValueError):
        return None


def _mapper(request: CountRequest, detector: Detector | None) -> LocalMapper | DaskMapper:
    """Where tiles are read and detected; the scheduler of a cluster has answered."""
    if request.engine == "local":
        if request.scheduler is not None:
            raise SettingsError(
                "a scheduler is the address of a Dask cluster, and the engine is local",
                hint="engine",
            )
        from cellseg.counting.tiles import LocalMapper

        return LocalMapper()
    try:
        from cellseg.counting.dask import DaskMapper
    except ImportError as error:
        raise SettingsError(
            f'a cluster needs a package that is not installed ({error}); pip install ".[cluster]"'
        ) from error
    return DaskMapper(request, detector)


def _load(request: CountRequest, model: str | Path) -> Detector:
    from cellseg.network.detect import load_detector

    if request.engine == "local":
        return load_detector(model, device=request.device, precision=request.precision,
                             inference=request.inference)  # fmt: skip
    # This machine only asks the model what it is; it may lack what the workers have.
    inference = "torch" if request.inference == "auto" else request.inference
    return load_detector(model, device="cpu", inference=inference)
