"""The corrected result, beside the automatic one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import shapely

from cellseg import __version__
from cellseg.derive.corrections.cells import instances_of
from cellseg.derive.corrections.session import Corrections
from cellseg.derive.derive import BY_HAND
from cellseg.errors import InputError, OutputError
from cellseg.result import Change, Result, ResultFolder, load_result
from cellseg.result.files import readable
from cellseg.result.folder import Findings
from cellseg.result.publish import CORRECTIONS
from cellseg.table import Column

_NOT_KEPT = ("expansion", "spatial", "classification", "doubts", "warnings", "seconds")
"""Of the automatic result's record: it is made anew, or does not hold any more."""


def corrected_path(folder: Path) -> Path:
    """``slide.cellseg`` to ``slide.corrected.cellseg``, beside it."""
    return folder.with_name(f"{folder.name.removesuffix('.cellseg')}.corrected.cellseg")


def write_corrected(
    corrections: Corrections, folder: Path | None, complete: Callable[[Change], None]
) -> Result:
    """Write another ``measured.parquet`` and other masks; :func:`cellseg.run.save` says more.

    ``complete`` gets the change with the corrected cells, and adds what follows from them.
    """
    result = corrections.result
    path = Path(folder) if folder else corrected_path(result.path)
    result.check_current()
    _refuse_other(path, result)
    edits = [edit.summary() for edit in corrections.edits]
    key = {"corrected": result.token, "corrections": edits}
    classes: list[str] = [str(name) for name in result.section("found")["class_names"]]
    with corrections.saving(), ResultFolder.open(path, key=key) as out:
        for table, cells in corrections.batches():
            classes += [name for name in table["class"].unique() if name not in classes]
            out.journal.add_cells(
                table, instances_of(cells, [classes.index(n) for n in table["class"]])
            )
        result.check_current()
        return out.finish(_findings(result, classes, edits), complete)


def _findings(result: Result, classes: list[str], edits: list[dict[str, object]]) -> Findings:
    """The automatic result's knowledge beside its cells, and who changed what."""
    facts = dict(result.section("found"))
    # The interval and what was counted beside the cells hold for the automatic count alone.
    facts |= {"types": facts["class_names"], "interval": None, "counted": {}}
    record = {name: value for name, value in result.run.items() if name not in _NOT_KEPT}
    origin = {"folder": readable(result.path.name), "result": result.token, "log": CORRECTIONS}
    record |= {
        "cellseg": __version__,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "corrected_from": origin,
        "corrections": edits,
    }
    tissue = result.tissue()
    return Findings(
        frame=result.frame,
        columns=[*result.columns_found, Column(BY_HAND, "", "bool", "A person gave the class.")],
        class_names=classes,
        object_name=result.object_name,
        image_name=result.file_name,
        facts=facts,
        record=record,
        tissue=None if tissue is None else shapely.geometry.mapping(tissue.shape),
        regions=result.regions(),
        quality=result.quality(),
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
    image = there.section("image").get("path")
    is_corrected = bool(there.section("corrected_from"))
    if not is_corrected or image != result.section("image").get("path"):
        raise OutputError(f"{path}: holds another result; take another folder")
