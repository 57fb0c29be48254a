"""From the staging folder to the final names, so that a kill at any moment does no harm.

Everything is written and synced under ``.partial``; then a file ``READY`` says that the whole
is complete; then each part goes to its final name, ``run.json`` last. A run that is killed in
between is rolled forward by whoever opens the folder next.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cellseg._results.files import (
    is_bare_name,
    read_json,
    remove,
    swap_folder,
    sync,
    write_json,
)
from cellseg._results.labels import label_token
from cellseg.errors import InputError

STAGING = ".partial"
TABLE, LABELS, RUN, OVERVIEW = "cells.csv", "labels.ome.zarr", "run.json", "overview.png"
TISSUE = "tissue.geojson"
CORRECTIONS = "corrections.json"
RESULT_FILES = (TABLE, LABELS, OVERVIEW, TISSUE, RUN)
"""What a run itself leaves; exports and corrections come beside it."""

FORMAT = "cellseg result"
FORMAT_VERSION = 1

_READY = "READY"
_OPTIONAL = (OVERVIEW, TISSUE)
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


def mark_ready(folder: Path, token: str, *, outdated: Iterable[str]) -> None:
    """Say that the staging folder holds a whole result; ``outdated`` exports will go."""
    staging = folder / STAGING
    sync(staging)
    absent = [name for name in _OPTIONAL if not (staging / name).is_file()]
    write_json(staging / _READY, {"token": token, "outdated": list(outdated), "absent": absent})


def is_ready(folder: Path) -> bool:
    """Whether a whole result waits in the staging folder."""
    staging = folder / STAGING
    return not staging.is_symlink() and (staging / _READY).is_file()


def publish(folder: Path) -> None:
    """Move a whole result to its final names; may be called again after a kill."""
    staging = folder / STAGING
    ready = read_json(staging / _READY)
    if label_token(folder / LABELS) != ready.get("token"):
        swap_folder(staging / LABELS, folder / LABELS, aside=staging / f"old-{LABELS}")
    for name in _names(ready, "outdated"):
        if is_export_name(name):
            (folder / name).unlink(missing_ok=True)
    for name in _FILES:
        if (staging / name).is_file():
            os.replace(staging / name, folder / name)  # noqa: PTH105 - says what it does
        elif name in _OPTIONAL and name in _names(ready, "absent"):
            (folder / name).unlink(missing_ok=True)  # an older run's
    sync(folder)
    (staging / _READY).unlink()
    sync(staging)


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


def exports_of(run: dict[str, object] | None) -> list[str]:
    """Names of the exports that ``run.json`` lists, other names left out."""
    names = (run or {}).get("exports")
    return [name for name in names if is_export_name(name)] if isinstance(names, list) else []
