"""Evaluation where only the cells' centres are annotated: counts, F1, and classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from cellseg.annotations.points import Centres, read_points
from cellseg.counting.stages import SlideCount
from cellseg.errors import InputError
from cellseg.judge.evaluate import EvaluateRequest, ImageDone, planned
from cellseg.judge.figures import count_error
from cellseg.judge.judged import plain
from cellseg.network.detector import Detector

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


@dataclass(frozen=True, eq=False)
class JudgedCentres:
    """Centres of one image.

    Attributes
    ----------
    found, truth : ndarray, float64, (N, 2) and (M, 2)
        (y, x), pixels of the image.
    found_classes, truth_classes : ndarray of str, (N,) and (M,)
        Empty text: of no class.
    """

    name: str
    found: NDArray[np.float64]
    found_classes: NDArray[np.object_]
    truth: NDArray[np.float64]
    truth_classes: NDArray[np.object_]

    def only(self, kind: str) -> JudgedCentres:
        """The centres of one class, as if there were no other."""
        mine, theirs = self.found_classes == kind, self.truth_classes == kind
        return JudgedCentres(
            self.name, self.found[mine], self.found_classes[mine],
            self.truth[theirs], self.truth_classes[theirs],
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class CentreEvaluation:
    """A model's figures on all images, in the classes that are annotated."""

    images: tuple[JudgedCentres, ...]
    classes: tuple[str, ...]
    within_px: float
    model: str

    def as_dict(self) -> dict[str, Any]:
        """All figures, ready for JSON.

        ``found_as`` are the classes of the found centres that pair with annotated ones of a class;
        ``f1`` of a class is that of its centres, paired by themselves.
        """
        pairs: Counter[tuple[str, str]] = Counter()
        for one in self.images:
            rows, columns = matched(one.found, one.truth, self.within_px)
            known = [name if name in self.classes else "none" for name in one.found_classes[rows]]
            pairs.update(zip(one.truth_classes[columns], known, strict=True))
        classes = {
            kind: {
                **self._figures([one.only(kind) for one in self.images]),
                "found_as": {name: pairs[kind, name] for name in (*self.classes, "none")},
            }
            for kind in self.classes
        }
        truth = np.array([len(one.truth) for one in self.images], np.int64)
        error = count_error(truth, np.array([len(one.found) for one in self.images], np.int64))
        return {
            "model": self.model,
            "within_px": self.within_px,
            "images": len(self.images),
            **self._figures(self.images),
            "error_per_image": plain(error.mean_relative),
            "classes": classes,
            "mean_class_f1": plain(float(np.mean([one["f1"] for one in classes.values()])))
            if classes
            else None,
            "per_image": [
                {"image": one.name, "annotated": len(one.truth), "counted": len(one.found)}
                for one in self.images
            ],
        }

    def _figures(self, images: Sequence[JudgedCentres]) -> dict[str, Any]:
        """Counts and F1 of the centres, whatever their class."""
        found, truth = (sum(map(len, side)) for side in
                        ([one.found for one in images], [one.truth for one in images]))  # fmt: skip
        hits = sum(len(matched(one.found, one.truth, self.within_px)[0]) for one in images)
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

    Parameters
    ----------
    request : EvaluateRequest
        ``data`` are tables as :func:`~cellseg.annotations.points.read_points` takes them; the
        images lie beside them, in ``images/`` there, or in ``request.images``.
    within_um : float
        In pixels of the image, where its pixel size is not known.

    Raises
    ------
    InputError
        If a table or an image cannot be read.
    """
    data = [(path, centres) for path in request.data for centres in read_points(path)]
    detector = request.detector()
    images: list[JudgedCentres] = []
    radii: set[float] = set()
    for done, (table, centres) in enumerate(data, start=1):
        path = _path(table, centres.name, request)
        mpp, one = _judged(path, centres, request, detector)
        images.append(one)
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


def _judged(
    path: Path, centres: Centres, request: EvaluateRequest, detector: Detector
) -> tuple[float | None, JudgedCentres]:
    """One image's µm per pixel, and its counted cells beside the annotated centres."""
    with planned(path, request, detector, mpp=request.mpp) as (slide, plan):
        outside = (centres.places < 0) | (centres.places > (slide.height, slide.width))
        if outside.any():
            raise InputError(
                f"{centres.name}: {np.count_nonzero(outside.any(1))} centres lie outside of the "
                f"image ({slide.width} × {slide.height} px)"
            )
        plan = replace(plan, protocol=plan.protocol.changed(intensity=False))
        tables = [
            part.table for step in SlideCount(slide, plan, detector).steps() for part in step.cells
        ]
        places = [table[["centroid_y_px", "centroid_x_px"]].to_numpy(float) for table in tables]
        names = [str(name) for table in tables for name in table["class"]]
        one = JudgedCentres(
            centres.name,
            np.concatenate([np.zeros((0, 2)), *places]),
            np.array(names, object),
            centres.places,
            np.array(centres.classes, object),
        )
        return slide.mpp, one
