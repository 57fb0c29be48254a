"""Giving the cells of a finished count other classes: its table and record, in one step.

The label image stays. What shows the classes (pictures, exports) is out of date afterwards until
it is made again; ``stale`` in ``run.json`` says which.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cellseg.annotations.region import SEPARATOR
from cellseg.derive.auto import propose
from cellseg.derive.changing import changing
from cellseg.derive.classified import NEEDED, Classification
from cellseg.derive.histogram import histogram
from cellseg.derive.markers import measurement, named
from cellseg.derive.spatial import SPATIAL
from cellseg.draw import Cutting, draw_histograms
from cellseg.errors import InputError, SettingsError
from cellseg.protocol import Marker
from cellseg.result import publish
from cellseg.result.files import read_json, replacing, sync, write_json
from cellseg.result.inventory import file_entry
from cellseg.result.result import Result, load_result
from cellseg.table import REGION
from cellseg.text import as_cell

DRAWN = (publish.OUTLINES, publish.OVERVIEW)
"""Pictures of a result's own that show classes."""


def reclassify(folder: Path, markers: Sequence[Marker]) -> Result:
    """Give every cell a class by its measurements, and score the slide anew.

    Parameters
    ----------
    folder : Path
        A finished result.
    markers : sequence of Marker
        A threshold of ``auto`` is found from the histogram.

    Returns
    -------
    Result
        With ``classification`` and ``stale`` in its ``run``.

    Raises
    ------
    SettingsError
        If a measurement is not there, or no threshold can be proposed. Nothing changes then.
    InputError
        If the folder is no finished result, or its table was changed since.
    OutputError
        If the disk refuses, or a run is writing there; the classes stay as they were.
    """
    with changing(folder) as result:
        _publish(result, *_classified(result, markers))
    return load_result(folder)


def _classified(
    result: Result, markers: Sequence[Marker]
) -> tuple[Classification, pd.DataFrame, list[Cutting]]:
    """The new classes, in a table of the columns that were needed, and the histograms."""
    columns = dict(result.rows().columns)
    for name in NEEDED:
        if name not in columns:
            raise InputError(f"{result.table_path}: is of an older version: it has no {name}")
    known = [
        marker.model_copy(update={"measure": measurement(marker.measure, columns)})
        for marker in markers
    ]
    by_class = {*result.section(SPATIAL).get("by_class", ())}
    for marker in known:
        if marker.measure in by_class:
            raise SettingsError(f"{marker.measure} follows from the classes: it cannot give them")
    twice = {named(marker) for marker in known}
    if len(twice) < len(known):
        raise SettingsError(f"two markers have one name, {sorted(twice)}: name them apart")
    wanted = [*NEEDED, *(marker.measure for marker in known), *(REGION,) * (REGION in columns)]
    table = result.rows().load(list(dict.fromkeys(wanted)))
    decided, methods, notes, cuttings = [], [], [], []
    for marker in known:
        values = table[marker.measure].to_numpy(np.float64)
        method = "given"
        if marker.threshold == "auto":
            found = propose(values, marker.measure)
            method = found.method
            marker = marker.model_copy(update={"threshold": found.threshold})
            notes.append(
                f"{named(marker)}: threshold {found.threshold:g}, {method}; the means are "
                f"{found.means[0]:.3g} and {found.means[1]:.3g}"
            )
        notes += _beyond(marker, values)
        decided.append(marker)
        methods.append(method)
        cuttings.append(_cutting(marker, values, method))
    made = _record(result, table, tuple(decided), tuple(methods), tuple(notes))
    before = _types(result, table)
    table["class"] = made.classes(table, before)
    left = tuple(name for name in made.types if (table["class"] == name).any())
    return made.model_copy(update={"unmeasured": _left(made, left)}), table, cuttings


def _cutting(marker: Marker, values: np.ndarray[Any, np.dtype[np.float64]], method: str) -> Cutting:
    seen = histogram(values, int(np.clip(2 * np.sqrt(values.size), 32, 256)))
    limits = np.atleast_1d(np.asarray(marker.threshold, np.float64))
    said = ", ".join(f"{(values >= limit).sum():,} at or above {limit:g}" for limit in limits)
    outside = seen.below + seen.above
    beyond = f"; {outside:,} beyond this picture" if outside else ""
    return Cutting(
        title=f"{named(marker)}: {marker.measure} of {seen.counts.sum():,} cells",
        counts=seen.counts,
        edges=seen.edges,
        thresholds=tuple(limits.tolist()),
        said=f"threshold: {method}; {said}{beyond}",
    )


def _left(made: Classification, types: Sequence[str]) -> tuple[str, ...]:
    """Types whose cells have no value keep their name; unless a class has that name."""
    named_so = {made.name(one, code) for one in made.types for code in made.codes}
    return tuple(one for one in types if one not in named_so)


def _types(result: Result, table: pd.DataFrame) -> list[str]:
    """Each cell's type by the model, or by a person, under classes by measurement or without."""
    earlier = Classification.of(result.run)
    if earlier is None:
        return [str(name) for name in table["class"]]
    types = earlier.type_of([str(name) for name in table["class"].unique()])
    return [types[str(name)] for name in table["class"]]


