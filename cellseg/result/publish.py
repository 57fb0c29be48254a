"""The names of a result's files, and their way from the staging folder to these names.

Everything is written and synced under ``.partial``; then a file ``READY`` says that the whole
is complete; then an older result steps aside, ``run.json`` first, and each part goes to its final
name, ``run.json`` last: where it stands, all that stands beside it belongs to it. A run that is
killed in between is rolled forward by whoever opens the folder next; one whose disk refuses (a
table that is open in a spreadsheet, on Windows) puts the older result back.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cellseg.errors import InputError
from cellseg.result.files import (
    is_bare_name,
    own_file,
    read_json,
    remove,
    sha256_of,
    sync,
    sync_tree,
    write_json,
)
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

CHECKED = (TABLE, MEASURED, LABELS, RECIPE, *OPTIONAL)
"""Sizes and checksums of these stand in ``run.json``."""

RESULT_FILES = (*CHECKED, RUN)
"""What a run itself leaves; exports and corrections come beside it."""

FORMAT = "cellseg result"
FORMAT_VERSION = 1

FETCHED = ".fetched"
"""Lies beside the record of a result behind a URL, whose pixels and table were not fetched."""

_READY, _OLD = "READY", "old"
_OF_ZARR = (".zattrs", ".zgroup", ".zarray", ".zmetadata")


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
    with suppress(InputError):
        ready = read_json(own_file(folder, f"{STAGING}/{_READY}"))
        token = ready.get("token")
        for name in (f"{STAGING}/{LABELS}", LABELS):
            if token is not None and label_token(folder, name) == token:
                return ready
    return None


def publish(folder: Path) -> None:
    """Move a whole result to its final names; may be called again after a kill.

    Raises
    ------
    OSError
        If the disk refuses. An older result is whole again then, and the new one is dropped.
    """
    staging, old = folder / STAGING, folder / STAGING / _OLD
    ready = _ready(folder) or {}
    gone = [name for name in _names(ready, "gone") if name != RUN]
    # The record goes first and comes last: where it stands, all beside it belongs to it.
    parts = sorted(_names(ready, "parts"), key=RUN.__eq__)
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


def _exists(path: Path) -> bool:
    return os.path.lexists(path)


def _names(ready: Mapping[str, object], key: str) -> list[str]:
    """Names in a record, as far as a result may hold such a file."""
    names = ready.get(key)
    found = names if isinstance(names, list) else []
    return [name for name in found if name in RESULT_FILES or is_export_name(name)]


def is_export_name(name: object) -> bool:
    """Whether an export may have this name: a bare one, and none of the result's own."""
    if not isinstance(name, str) or not is_bare_name(name) or name.startswith("."):
        return False
    return name.lower() not in (*RESULT_FILES, "journal.sqlite", CORRECTIONS)


def published(folder: Path) -> dict[str, object] | None:
    """``run.json`` of the result under the final names; None where there is none."""
    with suppress(InputError):
        run = read_json(own_file(folder, RUN))
        return run if run.get("format") == FORMAT else None
    return None


def files_of(run: Mapping[str, object]) -> dict[str, Any]:
    """Sizes and checksums that ``run.json`` lists."""
    found = run.get("files")
    return found if isinstance(found, dict) else {}


def exports_of(run: Mapping[str, object] | None) -> list[str]:
    """Names of the exports that ``run.json`` lists, other names left out."""
    names = (run or {}).get("exports")
    return [name for name in names if is_export_name(name)] if isinstance(names, list) else []


def entry_of(path: Path) -> dict[str, object]:
    """Size and checksum of a file or a folder, as ``run.json`` lists them."""
    if path.is_dir():
        return _folder_entry(_sizes_below(path))
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def _folder_entry(sizes: Mapping[str, int]) -> dict[str, object]:
    """Number, size and one checksum of the names and sizes of a folder's files.

    What a desktop hides there (``.DS_Store``) does not count.
    """
    kept = sorted(
        (name, size)
        for name, size in sizes.items()
        if not (last := name.rpartition("/")[2]).startswith(".") or last in _OF_ZARR
    )
    text = "".join(f"{name}\0{size}\n" for name, size in kept)
    return {
        "files": len(kept),
        "bytes": sum(size for _, size in kept),
        "sha256": hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest(),
    }


def _sizes_below(folder: Path) -> dict[str, int]:
    """Bytes of every file below a folder, by its name there."""
    found = {}
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            found[path.relative_to(folder).as_posix()] = path.lstat().st_size
    return found


def changed(
    folder: Path, run: Mapping[str, object], *, names: Iterable[str] = CHECKED
) -> str | None:
    """The first of a result's files that is not as ``run.json`` lists it; None where all are."""
    sizes: dict[str, int] = {}
    for name in names:
        path = own_file(folder, name)
        if path.is_dir():
            sizes |= {f"{name}/{part}": size for part, size in _sizes_below(path).items()}
        elif path.exists():
            sizes[name] = path.stat().st_size
    return first_change(run, sizes, lambda name: sha256_of(folder / name), names=names)


def first_change(
    run: Mapping[str, object],
    sizes: Mapping[str, int],
    checksum: Callable[[str], str],
    *,
    names: Iterable[str] = CHECKED,
) -> str | None:
    """The first file that is not as ``run.json`` lists it, wherever the result lies.

    Parameters
    ----------
    sizes : mapping
        Bytes of every file of the result, by its name below the folder.
    checksum : callable
        SHA-256 of a file, by its name; asked only where the size is right.
    """
    record = files_of(run)
    for name in names:
        entry, size, head = record.get(name), sizes.get(name), f"{name}/"
        inner = {n.removeprefix(head): s for n, s in sizes.items() if n.startswith(head)}
        if inner:
            same = entry == _folder_entry(inner)
        elif size is None or not isinstance(entry, dict):
            same = size is None and entry is None
        else:
            same = entry.get("bytes") == size and entry.get("sha256") == checksum(name)
        if not same:
            return name
    return None
