"""Cells of results that a person clicked, the classes that they teach, and their file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cellseg.errors import InputError, SettingsError, input_errors
from cellseg.geometry import Box
from cellseg.palette import PALETTE
from cellseg.result import Result, load_result
from cellseg.result.files import read_json, validated, write_json
from cellseg.table.taught import Click, TaughtClasses, looks, measurements_of
from cellseg.text import people_table, visible

WINDOW_PX = 256
"""Clicks in a square of so many lattice pixels are left out together when they are judged."""


def teach_classes(
    results: str | Path | Sequence[str | Path],
    clicks: str | Path | pd.DataFrame,
    *,
    unsure: float | None = None,
    more: TaughtClasses | None = None,
    output: str | Path | None = None,
) -> TaughtClasses:
    """Teach classes of cells by some of them; ``cellseg.run.change(RESULT, taught=…)`` gives them.

    Parameters
    ----------
    results : path or sequence of paths
        The results that were clicked in, ``NAME.cellseg``.
    clicks : path or DataFrame
        A CSV file, or its rows: ``class``, and ``label`` or ``y`` and ``x`` (level-0 pixels); with
        several results also ``result``, a folder's or an image's name. Two cells of each class at
        least; ten or twenty do better.
    unsure : float, optional
        A cell that no class has with this probability becomes ``unsure``; as in ``more`` unless
        given, or 0: none does.
    more : TaughtClasses, optional
        Earlier clicks, of these results or others, which stay.
    output : path, optional
        File that gets the classes, for other results.

    Raises
    ------
    SettingsError
        If a click lies on no cell, a class has too few, or results have other measurements.
    InputError, OutputError
        If a file cannot be read, or written.
    """
    paths = [results] if isinstance(results, str | Path) else results
    opened, rows = [load_result(path) for path in paths], _rows(clicks)
    known = more.measurements if more else measurements_of(opened[0].table.dtypes.items())
    found = {(c.result, c.label): c for c in (more.clicks if more else ())}
    for result, mine in _by_result(rows, opened):
        cells = result.table.load(to_look_at(result, result.table.names, known))
        seen = looks(cells, known)
        for label, name in _labels(result, mine).items():
            if not 1 <= label <= len(cells):
                raise SettingsError(f"{result.path.name} has no cell {label}")
            at = (cells["centroid_y_px"].iloc[label - 1], cells["centroid_x_px"].iloc[label - 1])
            found[result.token, label] = click_on(result, label, name, at, seen[label - 1])
    before = dict(more.colours) if more else {}
    names = dict.fromkeys([*before, *(click.name for click in found.values())])
    taught = TaughtClasses.of(
        colours=dict(zip(names, PALETTE * len(names), strict=False)) | before,
        unsure=(more.unsure if more else 0.0) if unsure is None else unsure,
        measurements=known,
        made_of=more.made_of if more else made_of(opened[0]),
        clicks=tuple(found.values()),
    )
    if output is not None:
        write_classes(taught, Path(output))
    return taught


def read_classes(path: Path) -> TaughtClasses:
    """A file of :func:`write_classes`; an InputError where it is damaged, or no such file."""
    return validated(TaughtClasses, read_json(path), path)


def write_classes(taught: TaughtClasses, path: Path) -> None:
    """Keep classes as JSON; an OutputError if the disk refuses."""
    write_json(path, taught.model_dump(mode="json"))


def click_on(
    result: Result, label: int, name: str, at: tuple[float, float], seen: Iterable[float]
) -> Click:
    """A click on a cell with these looks, whose centroid lies ``at`` (y, x), level-0 pixels."""
    y, x = (int(side / result.frame.downsample) for side in at)
    return Click(
        name=name,
        result=result.token,
        label=label,
        window=f"{y // WINDOW_PX}, {x // WINDOW_PX}",
        looks=tuple(float(f"{one:.6g}") for one in seen),
    )


def to_look_at(result: Result, names: Iterable[str], measurements: Sequence[str]) -> list[str]:
    """Columns that classes are told by, centroids among them; a SettingsError if one is missing."""
    there = list(names)
    if missing := [name for name in measurements if name not in there]:
        raise SettingsError(
            f"{result.path.name}: the classes were taught by {len(measurements)} measurements, of "
            f"which this result lacks {len(missing)}: {', '.join(missing[:3])}"
        )
    return [n for n in there if n.startswith("centroid_") or n in measurements]


def made_of(result: Result) -> dict[str, str]:
    """What :attr:`TaughtClasses.made_of` says of a result."""
    names = {part: str(result.section(part).get("name")) for part in ("model", "protocol")}
    return {"object": result.object_name, **names}


def _rows(clicks: str | Path | pd.DataFrame) -> pd.DataFrame:
    """The table of clicks, numbers where they belong."""
    where, table = "clicks", clicks
    if not isinstance(table, pd.DataFrame):
        where = str(clicks)
        with input_errors(where, ValueError):
            table = people_table(table)
    places = ["label"] if "label" in table else ["y", "x"]
    if missing := {"class", *places} - {*table}:
        said = "; it wants class, and label or x and y, in a CSV"
        raise InputError(f"{where}: lacks the columns {', '.join(sorted(missing))}{said}")
    names = [visible(str(name).strip()) for name in table["class"]]
    found = table.assign(**{n: pd.to_numeric(table[n], errors="coerce") for n in places})
    wrong = ~np.isfinite(found[places].to_numpy(float)).all(1) | (np.array(names) == "")
    if wrong.any():
        raise InputError(f"{where}: row {wrong.argmax() + 1} names no cell or no class")
    return found.assign(**{"class": names})


def _by_result(
    rows: pd.DataFrame, results: Sequence[Result]
) -> Iterator[tuple[Result, pd.DataFrame]]:
    if "result" not in rows:
        if len(results) > 1:
            raise SettingsError("clicks in several results need a column 'result'", hint="clicks")
        rows = rows.assign(result=results[0].path.name)
    named = {n: one for one in results for n in (one.path.name, one.path.stem, one.image_name)}
    for name, mine in rows.groupby("result", sort=False):
        if name not in named:
            raise SettingsError(f"none of the results is called {visible(str(name))!r}")
        yield named[str(name)], mine


def _labels(result: Result, rows: pd.DataFrame) -> dict[int, str]:
    """The clicked cells and their classes; of one that was clicked twice the last."""
    if "label" in rows:
        return dict(zip(rows["label"].astype(int).tolist(), rows["class"], strict=True))
    masks, found = result.labels()[0], {}
    for y, x, name in zip(rows["y"], rows["x"], rows["class"], strict=True):
        row, column = (int((at + 0.5) // result.frame.downsample) for at in (y, x))
        pixel = Box(row, column, row + 1, column + 1).intersection(Box(0, 0, *masks.shape))
        if not (label := int(np.max(masks.read(pixel), initial=0))):
            raise SettingsError(f"{result.path.name}: there is no cell at y {y:g}, x {x:g}")
        found[label] = name
    return found
