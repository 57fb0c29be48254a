"""Cells around the nuclei of a finished count, and everything that is out of date made anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cellseg.derive.classified import Classification
from cellseg.derive.expand import expand
from cellseg.errors import SettingsError
from cellseg.pipeline.classified import Remade, classify_result, remake
from cellseg.pipeline.events import Note
from cellseg.result.result import load_result
from cellseg.storage import Location


def expand_result(folder: Path, by: float, *, image: Location | None = None) -> Remade:
    """Expand a finished count; classes by what is measured anew are given anew.

    Parameters
    ----------
    folder : Path
        A finished result; its table, record and exports are replaced.
    by : float
        µm; pixels of the image where it has no pixel size.
    image : Path or RemotePath, optional
        Where the slide is by now, if it was moved.

    Raises
    ------
    SettingsError
        If the distance is none.
    InputError
        If the folder is no finished result, or is damaged.
    OutputError
        If the disk refuses.
    """
    result = expand(folder, by, image=image)
    notes = tuple(result.run["expansion"]["notes"])
    made = Classification.of(result.run)
    if made is not None and any(
        m.measure.startswith(("cell_", "cytoplasm_")) for m in made.markers
    ):
        try:
            done = classify_result(folder, made.markers, image=image)
            return Remade(done.result, notes + done.notes)
        except SettingsError as error:
            notes += (f"{error}; cells keep the classes of the expansion before",)
    done = remake(result, image)
    return Remade(done.result, notes + done.notes)


def expand_count(folder: Path, by: float | None, *, image: Location) -> Iterator[Note]:
    """What a request's expansion makes of a count, unless it was made already."""
    run = load_result(folder).run
    if by is None or (run.get("expansion") or {}).get("by") == by:
        return
    yield from (Note(note) for note in expand_result(folder, by, image=image).notes)
