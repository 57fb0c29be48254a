"""Classes by measurement for a finished count, and everything that shows them made anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cellseg.counting.stages import SlideCount
from cellseg.derive import reclassify
from cellseg.derive.classified import Classification
from cellseg.derive.markers import measurement
from cellseg.derive.spatial import SPATIAL, near_within, spatial
from cellseg.draw.overlay import overlay, overview
from cellseg.errors import CellsegError, SettingsError
from cellseg.export import EXPORTS, export
from cellseg.pipeline.events import Note
from cellseg.protocol import Marker
from cellseg.result.publish import OUTLINES, OVERVIEW
from cellseg.result.result import Result, load_result
from cellseg.storage import Location
from cellseg.table.around import around_columns
from cellseg.table.neighbours import Near


@dataclass(frozen=True, eq=False)
class Remade:
    """What came of it.

    Attributes
    ----------
    result : Result
        As it is now.
    notes : tuple of str
        What a person should know, one line each.
    """

    result: Result
    notes: tuple[str, ...]


def classify_result(
    folder: Path, markers: Sequence[Marker], *, image: Location | None = None
) -> Remade:
    """Classify the cells of a finished count, without its network and without measuring again.

    Parameters
    ----------
    folder : Path
        A finished result; its table, record, pictures and exports are replaced.
    image : Path or RemotePath, optional
        Where the slide is by now, if it was moved.

    Raises
    ------
    SettingsError
        If a measurement is not there, or no threshold can be proposed.
    InputError
        If the folder is no finished result, or is damaged.
    OutputError
        If the disk refuses.
    """
    result = reclassify(folder, markers)
    notes = Classification.of(result.run).notes  # type: ignore[union-attr]
    done = remake(result, image)
    return Remade(done.result, (*notes, *done.notes))


def remake(result: Result, image: Location | None) -> Remade:
    """Make exports and pictures anew that show a result as it was before."""
    notes = []
    if SPATIAL in (result.run.get("stale") or ()):
        result = spatial(result.path, within=result.section(SPATIAL).get("within"))
    for name in result.run.get("stale") or ():
        if name in EXPORTS:
            export(result.path, name)
        elif name in (OUTLINES, OVERVIEW):
            try:
                draw = overlay if name == OUTLINES else overview
                draw(result, image=image)
            except CellsegError as error:
                notes.append(f"{name} still shows the result before: {error}")
        else:
            notes.append(f"{name} still shows the result before; make it again")
    return Remade(load_result(result.path), tuple(notes))


def check_markers(count: SlideCount, *, expanded: bool, is_spatial: bool = False) -> None:
    """Refuse a measurement that the table will not have, before the network rather than after it.

    Raises
    ------
    SettingsError
    """
    protocol, there = count.plan.protocol, list(count.cells.columns)
    if expanded:
        channels = count.slide.channels if protocol.intensity else ()
        there += around_columns(
            channels, stain=protocol.stain, has_mpp=count.cells.scale.mpp is not None
        )
    if is_spatial:
        mpp = count.cells.scale.mpp
        there += Near(mpp, near_within(None, mpp)).columns
    for marker in protocol.classify:
        measurement(marker.measure, [(column.name, column.dtype) for column in there])


def classify_count(
    folder: Path, markers: Sequence[Marker], *, image: Location, missing: bool = False
) -> Iterator[Note]:
    """What a protocol's markers make of a count; cells keep the model's class where none can be.

    ``missing``: only where an interrupted run did not come so far.
    """
    if not markers or (missing and "classification" in load_result(folder).run):
        return
    try:
        notes = classify_result(folder, markers, image=image).notes
    except SettingsError as error:
        notes = (f"{error}; cells keep the model's class",)
    yield from (Note(note) for note in notes)
