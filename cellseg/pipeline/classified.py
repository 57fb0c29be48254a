"""Classes by measurement for a finished count, and everything that shows them made anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cellseg.classify import measurement
from cellseg.counting.stages import SlideCount
from cellseg.errors import CellsegError, SettingsError
from cellseg.export import EXPORTS, export
from cellseg.overlay import overlay
from cellseg.pipeline.events import Note
from cellseg.protocol import Marker
from cellseg.results import OUTLINES, Result, load_result, reclassify
from cellseg.results.classified import Classification
from cellseg.storage import Location


@dataclass(frozen=True, eq=False)
class Classified:
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
) -> Classified:
    """Classify the cells of a finished count, without its network and without measuring again.

    Parameters
    ----------
    folder : Path
        A finished result; its table, record, pictures and exports are replaced.
    markers : sequence of Marker
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
    notes = list(Classification.of(result.run).notes)  # type: ignore[union-attr]
    for name in result.run.get("stale", ()):
        if name in EXPORTS:
            export(folder, name)
        elif name == OUTLINES:
            try:
                overlay(result, image=image)
            except CellsegError as error:
                notes.append(f"{name} still shows the classes before: {error}")
        else:
            notes.append(f"{name} still shows the classes before; make it again")
    return Classified(load_result(folder), tuple(notes))


def check_markers(count: SlideCount) -> None:
    """Refuse a measurement that the table will not have, before the network rather than after it.

    Raises
    ------
    SettingsError
    """
    for marker in count.plan.protocol.classify:
        measurement(marker.measure, [(column.name, column.dtype) for column in count.cells.columns])


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
