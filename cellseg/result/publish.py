"""A result's files: names, what ``run.json`` holds, the way from the staging folder to these names.

Everything is written and synced under ``.partial``; then a file ``READY`` says that the whole
is complete. Then an older result steps aside, ``run.json`` first, and each part goes to its final
name, ``run.json`` last: where it stands, all that stands beside it belongs to it. A run that is
killed in between is rolled forward by whoever opens the folder next. Where the disk refuses (a
table that is open in a spreadsheet, on Windows), the older result is put back.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from os.path import lexists
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasPath, BaseModel, Field, field_validator

from cellseg.errors import STAGING, InputError, sync
from cellseg.geometry import Frame
from cellseg.result.files import is_bare_name, own_file, read_json, remove, sha256_of, write_json
from cellseg.result.labels import label_token
from cellseg.table.summary import Summary

LOCK_NAME = ".cellseg.lock"
TABLE, LABELS, RUN, OVERVIEW = "cells.csv", "labels.ome.zarr", "run.json", "overview.png"
MEASURED, RECIPE, DERIVED = "measured.parquet", "recipe.json", "derived.parquet"
"""What counting measured; what people decided; the columns that follow from both."""

TISSUE, OUTLINES, HISTOGRAM = "tissue.geojson", "outlines.png", "histogram.png"
REGIONS, CORRECTIONS = "regions.geojson", "corrections.json"
DRAWN, WINDOWS = "drawn.geojson", "windows.geojson"
"""Regions that people drew on the finished result, and windows that they should correct; no count
and no change touches them."""
QUALITY = "quality.png"
"""What is wrong where on the slide: see :mod:`cellseg.result.labels`."""

CELLS = "cells.ome.zarr"
"""The cells around the nuclei, of an expanded result."""

PICTURES = (OUTLINES, OVERVIEW, HISTOGRAM)
OPTIONAL = (*PICTURES, TISSUE, REGIONS, QUALITY, CELLS, DERIVED)
"""What a result need not have."""

CHECKED = (TABLE, MEASURED, LABELS, RECIPE, *OPTIONAL)
"""Sizes and checksums of these stand in ``run.json``."""

RESULT_FILES = (*CHECKED, RUN)
"""What a run itself leaves; exports and corrections come beside it."""

AGAIN = "count the slide again, and overwrite this result"  # What mends a damaged one.
FORMAT = "cellseg result"
FORMAT_VERSION = 1

FETCHED = ".fetched"
"""Lies in a copy of what is behind a URL, which may be without its table and pixels."""

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

    ``token`` is that of its label image, or of the one under the final name, where only other
    parts are new; ``gone`` are parts and exports of the result there that will go.
    """
    staging = folder / STAGING
    parts = sorted(path.name for path in staging.iterdir())
    written = [Path(root, name) for root, _, names in os.walk(staging) for name in (*names, ".")]
    # Several at once: the disk then writes them together.
    with ThreadPoolExecutor(8) as pool:
        deque(pool.map(sync, written), maxlen=0)
    write_json(staging / _READY, {"token": token, "gone": sorted(gone), "parts": parts})
    for path in (staging / _READY, staging):
        sync(path)


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

    An OSError if the disk refuses: an older result is whole again then, the new one is dropped.
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
            if lexists(folder / name) and (lexists(staging / name) or name in gone):
                (folder / name).rename(old / name)
        for name in parts:
            if lexists(staging / name):
                os.replace(staging / name, folder / name)  # noqa: PTH105 - says what it does
    except OSError:
        if lexists(old / RUN):
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
        if name in parts and not lexists(staging / name) and lexists(folder / name):
            (folder / name).rename(staging / name)
        if lexists(old / name):
            (old / name).rename(folder / name)
    sync(folder)
    (staging / _READY).unlink()


def _names(ready: Mapping[str, object], key: str) -> list[str]:
    """Names in a record, as far as a result may hold such a file."""
    names = ready.get(key)
    found = names if isinstance(names, list) else []
    return [name for name in found if name in RESULT_FILES or is_export_name(name)]


