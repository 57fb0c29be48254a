"""Validation: COCO mask AP and F1 of the average weights, by the detector that counts.

Images are looked at in windows, at the scale at which the network will be used; an
object that a window cuts is cut in the annotation as well.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from cellseg.detect import DetectorInfo, MaskRCNNDetector
from cellseg.geometry import Box
from cellseg.instances import Instances
from cellseg.models.maskrcnn import build_maskrcnn
from cellseg.training.crops import AnnotatedImage, cut_objects, cut_pixels
from cellseg.training.outlines import encoded

LOWEST_SCORE = 0.05
WINDOW_PX = 1024
MAX_DETECTIONS = 10_000

Fields = list[tuple[Instances, Instances, tuple[int, int]]]
"""Found and annotated objects of each window, and the window's height and width."""


@dataclass(frozen=True)
class Validation:
    """Scores on the held-back images.

    Attributes
    ----------
    mask_ap, mask_ap50 : float
        COCO's mean average precision over mask IoU 0.50 … 0.95, and at 0.50; mean over classes.
    f1 : float
        At mask IoU 0.5 and the best score threshold, with the right class.
    score : float
        That threshold.
    class_ap : tuple of float
        ``mask_ap`` of each class; nan where none is annotated.
    images, objects : int
    """

    mask_ap: float
    mask_ap50: float
    f1: float
    score: float
    class_ap: tuple[float, ...]
    images: int
    objects: int

    def entry(self) -> dict[str, float]:
        """As numbers by name."""
        return {
            "mask_ap": self.mask_ap,
            "mask_ap50": self.mask_ap50,
            "f1": self.f1,
            "score": self.score,
            "images": self.images,
            "objects": self.objects,
        }


class Validator:
    """Runs a network's weights over held-back images.

    Parameters
    ----------
    images : sequence of AnnotatedImage
    classes : tuple of str
    device : torch.device
    most_windows : int
        Windows beyond it are left out, evenly over the images.
    """

    def __init__(
        self,
        images: Sequence[AnnotatedImage],
        classes: tuple[str, ...],
        device: torch.device,
        *,
        most_windows: int = 64,
    ) -> None:
        windows = [(image, window) for image in images for window in windows_of(image)]
        step = max(1.0, len(windows) / most_windows)
        self.windows = [windows[int(i * step)] for i in range(int(len(windows) / step))]
        self.classes = classes
        self.model = build_maskrcnn(len(classes), frozen_norm=True).to(device).eval()

    def __call__(self, average: dict[str, Tensor]) -> Validation:
        """Scores of these weights."""
        state = {k: v for k, v in average.items() if not k.endswith("num_batches_tracked")}
        self.model.load_state_dict(state)
        detector = MaskRCNNDetector(
            self.model, DetectorInfo("training", "", self.classes, "cell"), score=LOWEST_SCORE
        )
        fields: Fields = []
        for image, window in self.windows:
            size = _size(image, window)
            pixels = cut_pixels(image, window, size).permute(1, 2, 0).contiguous().numpy()
            found = detector.detect([pixels], fill=image.background)[0].instances
            fields.append((found, annotated(image, window), size))
        return score(fields, len(self.classes))


def windows_of(image: AnnotatedImage) -> list[Box]:
    """Windows of at most :data:`WINDOW_PX` network pixels that partition the image."""
    height, width = image.pixels.shape[:2]
    side = max(32, int(WINDOW_PX / image.zoom))
    return [
        Box(y, x, min(y + side, height), min(x + side, width))
        for y in range(0, height, side)
        for x in range(0, width, side)
    ]


def annotated(image: AnnotatedImage, window: Box) -> Instances:
    """The annotated objects of a window, on the network's lattice, each with score 1."""
    objects = cut_objects(image, window, _size(image, window))
    return Instances.build(
        [(box.y0, box.x0, box.y1, box.x1) for box, _, _ in objects],
        [1.0] * len(objects),
        [label for _, _, label in objects],
        [mask for _, mask, _ in objects],
    )


def score(fields: Fields, num_classes: int) -> Validation:
    """COCO mask AP with no practical limit on detections, and F1.

    Parameters
    ----------
    fields : list of (Instances, Instances, (int, int))
        Found objects, annotated objects, height and width of each window.
    num_classes : int
    """
    found = [_codes(f, extent) for f, _, extent in fields]
    truth = [_codes(t, extent) for _, t, extent in fields]
    precision = _precision(fields, found, truth, num_classes)
    hits, scores, objects = [], [], 0
    for (f, t, _), codes, goals in zip(fields, found, truth, strict=True):
        hits.append(matched(f, t, codes, goals))
        scores.append(f.scores)
        objects += len(t)
    f1, threshold = best_f1(np.concatenate(hits), np.concatenate(scores), objects)
    class_ap = tuple(_mean(precision[:, :, k]) for k in range(num_classes))
    return Validation(
        mask_ap=_mean_of(class_ap),
        mask_ap50=_mean_of(tuple(_mean(precision[:1, :, k]) for k in range(num_classes))),
        f1=f1,
        score=threshold,
        class_ap=class_ap,
        images=len(fields),
        objects=objects,
    )


