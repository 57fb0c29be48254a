"""From the staging folder to the final names, so that a kill at any moment does no harm.

Everything is written and synced under ``.partial``; then a file ``READY`` says that the whole
is complete; then an older result steps aside, ``run.json`` first, and each part goes to its final
name, ``run.json`` last: where it stands, all that stands beside it belongs to it. A run that is
killed in between is rolled forward by whoever opens the folder next; one whose disk refuses (a
table that is open in a spreadsheet, on Windows) puts the older result back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from cellseg.errors import InputError
from cellseg.result.files import (
    is_bare_name,
    read_json,
    remove,
    sha256_of,
    sync,
    write_json,
)
from cellseg.result.inventory import file_entry, first_change, folder_entry, sizes_below
from cellseg.result.labels import label_token

STAGING = ".partial"
TABLE, LABELS, RUN, OVERVIEW = "cells.csv", "labels.ome.zarr", "run.json", "overview.png"
TISSUE, OUTLINES, HISTOGRAM = "tissue.geojson", "outlines.png", "histogram.png"
REGIONS, CORRECTIONS = "regions.geojson", "corrections.json"
CELLS = "cells.ome.zarr"
"""The cells around the nuclei, of an expanded result."""

RESULT_FILES = (TABLE, LABELS, CELLS, OVERVIEW, OUTLINES, HISTOGRAM, TISSUE, REGIONS, RUN)
"""What a run itself leaves; exports and corrections come beside it."""

CHECKED = (TABLE, LABELS, CELLS, OVERVIEW, OUTLINES, HISTOGRAM, TISSUE, REGIONS)
"""Of these, sizes and checksums stand in ``run.json``."""

FORMAT = "cellseg result"
FORMAT_VERSION = 1

FETCHED = ".fetched"
"""Lies beside the record of a result behind a URL, whose pixels and table were not fetched."""

_READY, _OLD = "READY", "old"
_OPTIONAL = (OVERVIEW, OUTLINES, HISTOGRAM, TISSUE, REGIONS, CELLS)
_FILES = (TABLE, *_OPTIONAL, RUN)


def fresh_staging(folder: Path) -> Path:
    """An empty staging folder; what an earlier run left there is deleted."""
    staging = folder / STAGING
    remove(staging)
    staging.mkdir()
    return staging


def remove_staging(folder: Path) -> None:
    """Delete the staging folder, unless a whole result waits in it."""
    if not is_ready(folder):
        remove(folder / STAGING)


def mark_ready(
    folder: Path, token: str, *, outdated: Iterable[str], absent: Iterable[str] | None = None
) -> None:
    """Say that the staging folder holds a whole result.

    Parameters
    ----------
    token : str
        Of its label image; of the one under the final name, where only other parts are new.
    outdated : iterable of str
        Exports that will go.
    absent : iterable of str, optional
        Parts that will go; by default those that a run may leave out and did.
    """
    staging = folder / STAGING
    sync(staging)
    if absent is None:
        absent = [name for name in _OPTIONAL if not _exists(staging / name)]
    parts = [name for name in (LABELS, *_FILES) if _exists(staging / name)]
    ready = {"token": token, "outdated": list(outdated), "absent": list(absent), "parts": parts}
    write_json(staging / _READY, ready)


def is_ready(folder: Path) -> bool:
    """Whether a whole result waits in the staging folder."""
    return _ready(folder) is not None


def _ready(folder: Path) -> dict[str, Any] | None:
    """What :func:`mark_ready` wrote; None where nothing whole waits."""
    staging = folder / STAGING
    if staging.is_symlink() or not (staging / _READY).is_file():
        return None
    try:
        ready = read_json(staging / _READY)
    except InputError:
        return None
    tokens = {label_token(staging / LABELS), label_token(folder / LABELS)}
    return ready if ready.get("token") in tokens - {None} else None


def publish(folder: Path) -> None:
    """Move a whole result to its final names; may be called again after a kill.

    Raises
    ------
    OSError
        If the disk refuses. An older result is whole again then, and the new one is dropped.
    """
    staging, old = folder / STAGING, folder / STAGING / _OLD
    ready = _ready(folder) or {}
    going = {*_names(ready, "absent"), *_names(ready, "outdated")}
    gone = [name for name in going if name in _OPTIONAL or is_export_name(name)]
    try:
        old.mkdir(exist_ok=True)
        (folder / FETCHED).unlink(missing_ok=True)
        for name in (RUN, TABLE, LABELS, *_OPTIONAL, *gone):
            if _exists(folder / name) and (_exists(staging / name) or name in gone):
                (folder / name).rename(old / name)
        for name in (LABELS, *_FILES):
            if _exists(staging / name):
                os.replace(staging / name, folder / name)  # noqa: PTH105 - says what it does
    except OSError:
        if _exists(old / RUN):
            _put_back(folder, gone, _names(ready, "parts"))
        raise
    sync(folder)
    (staging / _READY).unlink()
    remove(old)
    sync(staging)


def _put_back(folder: Path, gone: Iterable[str], parts: Iterable[str]) -> None:
    """The older result under its names again, ``run.json`` last; then the new one is not ready.

    What was not among the new one's ``parts`` never moved.
    """
    staging, old = folder / STAGING, folder / STAGING / _OLD
    for name in (*gone, *_OPTIONAL, LABELS, TABLE, RUN):
        arrived = name in parts and not _exists(staging / name) and name not in gone
        if arrived and _exists(folder / name):
            (folder / name).rename(staging / name)
        if _exists(old / name):
            (old / name).rename(folder / name)
    sync(folder)
    (staging / _READY).unlink()


def _exists(path: Path) -> bool:
    return os.path.lexists(path)


def _names(ready: dict[str, Any], key: str) -> list[str]:
    names = ready.get(key)
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def is_export_name(name: object) -> bool:
    """Whether an export may have this name: a bare one, and none of the result's own."""
    if not isinstance(name, str) or not is_bare_name(name) or name.startswith("."):
        return False
    own = (TABLE, LABELS, RUN, *_OPTIONAL, "journal.sqlite", CORRECTIONS)
    return name.lower() not in own