def is_export_name(name: object) -> bool:
    """Whether an export may have this name: a bare one, and none of the result's own."""
    if not isinstance(name, str) or not is_bare_name(name) or name.startswith("."):
        return False
    return name.lower() not in (*RESULT_FILES, "journal.sqlite", CORRECTIONS, DRAWN, WINDOWS)


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
    if not path.is_dir():
        return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    # Names and sizes; what a desktop hides in a folder (.DS_Store) does not count.
    kept = sorted(
        (file.relative_to(path).as_posix(), file.lstat().st_size)
        for root, _, names in os.walk(path)
        for file in (Path(root, name) for name in names)
        if not file.name.startswith(".") or file.name in _OF_ZARR
    )
    text = "".join(f"{name}\0{size}\n" for name, size in kept)
    return {
        "files": len(kept),
        "bytes": sum(size for _, size in kept),
        "sha256": hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest(),
    }


def changed(
    folder: Path, run: Mapping[str, object], *, names: Iterable[str] = CHECKED
) -> str | None:
    """The first of a result's files that is not as ``run.json`` lists it; None where all are."""
    record = files_of(run)
    for name in names:
        path, entry = own_file(folder, name), record.get(name)
        if not path.exists() or not isinstance(entry, dict):
            same = entry is None and not path.exists()
        elif path.is_file() and path.stat().st_size != entry.get("bytes"):
            same = False  # its content need not be read
        else:
            same = {**entry_of(path), "rows": None} == {**entry, "rows": None}
        if not same:
            return name
    return None


def corrected_path(folder: Path) -> Path:
    """``slide.cellseg`` to ``slide.corrected.cellseg``, beside it."""
    return folder.with_name(f"{folder.name.removesuffix('.cellseg')}.corrected.cellseg")


def edited_name(folder: Path) -> str:
    """Name for a copy of the ``cells.csv`` that somebody edited; empty where nobody did."""
    table, run, edited = folder / TABLE, published(folder), None
    with suppress(InputError):  # a link that leads out of the folder, or too large
        edited = run and changed(folder, run, names=[TABLE])
    if not edited or not table.is_file():
        return ""
    names = (f"cells-edited{number}.csv" for number in ("", *range(2, 10_000)))
    return next(name for name in names if not lexists(folder / name))


_Byte = Annotated[int, Field(ge=0, le=255)]


class _ColumnRecord(BaseModel):
    name: str
    dtype: Literal["bool", "int64", "float32", "float64", "str"]


class _TableRecord(BaseModel):
    columns: list[_ColumnRecord]
    class_names: list[str]

    @field_validator("columns")
    @classmethod
    def _named_once(cls, columns: list[_ColumnRecord]) -> list[_ColumnRecord]:
        # Half of a character is no text: encoding it is a ValueError.
        if len({column.name.encode() for column in columns}) < len(columns):
            raise ValueError("a column is named twice")
        return columns


class _FoundRecord(_TableRecord):
    counted: dict[str, Any] = {}
    types: list[str] = []
    doubts: list[str] = []
    warnings: list[str] = []
    hints: dict[str, str] = {}
    interval: tuple[float, float] | None = None
    tissue_mm2: float | None = None
    tissue_mm2_in_regions: list[float] | None = None
    skipped_share: float | None = None


class RunRecord(_TableRecord):
    """What of ``run.json`` is used without another look at it."""

    found: _FoundRecord
    frame: Frame
    doubts: list[str] = []
    warnings: list[str] = []
    protocol: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    spatial: dict[str, Any] | None = None
    class_colours: dict[str, tuple[_Byte, _Byte, _Byte]] = {}
    score: float | None = Field(None, validation_alias=AliasPath("protocol", "score"))
    channels: list[str] | None = Field(None, validation_alias=AliasPath("settings", "channels"))
    by_class: list[str] = Field([], validation_alias=AliasPath("spatial", "by_class"))
    within: float | None = Field(None, validation_alias=AliasPath("spatial", "within"))
    summary: Summary | None = None
