"""Found objects against annotated ones: overlaps, one-to-one matches, COCO's average precision."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cellseg.annotations.masks import encoded
from cellseg.instances import Instances

MAX_DETECTIONS = 1_000_000
"""Per image; COCO's own 100 is less than a field of cells holds."""

LEAST_IOU = 0.5
"""Of a match."""

SCORES: tuple[float, ...] = tuple(round(0.1 + 0.01 * k, 2) for k in range(81))
"""Score thresholds from which one is chosen by counts."""

FEWEST_IMAGES = 5
"""With objects, to choose a threshold by."""

LARGEST_BIAS = 0.02
"""Of the pooled count, within which the error per image decides."""


@dataclass(frozen=True, eq=False)
class Overlaps:
    """The pairs of found and annotated objects that share pixels."""

    found: NDArray[np.int64]  # (P,): index of each pair's found object.
    truth: NDArray[np.int64]  # (P,): index of its annotated one.
    shared: NDArray[np.int64]  # (P,): pixels that both cover.
    found_areas: NDArray[np.int64]  # (N,): pixels of every found object.
    truth_areas: NDArray[np.int64]  # (M,): pixels of every annotated one.

    @cached_property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union of each pair, (P,)."""
        union = self.found_areas[self.found] + self.truth_areas[self.truth] - self.shared
        return self.shared / union


def match(
    overlaps: Overlaps,
    *,
    allowed: NDArray[np.bool_] | None = None,
    scores: NDArray[np.float32] | None = None,
) -> Overlaps:
    """Pairs of an IoU of 0.5 or more that are one-to-one, those of the highest IoU first.

    Where no two objects of a set overlap, an IoU above 0.5 leaves no choice, and this is the
    only matching; elsewhere the order decides.

    Pairs may match where ``allowed``, (P,), says so. Where ``scores`` of the found objects, (N,),
    are given, those of the highest score choose first, as COCO has it.
    """
    found, truth = overlaps.found, overlaps.truth
    fitting = overlaps.iou >= LEAST_IOU
    if allowed is not None:
        fitting &= allowed
    keys: tuple[NDArray[Any], ...] = (truth, found, -overlaps.iou)
    if scores is not None:
        keys = (truth, -overlaps.iou, found, -scores[found])
    used: tuple[set[int], set[int]] = set(), set()
    taken = []
    for pair in [row for row in np.lexsort(keys).tolist() if fitting[row]]:
        i, j = int(found[pair]), int(truth[pair])
        if i not in used[0] and j not in used[1]:
            used[0].add(i)
            used[1].add(j)
            taken.append(pair)
    rows = np.array(taken, np.int64)
    return replace(overlaps, found=found[rows], truth=truth[rows], shared=overlaps.shared[rows])


@dataclass(frozen=True, eq=False)
class Compared:
    """Found and annotated objects of one image, and its height and width in pixels."""

    found: Instances
    truth: Instances
    extent: tuple[int, int]

    @cached_property
    def overlaps(self) -> Overlaps:
        """Overlaps of all found objects with the annotated ones."""
        found, truth = self.codes
        iou = np.reshape(rle.iou(found, truth, [0] * len(truth)), (len(found), len(truth)))
        i, j = np.nonzero(iou)
        areas, others = self.found.areas, self.truth.areas
        shared = np.rint(iou[i, j] / (1 + iou[i, j]) * (areas[i] + others[j])).astype(np.int64)
        return Overlaps(i, j, shared, areas, others)

    @cached_property
    def codes(self) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
        """Run lengths of the found and of the annotated masks."""
        found, truth = (
            [
                encoded(objects.box(index), mask, self.extent)
                for index, mask in enumerate(objects.masks)
            ]
            for objects in (self.found, self.truth)
        )
        return found, truth


class AveragePrecision(NamedTuple):
    """Means over recalls and classes of COCO's precision; 0 where no class is annotated.

    Over the IoUs 0.50 … 0.95, at 0.50, and at 0.75.
    """

    ap: float = 0.0
    ap50: float = 0.0
    ap75: float = 0.0


def average_precision(
    images: Sequence[Compared],
    num_classes: int,
    *,
    kind: Literal["segm", "bbox"] = "segm",
    area_px: tuple[float, float] = (0.0, 1e10),
) -> AveragePrecision:
    """COCO's evaluation of all images, with the IoU of masks or of boxes.

    Annotated objects of other mask areas than ``area_px`` are ignored, as COCO does it. Matched to
    them is neither right nor wrong, and unmatched found objects of such areas are no error.
    """
    sides = [_rows([(image.truth, image.codes[1]) for image in images])]
    sides.append(_rows([(image.found, image.codes[0]) for image in images]))
    if not all(sides):
        return AveragePrecision()
    base = COCO()
    base.dataset = {
        # Their true sizes stand in the run lengths.
        "images": [{"id": n, "height": 1, "width": 1} for n in range(len(images))],
        "categories": [{"id": label} for label in range(num_classes)],
        "annotations": [],
    }
    # pycocotools prints its progress; nothing of it is for the user.
    with redirect_stdout(io.StringIO()):
        base.createIndex()
        evaluation = COCOeval(*map(base.loadRes, sides), kind)
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.params.areaRng = [list(area_px)]
        evaluation.params.areaRngLbl = ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    # (10 IoUs, 101 recalls, classes); -1 where a class is not annotated.
    precision = evaluation.eval["precision"][:, :, :, 0, 0]
    known = precision[:, :, (precision >= 0).any(axis=(0, 1))]
    if not known.size:
        return AveragePrecision()
    return AveragePrecision(float(known.mean()), float(known[0].mean()), float(known[5].mean()))


def _rows(images: Sequence[tuple[Instances, list[dict[str, object]]]]) -> list[dict[str, object]]:
    """Objects of all images, with their run lengths, as COCO's results."""
    return [
        {"image_id": number, "category_id": label, "segmentation": code, "score": score}
        for number, (objects, codes) in enumerate(images)
        for label, score, code in zip(
            objects.classes.tolist(), objects.scores.tolist(), codes, strict=True
        )
    ]


def best_threshold(counts: NDArray[np.int64], truth: NDArray[np.int64]) -> int:
    """The score threshold that counts right: row of ``counts``, (T, I), of each image at each.

    The one with the least relative error per image, of those whose pooled count is off by no more
    than :data:`LARGEST_BIAS`, or where there are none by the least; of equal ones the middle. Not
    all of ``truth``, (I,), is 0.
    """
    off = np.abs(counts.sum(axis=1) - truth.sum())
    allowed = off <= max(int(off.min()), LARGEST_BIAS * truth.sum())
    error = (np.abs(counts - truth) / np.maximum(truth, 1)).mean(axis=1)
    rows = np.flatnonzero(allowed & (error == error[allowed].min()))
    return int(rows[len(rows) // 2])