def published(folder: Path) -> dict[str, object] | None:
    """``run.json`` of the result under the final names; None where there is none."""
    try:
        run = read_json(folder / RUN)
    except InputError:
        return None
    return run if run.get("format") == FORMAT else None


def inventory(folder: Path, *, rows: int) -> dict[str, dict[str, object]]:
    """Sizes and checksums of a whole result, for its ``run.json``."""
    found = {name: file_entry(folder / name) for name in _FILES if (folder / name).is_file()}
    found[TABLE]["rows"] = rows
    return {**found, LABELS: folder_entry(sizes_below(folder / LABELS))}


def changed(folder: Path, run: Mapping[str, object], *, table_only: bool = False) -> str | None:
    """What of a result is not as ``run.json`` says it was published; None where all is."""
    sizes = {name: (folder / name).stat().st_size for name in _FILES if (folder / name).is_file()}
    if not table_only:
        for part in (LABELS, CELLS):
            sizes |= {f"{part}/{name}": n for name, n in sizes_below(folder / part).items()}

    return changed_files(
        run, sizes, lambda name: sha256_of(folder / name), names=(TABLE,) if table_only else CHECKED
    )


def changed_files(
    run: Mapping[str, object],
    sizes: Mapping[str, int],
    checksum: Callable[[str], str],
    *,
    names: Iterable[str] = CHECKED,
) -> str | None:
    """The same of a result wherever it lies: see :func:`first_change`."""
    return first_change(names, files_of(run), sizes, checksum)


def files_of(run: Mapping[str, object]) -> dict[str, Any]:
    """Sizes and checksums that ``run.json`` lists."""
    found = run.get("files")
    return found if isinstance(found, dict) else {}


def exports_of(run: dict[str, object] | None) -> list[str]:
    """Names of the exports that ``run.json`` lists, other names left out."""
    names = (run or {}).get("exports")
    return [name for name in names if is_export_name(name)] if isinstance(names, list) else []
