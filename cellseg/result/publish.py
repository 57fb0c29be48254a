"""From the staging folder to the final names, so that a kill at any moment does no harm.

Everything is written and synced under ``.partial``; then a file ``READY`` says that the whole
is complete; then an older result steps aside, ``run.json`` first, and each part goes to its final
name, ``run.json`` last: where it stands, all that stands beside it belongs to it. A run that is
killed in between is rolled forward by whoever opens the folder next; one whose disk refuses (a
table that is open in a spreadsheet, on Windows) puts the older result back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cellseg.errors import InputError
from cellseg.result.files import (
    is_bare_name,
    read_json,
    remove,
    sha256_of,
    sync,
    sync_tree,
    write_json,
)
from cellseg.result.inventory import first_change, sizes_below
from cellseg.result.labels import label_token

STAGING = ".partial"
TABLE, LABELS, RUN, OVERVIEW = "cells.csv", "labels.ome.zarr", "run.json", "overview.png"
MEASURED, RECIPE, DERIVED = "measured.parquet", "recipe.json", "derived.parquet"
"""What counting measured; what people decided; the columns that follow from both."""

TISSUE, OUTLINES, HISTOGRAM = "tissue.geojson", "outlines.png", "histogram.png"
REGIONS, CORRECTIONS = "regions.geojson", "corrections.json"
CELLS = "cells.ome.zarr"
"""The cells around the nuclei, of an expanded result."""

PICTURES = (OUTLINES, OVERVIEW, HISTOGRAM)
OPTIONAL = (*PICTURES, TISSUE, REGIONS, CELLS, DERIVED)
"""What a result need not have."""

RESULT_FILES = (TABLE, MEASURED, LABELS, RECIPE, *OPTIONAL, RUN)
"""What a run itself leaves; exports and corrections come beside it."""

CHECKED = (TABLE, MEASURED, LABELS, RECIPE, *OPTIONAL)
"""Of these, sizes and checksums stand in ``run.json``."""

FORMAT = "cellseg result"
FORMAT_VERSION = 1

FETCHED = ".fetched"
"""Lies beside the record of a result behind a URL, whose pixels and table were not fetched."""

_READY, _OLD = "READY", "old"


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


def mark_ready(folder: Path, token: str, *, gone: Iterable[str] = ()) -> None:
    """Say that the staging folder holds a whole result, or a whole change of one.

    Parameters
    ----------
    token : str
        Of its label image; of the one under the final name, where only other parts are new.
    gone : iterable of str
        Parts and exports of the result there that will go.
    """
    staging = folder / STAGING
    parts = sorted(path.name for path in staging.iterdir())
    sync_tree(staging)
    write_json(staging / _READY, {"token": token, "gone": sorted(gone), "parts": parts})


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
    gone = [name for name in _names(ready, "gone") if _may_move(name) and name != RUN]
    parts = [name for name in _names(ready, "parts") if _may_move(name)]
    # The record goes first and comes last: where it stands, all beside it belongs to it.
    parts.sort(key=RUN.__eq__)
    try:
        old.mkdir(exist_ok=True)
        (folder / FETCHED).unlink(missing_ok=True)
        for name in (*reversed(parts), *gone):
            if _exists(folder / name) and (_exists(staging / name) or name in gone):
                (folder / name).rename(old / name)
        for name in parts:
            if _exists(staging / name):
                os.replace(staging / name, folder / name)  # noqa: PTH105 - says what it does
    except OSError:
        if _exists(old / RUN):
            _put_back(folder, gone, parts)
        raise
    sync(folder)
    (staging / _READY).unlink()
    remove(old)
    sync(staging)


def _put_back(folder: Path, gone: Iterable[str], parts: Sequence[str]) -> None:
    """The older result under its names again, ``run.json`` last; then the new one is not ready."""
    staging, old = folder / STAGING, folder / STAGING / _OLD
    for name in (*gone, *parts):
        if name in parts and not _exists(staging / name) and _exists(folder / name):
            (folder / name).rename(staging / name)
        if _exists(old / name):
            (old / name).rename(folder / name)
    sync(folder)
    (staging / _READY).unlink()


def _may_move(name: str) -> bool:
    """Whether a name in a record is one that a result may hold."""
    return name in RESULT_FILES or is_export_name(name)


def _exists(path: Path) -> bool:
    return os.path.lexists(path)


def _names(ready: dict[str, Any], key: str) -> list[str]:
    names = ready.get(key)
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def is_export_name(name: object) -> bool:
    """Whether an export may have this name: a bare one, and none of the result's own."""
    if not isinstance(name, str) or not is_bare_name(name) or name.startswith("."):
        return False
    return name.lower() not in (*RESULT_FILES, "journal.sqlite", CORRECTIONS)


def published(folder: Path) -> dict[str, object] | None:
    """``run.json`` of the result under the final names; None where there is none."""
    try:
        run = read_json(folder / RUN)
    except InputError:
        return None
    return run if run.get("format") == FORMAT else None


def changed(
    folder: Path, run: Mapping[str, object], *, names: Iterable[str] = CHECKED
) -> str | None:
    """What of a result is not as ``run.json`` says it was published; None where all is."""
    sizes = {name: (folder / name).stat().st_size for name in names if (folder / name).is_file()}
    for name in {LABELS, CELLS} & {*names}:
        sizes |= {f"{name}/{part}": n for part, n in sizes_below(folder / name).items()}
    return changed_files(run, sizes, lambda name: sha256_of(folder / name), names=names)


def changed_files(
    run: Mapping[str, object],
    sizes: Mapping[str, int],
    checksum: Callable[[str], str],
    *,
    names: Iterable[str] = CHECKED,
) -> str | None:
    """The first file that is not as published, wherever the result lies; see `first_change`."""
    return first_change(names, files_of(run), sizes, checksum)


def files_of(run: Mapping[str, object]) -> dict[str, Any]:
    """Sizes and checksums that ``run.json`` lists."""
    found = run.get("files")
    return found if isinstance(found, dict) else {}


def exports_of(run: dict[str, object] | None) -> list[str]:
    """Names of the exports that ``run.json`` lists, other names left out."""
    names = (run or {}).get("exports")
    return [name for name in names if is_export_name(name)] if isinstance(names, list) else []
