"""How well cells are found, and sorted into classes, where only their centres are annotated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist


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
class Field:
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
class PointScores:
    """Of all images together.

    Attributes
    ----------
    f1 : float
        Of the centres, whatever their class.
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
    error: float
    class_found: NDArray[np.int64]
    class_truth: NDArray[np.int64]
    class_f1: NDArray[np.float64]
    confusion: NDArray[np.int64]

    @property
    def f1(self) -> float:
        """F1 of the centres; NaN where there are none at all."""
        return _f1(self.hits, self.found + self.truth)

    @classmethod
    def of(cls, fields: Sequence[Field], classes: int, within: float) -> PointScores:
        """Of images; ``within`` is in their pixels."""
        confusion = np.zeros((classes, classes + 1), np.int64)
        counts = np.zeros((3, classes), np.int64)
        hits, errors = 0, []
        for field in fields:
            rows, columns = matched(field.found, field.truth, within)
            hits += len(rows)
            known = field.truth_classes[columns] >= 0
            pairs = field.truth_classes[columns][known], field.found_classes[rows][known]
            np.add.at(confusion, pairs, 1)
            if len(field.truth):
                errors.append(abs(len(field.found) / len(field.truth) - 1))
            for kind in range(classes):
                found = field.found[field.found_classes == kind]
                truth = field.truth[field.truth_classes == kind]
                counts[:, kind] += len(found), len(truth), len(matched(found, truth, within)[0])
        return cls(
            images=len(fields),
            found=sum(len(field.found) for field in fields),
            truth=sum(len(field.truth) for field in fields),
            hits=hits,
            error=float(np.mean(errors)) if errors else float("nan"),
            class_found=counts[0],
            class_truth=counts[1],
            class_f1=np.array([_f1(int(hit), int(f + t)) for f, t, hit in counts.T]),
            confusion=confusion,
        )


def _f1(hits: int, both: int) -> float:
    return 2 * hits / both if both else float("nan")
