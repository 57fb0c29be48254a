"""Where a study lies: on a disk, or behind a URL, of which a copy here has what is read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from cellseg.result.publish import DERIVED, HISTOGRAM, MEASURED, OUTLINES, OVERVIEW
from cellseg.result.upload import fetch_record
from cellseg.storage import Location, RemotePath
from cellseg.study.folder import Study, load_study
from cellseg.study.images import RESULT

_SHOWN = (MEASURED, DERIVED, OUTLINES, OVERVIEW, HISTOGRAM)


@contextmanager
def study_at(place: Location, *, report: bool = False, parquet: bool = False) -> Iterator[Study]:
    """The study of a folder.

    Of results behind a URL the records are fetched, and what the page or the table of all cells
    is made of; the copies are gone after the block.

    Parameters
    ----------
    place : Path or RemotePath
    report, parquet : bool
        Whether these will be made.

    Yields
    ------
    Study

    Raises
    ------
    InputError
        If there is no such folder, no result in it, or the storage refuses.
    """
    if isinstance(place, Path):
        yield load_study(place)
        return
    more = _SHOWN if report else _SHOWN[:2] if parquet else ()
    with tempfile.TemporaryDirectory(prefix="cellseg-study-") as scratch:
        here = Path(scratch, place.name or "study")
        here.mkdir()
        for name in ("summary.csv", "report.html"):
            if (data := _content(place.child(name))) is not None:
                (here / name).write_bytes(data)
        for url, below in _results(place):
            fetch_record(url, here.joinpath(*below), more)
        yield load_study(here, place=place)


def _content(file: RemotePath) -> bytes | None:
    return file.read_bytes() if file.exists() else None


def _results(
    folder: RemotePath, below: tuple[str, ...] = ()
) -> Iterator[tuple[RemotePath, tuple[str, ...]]]:
    """Result folders in a folder and those below it, each with the names that lead there."""
    if folder.suffix.lower() == RESULT:
        yield folder, below
        return
    with folder.reached("cannot be listed") as (fs, path):
        fs.invalidate_cache()
        entries = fs.ls(path, detail=True)
        names = [PurePosixPath(e["name"]).name for e in entries if e["type"] == "directory"]
        here = PurePosixPath(path).name
    for name in sorted({*names} - {"", here}):
        if not name.startswith(".") and not name.lower().endswith(".zarr"):
            yield from _results(folder.child(name), (*below, name))
