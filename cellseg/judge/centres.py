"""Evaluation where only the cells' centres are annotated: counts, F1, and classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from cellseg.annotations.points import Centres, read_points
from cellseg.counting.stages import SlideCount
from cellseg.errors import InputError
from cellseg.judge.evaluate import EvaluateRequest, ImageDone, planned
from cellseg.judge.judged import plain
from cellseg.network.detector import Detector

WITHIN_UM = 3.0
"""How far a counted cell's centre may lie from an annotated one: half of a small nucleus."""


def matched(
    found: NDArray[np.float64], truth: NDArray[np.float64], within: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """One-to-one pairs no farther apart, as many as there can be, of the least total distance.

    Parameters
    ----------
    found, truth : ndarray, (N, 2) and (M, 2)
        In one unit.
    within : float
        In that unit.

    Returns
    -------
    found, truth : ndarray, int, (P,)
        Rows of the pairs.
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
    found_classes, truth_classes : ndarray, int, (N,) and (M,)
        Numbers in one list of names; -1: of no class.
    """

    found: NDArray[np.float64]
    found_classes: NDArray[np.int64]
    truth: NDArray[np.float64]
    truth_classes: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class CentreScores:
    """Figures of all images together.

    Attributes
    ----------
    f1 : float
        Of the centres, whatever their class; nan where there are none at all.
    error : float
        Mean over images of |counted / annotated − 1|.
    class_found, class_truth : ndarray, int, (K,)
    class_f1 : ndarray, float, (K,)
        Found and annotated centres of one class are paired by themselves.
    confusion : ndarray, int, (K, K + 1)
        Pairs whatever the class: annotated by found; the last column: found without a class.
    """

    images: int
    found: int
    truth: int
    hits: int
    f1: float
    error: float
    class_found: NDArray[np.int64]
    class_truth: NDArray[np.int64]
    class_f1: NDArray[np.float64]
    confusion: NDArray[np.int64]

    @classmethod
    def of(cls, images: Sequence[JudgedCentres], classes: int, within: float) -> CentreScores:
        """Figures of images; ``within`` is in their pixels."""
        confusion = np.zeros((classes, classes + 1), np.int64)
        counts = np.zeros((3, classes), np.int64)
        hits, errors = 0, []
        for one in images:
            rows, columns = matched(one.found, one.truth, within)
            hits += len(rows)
            known = one.truth_classes[columns] >= 0
            pairs = one.truth_classes[columns][known], one.found_classes[rows][known]
            np.add.at(confusion, pairs, 1)
            if len(one.truth):
                errors.append(abs(len(one.found) / len(one.truth) - 1))
            for kind in range(classes):
                found = one.found[one.found_classes == kind]
                truth = one.truth[one.truth_classes == kind]
                counts[:, kind] += len(found), len(truth), len(matched(found, truth, within)[0])
        found_in_all, truth_in_all = (
            sum(len(centres) for centres in side)
            for side in ([one.found for one in images], [one.truth for one in images])
        )
        return cls(
            images=len(images),
            found=found_in_all,
            truth=truth_in_all,
            hits=hits,
            f1=_f1(hits, found_in_all + truth_in_all),
            error=float(np.mean(errors)) if errors else float("nan"),
            class_found=counts[0],
            class_truth=counts[1],
            class_f1=np.array([_f1(int(hit), int(f + t)) for f, t, hit in counts.T]),
            confusion=confusion,
        )


def _f1(hits: int, both: int) -> float:
    return 2 * hits / both if both else float("nan")


@dataclass(frozen=True, eq=False)
class CentreEvaluation:
    """A model's figures on all images.

    Attributes
    ----------
    names : tuple of str
        The images.
    classes : tuple of str
        Those that are annotated.
    """

    names: tuple[str, ...]
    classes: tuple[str, ...]
    within_px: float
    images: tuple[JudgedCentres, ...]
    scores: CentreScores
    model: str

    def as_dict(self) -> dict[str, object]:
        """All figures, ready for JSON."""
        scores = self.scores
        return {
            "model": self.model,
            "within_px": self.within_px,
            "images": scores.images,
            "annotated": scores.truth,
            "counted": scores.found,
            "bias": _bias(scores.found, scores.truth),
            "error_per_image": plain(scores.error),
            "f1": plain(scores.f1),
            "classes": {
                name: {
                    "annotated": int(scores.class_truth[k]),
                    "counted": int(scores.class_found[k]),
                    "bias": _bias(int(scores.class_found[k]), int(scores.class_truth[k])),
                    "f1": plain(float(scores.class_f1[k])),
                    "found_as": dict(
                        zip((*self.classes, "none"), scores.confusion[k].tolist(), strict=True)
                    ),
                }
                for k, name in enumerate(self.classes)
            },
            "mean_class_f1": plain(float(np.mean(scores.class_f1))) if self.classes else None,
            "per_image": [
                {"image": name, "annotated": len(one.truth), "counted": len(one.found)}
                for name, one in zip(self.names, self.images, strict=True)
            ],
        }


def _bias(counted: int, annotated: int) -> float | None:
    return round(counted / annotated - 1, 5) if annotated else None


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

    Yields
    ------
    ImageDone, and one CentreEvaluation at the end

    Raises
    ------
    InputError
        If a table or an image cannot be read.
    """
    data = [(path, centres) for path in request.data for centres in read_points(path)]
    classes = tuple(sorted({name for _, one in data for name in one.classes if name}))
    detector = request.detector()
    images: list[JudgedCentres] = []
    radii: set[float] = set()
    for done, (table, centres) in enumerate(data, start=1):
        path = _path(table, centres.name, request)
        mpp, found, names = _counted(path, centres, request, detector)
        of_class = {name: number for number, name in enumerate(classes)}
        numbers = (
            np.array([of_class.get(name, -1) for name in some], np.int64)
            for some in (names, centres.classes)
        )
        images.append(JudgedCentres(found, next(numbers), centres.places, next(numbers)))
        radii.add(within_um / mpp if mpp else within_um)
        yield ImageDone(done, len(data))
    if len(radii) > 1:
        raise InputError("the images have several pixel sizes: evaluate those of one at a time")
    (radius,) = radii
    yield CentreEvaluation(
        names=tuple(centres.name for _, centres in data),
        classes=classes,
        within_px=radius,
        images=tuple(images),
        scores=CentreScores.of(images, len(classes), radius),
        model=detector.info.name,
    )


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
) -> tuple[float | None, NDArray[np.float64], list[str]]:
    """One image's µm per pixel, and the places and classes of its counted cells."""
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
        found = [table[["centroid_y_px", "centroid_x_px"]].to_numpy(float) for table in tables]
        names = [str(name) for table in tables for name in table["class"]]
        return slide.mpp, np.concatenate([np.zeros((0, 2)), *found]), names
