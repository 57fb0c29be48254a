"""Writing a corrected result beside the automatic one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import shapely

import cellseg
from cellseg.counting.report import Report
from cellseg.derive.classified import Classification
from cellseg.derive.corrections._log import LOG_NAME, check_token, token_of
from cellseg.derive.corrections._slide import open_result_slide
from cellseg.draw.outlined import Ground, recorded_ground
from cellseg.draw.overview import Overview
from cellseg.draw.redrawn import recorded_overview
from cellseg.errors import CellsegError, InputError, OutputError
from cellseg.instances import Instances
from cellseg.result.files import readable
from cellseg.result.folder import ResultFolder
from cellseg.result.result import ADDED, Result, load_result
from cellseg.table import Column
from cellseg.table.regions import counted

if TYPE_CHECKING:
    from cellseg.derive.corrections._session import Corrections

SUFFIX = ".corrected.cellseg"

UNCLASSED = (
    "cells with new outlines have no class by what was added to the table; cellseg classify "
    "gives it"
)


def corrected_path(folder: Path) -> Path:
    """``slide.cellseg`` to ``slide.corrected.cellseg``, beside it."""
    return folder.with_name(folder.name.removesuffix(".cellseg") + SUFFIX)


def save(
    corrections: Corrections, folder: Path | None, on_progress: Callable[[float], None] | None
) -> Result:
    """See :meth:`Corrections.save`."""
    result = corrections.result
    path = folder or corrected_path(result.path)
    check_token(result)
    _refuse_other(path, result)
    told = on_progress or (lambda share: None)
    total = max(1, len(corrections))
    done = 0
    edits = [edit.summary() for edit in corrections.edits]
    key = sha256("\0".join([token_of(result), *map(repr, edits)]).encode()).hexdigest()
    summary, suspect = corrections.judged()
    with ResultFolder.open(path, key=key) as out:
        for table, cells in corrections.batches():
            instances = Instances.build(
                [c.box.corners for c in cells],
                [c.score for c in cells],
                [corrections.classes.index(name) for name in table["class"]],
                [c.mask for c in cells],
            )
            out.add_cells(table, instances)
            done += len(cells)
            told(0.6 * done / total)
        own = (
            "format",
            "format_version",
            "frame",
            "columns",
            "exports",
            "key",
            "result",
            *ADDED,
            "stale",
        )
        record = {name: value for name, value in result.run.items() if name not in own}
        doubted = record.get("doubts") or ()
        record |= {
            "cellseg": cellseg.__version__,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "summary": summary.as_dict(),
            "doubts": suspect,
            "warnings": [
                *(text for text in record.get("warnings") or () if text not in doubted),
                *suspect,
            ],
            "corrected_from": {
                "folder": readable(result.path.name),
                "result": token_of(result),
                "log": LOG_NAME,
                **({"unclassed": UNCLASSED} if _is_classed_by_added(result) else {}),
            },
            "corrections": edits,
        }
        check_token(result)
        title = f"{readable(result.path.stem)}: {counted(summary.cells, summary.object)}, corrected"
        report = Report(
            frame=result.frame,
            columns=[Column(str(c["name"]), "", str(c["dtype"]), "") for c in result.found_columns],
            class_names=corrections.classes,
            object_name=summary.object,
            image_name=result.image_name,
            provenance=record,
            overview=_overview(result, title),
            tissue=_tissue(result),
            regions=corrections.regions,
            complete=result.is_complete,
        )
        with _ground(result, title) as ground:
            out.finish(
                replace(report, ground=ground),
                on_progress=lambda share: told(0.6 + 0.4 * share),
            )
    return _added_again(result, path)


def _added_again(result: Result, path: Path) -> Result:
    """The corrected result with what was added to the automatic one, measured anew."""
    # Here and not above: they are added to corrected results as to any other.
    from cellseg.derive.expand import expand
    from cellseg.derive.spatial import SPATIAL, spatial

    if result.added("expansion"):
        expand(path, result.run["expansion"]["by"])
    if result.added(SPATIAL):
        spatial(path, within=result.run[SPATIAL]["within"])
    return load_result(path)


def _is_classed_by_added(result: Result) -> bool:
    made, added = Classification.of(result.run), {*result.added()}
    return made is not None and any(marker.measure in added for marker in made.markers)


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


def _tissue(result: Result) -> Mapping[str, object] | None:
    try:
        tissue = result.tissue()
    except CellsegError:
        return None
    return None if tissue is None else shapely.geometry.mapping(tissue.shape)


@contextmanager
def _ground(result: Result, title: str) -> Iterator[Ground | None]:
    """None where the slide is gone, or the record does not say how it was counted."""
    with ExitStack() as stack:
        try:
            slide = stack.enter_context(open_result_slide(result))
            ground = replace(recorded_ground(result.run, slide), title=title)
        except CellsegError:
            ground = None
        yield ground


def _overview(result: Result, title: str) -> Overview | None:
    """None where the slide is gone, or the record does not say how it was counted."""
    try:
        with open_result_slide(result) as slide:
            return recorded_overview(result, slide, title)
    except CellsegError:
        return None
