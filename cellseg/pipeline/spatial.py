"""Where the cells of a finished count lie, and exports that are out of date made anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cellseg.derive.spatial import near_within, spatial
from cellseg.pipeline.classified import Remade, remake
from cellseg.pipeline.events import Note
from cellseg.result.result import load_result


def spatial_result(folder: Path, *, within: int | None = None) -> Remade:
    """Measure where a finished count's cells lie, without its network and its pixels.

    Parameters
    ----------
    folder : Path
        A finished result; its table, record and exports are replaced.
    within : int, optional
        See :func:`cellseg.derive.spatial.spatial`.

    Raises
    ------
    SettingsError
        If the distance is none.
    InputError
        If the folder is no finished result, or is damaged.
    OutputError
        If the disk refuses.
    """
    result = spatial(folder, within=within)
    done = remake(result, None)
    return Remade(done.result, (*result.run["spatial"]["notes"], *done.notes))


def spatial_count(folder: Path, *, is_wanted: bool) -> Iterator[Note]:
    """What a request's ``spatial`` makes of a count, unless it was made already."""
    result = load_result(folder)
    usual = near_within(None, result.frame.mpp)
    made = result.section("spatial")
    if not is_wanted or (result.added("spatial") and made.get("within") == usual):
        return
    yield from (Note(note) for note in spatial_result(folder).notes)
