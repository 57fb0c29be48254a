"""COCO's average precision, box and mask, by pycocotools, without its limit of 100 detections."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cellseg.annotations.run_lengths import encoded
from cellseg.instances import Instances

Kind = Literal["segm", "bbox"]

MAX_DETECTIONS = 1_000_000
"""Per image; COCO's own 100 is less than a field of cells holds."""


@dataclass(frozen=True, eq=False)
class Field:
    """Found and annotated objects of one image, and its height and width in pixels."""

    found: Instances
    truth: Instances
    extent: tuple[int, int]

    @cached_property
    def found_codes(self) -> list[dict[str, object]]:
        """Run lengths of the found masks."""
        return _codes(self.found, self.extent)

    @cached_property
    def truth_codes(self) -> list[dict[str, object]]:
        """Run lengths of the annotated masks."""
        return _codes(self.truth, self.extent)


@dataclass(frozen=True, eq=False)
class AveragePrecision:
    """COCO's precision at 10 IoUs (0.50 … 0.95) and 101 recalls.

    Attributes
    ----------
    precision : ndarray, float64, (10, 101, classes)
        -1 where a class is not annotated.
    """

    precision: NDArray[np.float64]

    @property
    def by_class(self) -> tuple[float, ...]:
        """AP of each class; nan where none is annotated."""
        return tuple(_mean(self.precision[:, :, k]) for k in range(self.precision.shape[2]))

    @property
    def ap(self) -> float:
        """Mean over IoUs, recalls and classes."""
        return _mean_of(self.by_class)

    @property
    def ap50(self) -> float:
        """At IoU 0.50."""
        return self._at(0)

    @property
    def ap75(self) -> float:
        """At IoU 0.75."""
        return self._at(5)

    def _at(self, row: int) -> float:
        single = self.precision[row : row + 1]
        return _mean_of(tuple(_mean(single[:, :, k]) for k in range(single.shape[2])))


def average_precision(
    fields: Sequence[Field],
    num_classes: int,
    *,
    kind: Kind = "segm",
    area_px: tuple[float, float] = (0.0, 1e10),
) -> AveragePrecision:
    """COCO's evaluation of all fields.

    Parameters
    ----------
    kind : {'segm', 'bbox'}
        Whether the IoU is one of masks or of boxes.
    area_px : (float, float)
        Annotated objects of other mask areas are ignored, as COCO does it: matched to them is
        neither right nor wrong, and unmatched found objects of such areas are no error.
    """
    goals = _rows(fields, annotated=True)
    results = _rows(fields, annotated=False)
    if not goals or not results:
        empty = np.zeros((10, 101, num_classes))
        annotated_classes = {goal["category_id"] for goal in goals}
        for label in range(num_classes):
            if label + 1 not in annotated_classes:
                empty[:, :, label] = -1
        return AveragePrecision(empty)
    data, other = COCO(), COCO()
    # pycocotools prints its progress; nothing of it is for the user.
    with redirect_stdout(io.StringIO()):
        data.dataset = _dataset(len(fields), num_classes, goals)
        data.createIndex()
        other.dataset = _dataset(len(fields), num_classes, results)
        other.createIndex()
        evaluation = COCOeval(data, other, kind)
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.params.areaRng = [list(area_px)]
        evaluation.params.areaRngLbl = ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    return AveragePrecision(evaluation.eval["precision"][:, :, :, 0, 0])


def _rows(fields: Sequence[Field], *, annotated: bool) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for number, field in enumerate(fields, start=1):
        objects = field.truth if annotated else field.found
        codes = field.truth_codes if annotated else field.found_codes
        for box, label, value, code in zip(
            objects.boxes.tolist(),
            objects.classes.tolist(),
            objects.scores.tolist(),
            codes,
            strict=True,
        ):
            y0, x0, y1, x1 = box
            rows.append(
                {
                    "id": len(rows) + 1,
                    "image_id": number,
                    "category_id": label + 1,
                    "segmentation": code,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": float(rle.area(code)),
                    **({"iscrowd": 0, "ignore": 0} if annotated else {"score": value}),
                }
            )
    return rows


def _dataset(
    images: int, num_classes: int, annotations: list[dict[str, object]]
) -> dict[str, object]:
    return {
        "images": [{"id": n, "height": 1, "width": 1} for n in range(1, images + 1)],
        "categories": [{"id": label} for label in range(1, num_classes + 1)],
        "annotations": annotations,
    }


def _codes(instances: Instances, extent: tuple[int, int]) -> list[dict[str, object]]:
    return [
        encoded(tuple(box), mask, extent)
        for box, mask in zip(instances.boxes.tolist(), instances.masks, strict=True)
    ]


def _mean(precision: NDArray[np.float64]) -> float:
    return float("nan") if (precision < 0).all() else float(precision[precision >= 0].mean())


def _mean_of(values: tuple[float, ...]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else 0.0
