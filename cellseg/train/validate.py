"""Validation: COCO mask AP and F1 of the average weights, by the detector that counts.

Images are looked at in windows, at the scale at which the network will be used; an
object that a window cuts is cut in the annotation as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cellseg.annotations.compare import (
    FEWEST_IMAGES,
    SCORES,
    Compared,
    average_precision,
    best_threshold,
    match,
)
from cellseg.annotations.image import AnnotatedImage
from cellseg.counting.merge import SeamMerger
from cellseg.errors import SettingsError, WeightsError
from cellseg.geometry import STRIDE_PX, Box, TileGrid
from cellseg.instances import Instances
from cellseg.network.detect import MaskRCNNDetector, load_detector
from cellseg.network.detector import DetectorInfo
from cellseg.network.inference import EIGHT_BITS
from cellseg.network.torch_inference import TorchInference, best_precision, make_ready
from cellseg.network.weights import network_of
from cellseg.train.crops import cut_objects, cut_pixels

LOWEST_SCORE = 0.05

MOST_F1_LOST = 0.003
"""Where 8 bits lose no more, they count with the model."""

WINDOW_PX, MOST_WINDOWS = 1024, 64
"""Side of a window, pixels of the network; windows beyond so many are left out, evenly."""


@dataclass(frozen=True)
class Validation:
    """Scores on the held-back images."""

    mask_ap: float  # COCO's mean average precision over mask IoU 0.50 … 0.95, mean over classes.
    mask_ap50: float  # As that, at 0.50.
    f1: float  # At mask IoU 0.5 and the best score threshold, with the right class.
    score: float  # The threshold that counts right; nan where too few images are held back.
    images: int
    objects: int


def detector_of(
    arrays: dict[str, Tensor], classes: tuple[str, ...], device: torch.device
) -> MaskRCNNDetector:
    """A detector around weights that are being learned."""
    model = network_of(arrays, len(classes), "training").to(device)
    return MaskRCNNDetector(
        TorchInference(make_ready(model, best_precision(device))),
        DetectorInfo("training", "", classes, "cell"),
        score=LOWEST_SCORE,
        # Weights are compared here; the second look costs as much as all else.
        fine_from_px=float("inf"),
    )


def in_8_bits(model: Path) -> MaskRCNNDetector | None:
    """A model that holds ranges, in OpenVINO; None where that cannot be had."""
    try:
        found = load_detector(model, device="cpu", inference="openvino", score=LOWEST_SCORE)
    except (SettingsError, WeightsError):
        return None
    return found if found.info.device.startswith(EIGHT_BITS) else None


def is_right_in_8_bits(model: Path, f1: float, held: Sequence[AnnotatedImage]) -> bool:
    """Whether OpenVINO reaches the F1 of a finished model on its held-back images."""
    if (detector := in_8_bits(model)) is None:
        return False
    return scores_of(detector, held, detector.info.classes).f1 >= f1 - MOST_F1_LOST


def scores_of(
    detector: MaskRCNNDetector, images: Sequence[AnnotatedImage], classes: tuple[str, ...]
) -> Validation:
    """Scores of what a detector finds in annotated images."""
    windows = []
    for image in images:
        side = max(32, int(WINDOW_PX / image.zoom))
        windows += [(image, part) for part in Box(0, 0, *image.pixels.shape[:2]).parts(side)]
    step = max(1.0, len(windows) / MOST_WINDOWS)
    fields = []
    for image, window in (windows[int(i * step)] for i in range(int(len(windows) / step))):
        size = _size(image, window)
        pixels = cut_pixels(image, window, size).permute(1, 2, 0).contiguous().numpy()
        found = settled(detector.detect(pixels, fill=image.background).instances, size)
        fields.append(Compared(found, annotated(image, window), size))
    return scored(fields, len(classes))


def settled(found: Instances, size: tuple[int, int]) -> Instances:
    """What a count keeps of a field's (height, width) instances: each pixel is of one cell.

    Without this rule there are more of them at any score, and one too high would count right.
    """
    grid = TileGrid(*size, -(-max(size) // STRIDE_PX) * STRIDE_PX, 0)
    return SeamMerger(grid).add(grid.at(0, 0), found).instances


def annotated(image: AnnotatedImage, window: Box) -> Instances:
    """The annotated objects of a window, on the network's lattice, each with score 1."""
    objects = cut_objects(image, window, _size(image, window))
    return Instances.build(
        [box.corners for _, (box, _) in objects],
        [1.0] * len(objects),
        [int(image.classes[number]) for number, _ in objects],
        [mask for _, (_, mask) in objects],
    )


def scored(fields: list[Compared], num_classes: int) -> Validation:
    """COCO mask AP with no practical limit on detections, F1, and the score that counts right."""
    precision = average_precision(fields, num_classes)
    objects = np.array([len(field.truth) for field in fields], np.int64)
    scores = np.concatenate([field.found.scores for field in fields])
    right = np.cumsum(
        np.concatenate([hits_of(field) for field in fields])[np.argsort(-scores, kind="stable")]
    )
    f1 = 2 * right / (np.arange(1, len(right) + 1) + objects.sum())
    best = float("nan")
    if np.count_nonzero(objects) >= FEWEST_IMAGES:
        counts = [[np.count_nonzero(f.found.scores >= score) for f in fields] for score in SCORES]
        best = SCORES[best_threshold(np.array(counts, np.int64), objects)]
    return Validation(
        mask_ap=precision.ap,
        mask_ap50=precision.ap50,
        f1=float(f1.max(initial=0.0)),
        score=best,
        images=len(fields),
        objects=int(objects.sum()),
    )


def hits_of(image: Compared) -> NDArray[np.bool_]:
    """Which found objects match an annotated one of their class at an IoU of 0.5 or more."""
    pairs = image.overlaps
    same = image.found.classes[pairs.found] == image.truth.classes[pairs.truth]
    hit = np.zeros(len(image.found), dtype=bool)
    hit[match(pairs, allowed=same, scores=image.found.scores).found] = True
    return hit


def _size(image: AnnotatedImage, window: Box) -> tuple[int, int]:
    height, width = (max(1, round(side * image.zoom)) for side in window.shape)
    return height, width


def split(
    images: Sequence[AnnotatedImage], share: float = 0.1
) -> tuple[list[AnnotatedImage], list[AnnotatedImage]]:
    """Training and validation images: the same split for the same images.

    Each group gives its share, rounded, of images that are annotated whole; there is at least one
    validation image where there are two images or more, and one of them is such.
    """
    rng = np.random.default_rng(0)
    groups: dict[str, list[int]] = {}
    for index, image in enumerate(images):
        groups.setdefault(image.group, []).append(index)
    whole = {
        name: [index for index in members if not images[index].known_in_part]
        for name, members in groups.items()
    }
    held: set[int] = set()
    for name, members in groups.items():
        count = min(round(len(members) * share), len(members) - 1)
        held.update(rng.permutation(np.array(whole[name], np.int64))[:count].tolist())
    most = whole[max(groups, key=lambda name: len(groups[name]))] if len(images) > 1 else []
    if not held and most:
        held.add(int(rng.choice([i for i in most if images[i].masks] or most)))
    train = [image for index, image in enumerate(images) if index not in held]
    return train, [image for index, image in enumerate(images) if index in held]
