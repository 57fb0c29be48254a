"""Writing a corrected result beside the automatic one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import shapely

from cellseg import __version__
from cellseg.derive.corrections._log import LOG_NAME, check_token
from cellseg.derive.derive import BY_HAND
from cellseg.errors import InputError, OutputError
from cellseg.instances import Instances
from cellseg.result import Change, Result, ResultFolder, load_result
from cellseg.result.files import readable
from cellseg.result.folder import Findings
from cellseg.table import Column

if TYPE_CHECKING:
    from cellseg.derive.corrections._session import Corrections

SUFFIX = ".corrected.cellseg"

_NOT_KEPT = ("expansion", "spatial", "classification", "doubts", "warnings", "seconds")
"""Of the automatic result's record: it is made anew, or does not hold any more."""


def corrected_path(folder: Path) -> Path:
    """``slide.cellseg`` to ``slide.corrected.cellseg``, beside it."""
    return folder.with_name(folder.name.removesuffix(".cellseg") + SUFFIX)


def save(
    corrections: Corrections,
    folder: Path | None,
    complete: Callable[[Change], None],
    on_progress: Callable[[float], None] | None,
) -> Result:
    """Make another ``measured.parquet`` and other masks; see :meth:`Corrections.save`."""
    result = corrections.result
    path = folder or corrected_path(result.path)
    check_token(result)
    _refuse_other(path, result)
    told = on_progress or (lambda share: None)
    total, done = max(1, len(corrections)), 0
    edits = [edit.summary() for edit in corrections.edits]
    key = sha256("\0".join([result.token, *map(repr, edits)]).encode()).hexdigest()
    classes: list[str] = [str(name) for name in result.section("found")["class_names"]]
    with ResultFolder.open(path, key=key) as out:
        for table, cells in corrections.batches():
            classes += [name for name in table["class"].unique() if name not in classes]
            instances = Instances.build(
                [c.box.corners for c in cells],
                [c.score for c in cells],
                [classes.index(name) for name in table["class"]],
                [c.mask for c in cells],
            )
            out.add_cells(table, instances)
            done += len(cells)
            told(0.6 * done / total)
        check_token(result)
        return out.finish(
            _findings(result, classes, edits),
            complete,
            on_progress=lambda share: told(0.6 + 0.4 * share),
        )


def _findings(result: Result, classes: list[str], edits: list[dict[str, object]]) -> Findings:
    """What the automatic result knows beside its cells, and who changed what."""
    facts = dict(result.section("found"))
    # The interval and what was counted beside the cells hold for the automatic count alone.
    facts |= {"types": facts["class_names"], "interval": None, "counted": {}}
    record = {name: value for name, value in result.run.items() if name not in _NOT_KEPT}
    tissue = result.tissue()
    return Findings(
        frame=result.frame,
        columns=[*result.columns_found, Column(BY_HAND, "", "bool", "A person gave the class.")],
        class_names=classes,
        object_name=result.object_name,
        image_name=result.image_name,
        facts=facts,
        record=record
        | {
            "cellseg": __version__,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "corrected_from": {
                "folder": readable(result.path.name),
                "result": result.token,
                "log": LOG_NAME,
            },
            "corrections": edits,
        },
        tissue=None if tissue is None else shapely.geometry.mapping(tissue.shape),
        regions=result.regions(),
        is_complete=result.is_complete,
    )


def _refuse_other(path: Path, result: Result) -> None:
    """Never write over an automatic result, nor over another slide's."""
    if path.resolve() == result.path.resolve():
        raise OutputError(f"{path}: is the automatic result; take another folder")
    try:
        there = load_result(path)
    except InputError:
        return
    origin = there.run.get("corrected_from")
    image = there.section("image").get("path")
    if not isinstance(origin, dict) or image != result.section("image").get("path"):
        raise OutputError(f"{path}: holds another result; take another folder")