def _record(
    result: Result,
    table: pd.DataFrame,
    markers: tuple[Marker, ...],
    methods: tuple[str, ...],
    notes: tuple[str, ...],
) -> Classification:
    listed = [str(name) for name in result.run.get("class_names", ())]
    types, before = {name: name for name in listed}, Classification.of(result.run)
    plain = str(result.run.get("object", "cell")) if len(listed) > 1 else listed[0]
    if before is not None:
        seen = [str(name) for name in table["class"].unique()]
        types, plain = before.earlier | before.type_of([*listed, *seen]), before.plain
    return Classification(
        markers=markers,
        methods=methods,
        types=tuple(dict.fromkeys([*(before.types if before else ()), *types.values()])),
        plain=plain,
        earlier=types,
        notes=notes,
    )


def _beyond(marker: Marker, values: np.ndarray[Any, np.dtype[np.float64]]) -> Iterator[str]:
    """Thresholds that part nothing, and cells without a value: said, and counted."""
    known = values[np.isfinite(values)]
    if known.size < values.size:
        yield (
            f"{values.size - known.size:,} of {values.size:,} cells have no {marker.measure}: "
            "they keep the class that the model gave them"
        )
    for limit in np.atleast_1d(np.asarray(marker.threshold, np.float64)).tolist():
        if known.size and not known.min() < limit <= known.max():
            side = "above all" if limit > known.max() else "below all"
            yield (
                f"the threshold {limit:g} lies {side} of the {known.size:,} values of "
                f"{marker.measure} ({known.min():.4g} … {known.max():.4g})"
            )


def _publish(
    result: Result, made: Classification, table: pd.DataFrame, cuttings: list[Cutting]
) -> None:
    """Table, histogram and record into place, all or none."""
    folder = result.path
    staging = publish.fresh_staging(folder)
    try:
        _rewrite(result, staging / publish.TABLE, table["class"].tolist())
        with replacing(staging / publish.HISTOGRAM) as temporary:
            draw_histograms(temporary, cuttings)
        run = read_json(result.run_path)
        stale = {*publish.exports_of(run), *(n for n in DRAWN if (folder / n).is_file())}
        if result.added(SPATIAL):
            stale.add(SPATIAL)
        counts = table["class"].value_counts()
        summary = dict(run["summary"])
        summary["cells_per_class"] = {name: int(counts.get(name, 0)) for name in made.names}
        tissue = summary.get("tissue_mm2")
        summary["density_per_mm2_per_class"] = (
            {name: n / tissue for name, n in summary["cells_per_class"].items()} if tissue else None
        )
        summary["labelling"] = made.scores(table, result.frame.mpp)
        if REGION in table:
            held = table.assign(**{REGION: table[REGION].str.split(SEPARATOR)})
            found = held.explode(REGION, ignore_index=True).groupby([REGION, "class"]).size()
            summary["regions"] = [
                {
                    **one,
                    "cells_per_class": {
                        name: int(found.get((one["name"], name), 0)) for name in made.names
                    },
                }
                for one in summary.get("regions", ())
            ]
        files = dict(publish.files_of(run))
        files[publish.TABLE] = {**file_entry(staging / publish.TABLE), "rows": len(table)}
        files[publish.HISTOGRAM] = file_entry(staging / publish.HISTOGRAM)
        record = {
            **run,
            "class_names": made.names,
            "summary": summary,
            "classification": made.model_dump(mode="json"),
            "files": files,
            "stale": sorted(stale),
        }
        write_json(staging / publish.RUN, record)
        publish.mark_ready(folder, str(run["result"]), outdated=(), absent=())
        publish.publish(folder)
    finally:
        publish.remove_staging(folder)


def _rewrite(result: Result, target: Path, classes: Sequence[str]) -> None:
    """The table with other classes, line by line; everything else stays byte for byte.

    Raises
    ------
    InputError
        If it has another number of rows than classes.
    """
    names = [name for name, _ in result.rows().columns]
    place = names.index("class")
    written = {name: _quoted(as_cell(name)) for name in dict.fromkeys(classes)}
    wrong = InputError(f"{result.table_path}: has another number of rows than it had")
    with (
        result.table_path.open(encoding="utf-8", newline="") as source,
        target.open("w", encoding="utf-8", newline="") as file,
    ):
        file.write(source.readline())
        try:
            for line, name in zip(source, classes, strict=True):
                file.write(_with_field(line, place, written[name]))
        except ValueError as error:
            raise wrong from error
    sync(target)


def _with_field(line: str, place: int, text: str) -> str:
    if '"' not in line:
        parts = line.split(",", place + 1)
        parts[place] = text
        return ",".join(parts)
    fields = next(csv.reader([line]))
    before, after = map(_quoted, fields[:place]), map(_quoted, fields[place + 1 :])
    return ",".join([*before, text, *after]) + "\n"


def _quoted(text: str) -> str:
    """A field as :mod:`csv` writes it."""
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\r\n') else text
