"""Evaluation where only the cells' centres are annotated: counts, F1, and classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from cellseg.counting.stages import SlideCount
from cellseg.errors import InputError, input_errors
from cellseg.judge.evaluate import EvaluateRequest, ImageDone, planned
from cellseg.judge.figures import count_error, plain
from cellseg.network.detector import Detector
from cellseg.text import people_table, visible

WITHIN_UM = 3.0
"""How far a counted cell's centre may lie from an annotated one: half of a small nucleus."""


def matched(
    found: NDArray[np.float64], truth: NDArray[np.float64], within: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """One-to-one pairs no farther apart, as many as there can be, of the least total distance.

    From (N, 2) and (M, 2) in the unit of ``within`` to the rows of the pairs, (P,) each.
    """
    distances = cdist(found.reshape(-1, 2), truth.reshape(-1, 2))
    # Dearer than any number of pairs that do count.
    too_far = (1 + min(distances.shape)) * (within + 1)
    rows, columns = linear_sum_assignment(np.where(distances <= within, distances, too_far))
    near = distances[rows, columns] <= within
    return rows[near], columns[near]


class Centres(NamedTuple):
    """The centres of the image ``name``, annotated or found: (y, x), pixels of the image, (N, 2).

    Each has a class, or an empty text.
    """

    name: str
    places: NDArray[np.float64]
    classes: NDArray[np.object_]


def read_points(path: Path) -> tuple[Centres, ...]:
    """The images of a table, in its order; a row without x and y is an image without cells.

    InputError if it cannot be read, lacks a column, or a place is no number.
    """
    with input_errors(path, ValueError):
        table = people_table(path)
    missing = {"image", "x", "y"} - {*table.columns}
    if missing:
        raise InputError(f"{path}: lacks the columns {', '.join(sorted(missing))}")
    if table.empty:
        raise InputError(f"{path}: no images in this table")
    table = table.fillna("").apply(lambda column: column.str.strip())
    table["class"] = table.get("class", "")
    has_place = (table["x"] != "") | (table["y"] != "")
    places = table[["y", "x"]].apply(pd.to_numeric, errors="coerce").astype(np.float64)
    wrong = np.flatnonzero(has_place & ~np.isfinite(places).all(axis=1))
    if wrong.size:
        x, y = table.loc[wrong[0], ["x", "y"]]
        raise InputError(f"{path}: line {wrong[0] + 2}: no place: {x!r}, {y!r}")
    found = []
    for name, rows in table.groupby("image", sort=False):
        rows = rows[has_place[rows.index]]
        at = places.loc[rows.index].to_numpy()
        found.append(Centres(str(name), at, np.array([*map(visible, rows["class"])], object)))
    return tuple(found)


@dataclass(frozen=True, eq=False)
class CentreEvaluation:
    """Found and annotated centres of all images, in the classes that are annotated."""

    images: tuple[tuple[Centres, Centres], ...]
    classes: tuple[str, ...]
    within_px: float
    model: str

    def as_dict(self) -> dict[str, Any]:
        """All figures, ready for JSON.

        ``found_as`` are the classes of the found centres that pair with annotated ones of a class;
        ``f1`` of a class is that of its centres, paired by themselves.
        """
        pairs: Counter[tuple[str, str]] = Counter()
        for found, truth in self.images:
            rows, columns = matched(found.places, truth.places, self.within_px)
            known = [name if name in self.classes else "none" for name in found.classes[rows]]
            pairs.update(zip(truth.classes[columns], known, strict=True))
        classes = {
            kind: {
                **self._figures(kind),
                "found_as": {name: pairs[kind, name] for name in (*self.classes, "none")},
            }
            for kind in self.classes
        }
        counts = [[len(one.places) for one in pair[::-1]] for pair in self.images]
        error = count_error(*np.array(counts, np.int64).reshape(-1, 2).T)
        mean = np.mean([one["f1"] for one in classes.values()]) if classes else np.nan
        return {
            "model": self.model,
            "within_px": self.within_px,
            "images": len(self.images),
            **self._figures(),
            "error_per_image": plain(error.mean_relative),
            "classes": classes,
            "mean_class_f1": plain(float(mean)),
            "per_image": [
                {"image": one.name, "annotated": len(one.places), "counted": len(mine.places)}
                for mine, one in self.images
            ],
        }

    def _figures(self, kind: str | None = None) -> dict[str, Any]:
        """Counts and F1 of the centres of one class, or of all."""
        found = truth = hits = 0
        for pair in self.images:
            mine, theirs = (
                one.places if kind is None else one.places[one.classes == kind] for one in pair
            )
            found, truth = found + len(mine), truth + len(theirs)
            hits += len(matched(mine, theirs, self.within_px)[0])
        return {
            "annotated": truth,
            "counted": found,
            "bias": round(found / truth - 1, 5) if truth else None,
            "f1": round(2 * hits / (found + truth), 5) if found + truth else None,
        }


def evaluate_centres(
    request: EvaluateRequest, within_um: float = WITHIN_UM
) -> Iterator[ImageDone | CentreEvaluation]:
    """Count images whose cells' centres are annotated, and compare.

    A counted cell's centre is that of its outline. Pairs are one-to-one and as many as there can
    be, of the least total distance. Where classes are annotated, centres of each are compared by
    themselves too: with the model's cell types, or its classes, of the same names.

    ``request.data`` are tables as :func:`read_points` takes them; the images lie beside them, in
    ``images/`` there, or in ``request.images``. ``within_um`` is in pixels of the image, where its
    pixel size is not known. InputError if a table or an image cannot be read.
    """
    data = [(path, centres) for path in request.data for centres in read_points(path)]
    detector = request.detector()
    images: list[tuple[Centres, Centres]] = []
    radii: set[float] = set()
    for done, (table, centres) in enumerate(data, start=1):
        path = _path(table, centres.name, request)
        mpp, found = _counted(path, centres, request, detector)
        images.append((found, centres))
        radii.add(within_um / mpp if mpp else within_um)
        yield ImageDone(done, len(data))
    if len(radii) > 1:
        raise InputError("the images have several pixel sizes: evaluate those of one at a time")
    (radius,) = radii
    classes = sorted({name for _, one in data for name in one.classes if name})
    yield CentreEvaluation(tuple(images), tuple(classes), radius, detector.info.name)


def _path(table: Path, name: str, request: EvaluateRequest) -> Path:
    """An image by the name in its table, which leads nowhere else."""
    if not name or Path(name).name != name:
        raise InputError(f"{table}: {name!r} is no file's name")
    places = [request.images] if request.images else [table.parent, table.parent / "images"]
    for folder in places:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{table}: {name} lies in none of {', '.join(map(str, places))}")


def _counted(
    path: Path, centres: Centres, request: EvaluateRequest, detector: Detector
) -> tuple[float | None, Centres]:
    """One image's µm per pixel, and the centres of its counted cells."""
    with planned(path, request, detector, mpp=request.mpp) as (slide, plan, detector):
        outside = (centres.places < 0) | (centres.places > (slide.height, slide.width))
        if outside.any():
            raise InputError(
                f"{centres.name}: {np.count_nonzero(outside.any(1))} centres lie outside of the "
                f"image ({slide.width} × {slide.height} px)"
            )
        plan = replace(plan, protocol=plan.protocol.changed(intensity=False))
        count = SlideCount(slide, plan, detector)
        cells = [part for step in count.steps() for part in step.cells]
        names = "centroid_y_px", "centroid_x_px"
        places = [np.stack([cell.table[name] for name in names], axis=1) for cell in cells]
        kinds = [count.detector.info.classes[k] for cell in cells for k in cell.instances.classes]
        at = np.concatenate([np.zeros((0, 2)), *places])
        return slide.mpp, Centres(centres.name, at, np.array(kinds, object))