def matched(
    found: Instances, truth: Instances, codes: list[object], goals: list[object]
) -> NDArray[np.bool_]:
    """Which found objects are right: each in order of score takes its best free partner.

    A partner has the same class and a mask IoU of 0.5 or more.
    """
    hit = np.zeros(len(found), dtype=bool)
    if not len(found) or not len(truth):
        return hit
    overlap = np.asarray(rle.iou(codes, goals, [0] * len(goals)))
    overlap[found.classes[:, None] != truth.classes[None, :]] = 0
    for index in np.argsort(-found.scores, kind="stable"):
        partner = int(overlap[index].argmax())
        if overlap[index, partner] >= 0.5:
            hit[index] = True
            overlap[:, partner] = 0
    return hit


def best_f1(
    hits: NDArray[np.bool_], scores: NDArray[np.float32], objects: int
) -> tuple[float, float]:
    """Highest F1 over all score thresholds, and that threshold; (0, 0.5) where there is none."""
    if not len(hits) or not objects:
        return 0.0, 0.5
    order = np.argsort(-scores, kind="stable")
    right = np.cumsum(hits[order])
    f1 = 2 * right / (np.arange(1, len(hits) + 1) + objects)
    best = int(f1.argmax())
    if not f1[best]:
        return 0.0, 0.5
    return float(f1[best]), float(np.floor(scores[order][best] * 1000) / 1000)


def _codes(instances: Instances, extent: tuple[int, int]) -> list[object]:
    return [
        encoded(tuple(box), mask, extent)
        for box, mask in zip(instances.boxes.tolist(), instances.masks, strict=True)
    ]


def _precision(
    fields: Fields, found: list[list[object]], truth: list[list[object]], num_classes: int
) -> NDArray[np.float64]:
    """Precision of COCO, (10 IoU, 101 recalls, classes); -1 where nothing is annotated."""
    data = COCO()
    goals: list[dict[str, object]] = []
    results: list[dict[str, object]] = []
    for number, ((f, t, _), codes, masks) in enumerate(
        zip(fields, found, truth, strict=True), start=1
    ):
        for label, code in zip(t.classes.tolist(), masks, strict=True):
            area = float(rle.area(code))
            goals.append(
                {
                    "id": len(goals) + 1,
                    "image_id": number,
                    "category_id": label + 1,
                    "segmentation": code,
                    "area": area,
                    "iscrowd": 0,
                    "ignore": 0,
                }
            )
        for label, value, code in zip(f.classes.tolist(), f.scores.tolist(), codes, strict=True):
            results.append(
                {
                    "id": len(results) + 1,
                    "image_id": number,
                    "category_id": label + 1,
                    "segmentation": code,
                    "area": float(rle.area(code)),
                    "score": value,
                }
            )
    if not goals or not results:
        empty = np.zeros((10, 101, num_classes))
        annotated_classes = {goal["category_id"] for goal in goals}
        for label in range(num_classes):
            if label + 1 not in annotated_classes:
                empty[:, :, label] = -1
        return empty
    # pycocotools prints its progress; nothing of it is for the user.
    with redirect_stdout(io.StringIO()):
        data.dataset = _dataset(len(fields), num_classes, goals)
        data.createIndex()
        other = COCO()
        other.dataset = _dataset(len(fields), num_classes, results)
        other.createIndex()
        evaluation = COCOeval(data, other, "segm")
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.params.areaRng = [[0, 1e10]]
        evaluation.params.areaRngLbl = ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    precision: NDArray[np.float64] = evaluation.eval["precision"][:, :, :, 0, 0]
    return precision


def _dataset(
    images: int, num_classes: int, annotations: list[dict[str, object]]
) -> dict[str, object]:
    return {
        "images": [{"id": n, "height": 1, "width": 1} for n in range(1, images + 1)],
        "categories": [{"id": label} for label in range(1, num_classes + 1)],
        "annotations": annotations,
    }


def _mean(precision: NDArray[np.float64]) -> float:
    return float("nan") if (precision < 0).all() else float(precision[precision >= 0].mean())


def _mean_of(values: tuple[float, ...]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else 0.0


def _size(image: AnnotatedImage, window: Box) -> tuple[int, int]:
    return (
        max(1, round(window.height * image.zoom)),
        max(1, round(window.width * image.zoom)),
    )


def split(
    images: Sequence[AnnotatedImage], share: float = 0.1, *, seed: int = 0
) -> tuple[list[AnnotatedImage], list[AnnotatedImage]]:
    """Training and validation images: the same split for the same images.

    Each group gives its share, rounded; there is at least one validation image where there
    are two images or more.
    """
    rng = np.random.default_rng(seed)
    groups: dict[str, list[int]] = {}
    for index, image in enumerate(images):
        groups.setdefault(image.group, []).append(index)
    held: set[int] = set()
    for members in groups.values():
        count = min(round(len(members) * share), len(members) - 1)
        held.update(rng.permutation(members)[:count].tolist())
    if not held and len(images) > 1:
        most = max(groups.values(), key=len)
        candidates = [i for i in most if images[i].masks] or most
        held.add(int(rng.choice(candidates)))
    train = [image for index, image in enumerate(images) if index not in held]
    return train, [image for index, image in enumerate(images) if index in held]


def free_memory(device: torch.device) -> None:
    """Give what validation used back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
