"""One evaluated image, the fate of each object in it, and what a set of images says in numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellseg.annotations.compare import Compared, Overlaps, average_precision, match
from cellseg.judge.figures import (
    IOUS,
    CountError,
    MatchedSizes,
    Segmentation,
    bootstrapped,
    count_error,
    size_error,
)
from cellseg.protocol import CountProtocol
from cellseg.text import number, percent

THRESHOLDS: tuple[float, ...] = tuple(round(0.1 + 0.05 * k, 2) for k in range(17))
DIAMETERS_PX = (12.0, 24.0, 48.0)
"""Borders between the bins of objects by their size."""

Fate = Literal["found", "missed", "invented", "merged", "split"]
FATES: dict[Fate, tuple[str, str]] = {
    "found": ("found", "#009E73"),
    "missed": ("missed", "#56B4E9"),
    "invented": ("invented", "#D55E00"),
    "merged": ("several in one", "#CC79A7"),
    "split": ("one in several", "#F0E442"),
}
"""Their words, and Okabe and Ito's colours, which colour-blind readers tell apart: fates are no
classes of cells."""

INSIDE = 0.5
"""Share of an object that lies in another one for it to count as part of that."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Judged(Compared):
    """One image with what was found and what is annotated, on the image's own pixels.

    Found is everything down to a low score: average precision needs it. Objects below ``score`` are
    not counted. ``group`` is ``set/modality``: what the scores are told apart by; ``model`` the
    checksum of the one that counted.
    """

    name: str
    path: Path
    group: str
    score: float
    protocol: CountProtocol
    model: str

    @cached_property
    def counted(self) -> NDArray[np.bool_]:
        """Which found objects count, (N,)."""
        return self.at(self.score)

    @cached_property
    def segmentation(self) -> Segmentation:
        """Tallies at the image's own score."""
        return Segmentation.of(self.overlaps, keep=self.counted)

    @cached_property
    def matches(self) -> Overlaps:
        """Matches at IoU 0.5 and the image's own score."""
        return match(self.overlaps, allowed=self.counted[self.overlaps.found])

    def at(self, score: float) -> NDArray[np.bool_]:
        """Which found objects reach a score, (N,)."""
        return self.found.scores >= np.float32(score)

    def only(self, label: int) -> Judged:
        """The same image with the objects of one class, as if there were no other."""
        found, truth = (
            objects.take(np.flatnonzero(objects.classes == label)).without_class()
            for objects in (self.found, self.truth)
        )
        return replace(self, found=found, truth=truth)


@dataclass(frozen=True, kw_only=True)
class Scores(MatchedSizes):
    """What a set of images says, pooled where no name says else; nan without a meaning.

    AP is COCO's, the mean over classes.
    """

    objects: int  # Annotated.
    count: CountError
    f1: dict[float, float]  # By IoU.
    f1_interval: tuple[float, float]  # 95 % at IoU 0.5 over bootstrap resamples of the images.
    accuracy: dict[float, float]  # By IoU.
    panoptic_quality: float
    panoptic_quality_per_image: float
    aji: float
    aji_per_image: float
    mask_ap: float
    mask_ap50: float
    mask_ap75: float
    box_ap: float


def scores_of(images: Sequence[Judged], num_classes: int) -> Scores:
    """All figures of a set of images, whatever the class of a match, but for AP."""
    tallies = [image.segmentation for image in images]
    pooled = Segmentation.pooled(tallies)
    masks = average_precision(images, num_classes)
    kinds = ["panoptic_quality", "aji"]
    means = pd.DataFrame([(one.panoptic_quality, one.aji) for one in tallies], columns=kinds).mean()
    pairs = [image.matches for image in images]
    found = [one.found_areas[one.found] for one in pairs]
    truth = [one.truth_areas[one.truth] for one in pairs]
    areas = (np.concatenate([[], *some]).astype(int) for some in (found, truth))
    return Scores(
        objects=pooled.truth,
        count=counts_of(images),
        f1=_by_iou(pooled.f1),
        f1_interval=bootstrapped(
            np.array([2 * one.hits[0] for one in tallies], np.int64),
            np.array([one.found + one.truth for one in tallies], np.int64),
        ),
        accuracy=_by_iou(pooled.accuracy),
        panoptic_quality=pooled.panoptic_quality,
        panoptic_quality_per_image=float(means["panoptic_quality"]),
        aji=pooled.aji,
        aji_per_image=float(means["aji"]),
        mask_ap=masks.ap,
        mask_ap50=masks.ap50,
        mask_ap75=masks.ap75,
        box_ap=average_precision(images, num_classes, kind="bbox").ap,
        **asdict(size_error(*areas)),
    )


def told_counts(one: Scores) -> dict[str, str]:
    """Errors of counts, by the columns of a table."""
    count = one.count
    return {
        "images": f"{count.images:,}",
        "annotated": f"{count.truth:,}",
        "counted": f"{count.found:,}",
        "bias": percent(count.bias, sign=True),
        "95 %": " … ".join(percent(value, sign=True) for value in count.bias_interval),
        "per image": percent(count.mean_relative),
        "median": percent(count.median_relative),
    }


def told_outlines(one: Scores) -> dict[str, str]:
    """Scores of outlines and sizes, by the columns of a table."""
    return {
        "F1@.5": number(one.f1[0.5]),
        "95 %": " … ".join(number(value) for value in one.f1_interval),
        "@.75": number(one.f1[0.75]),
        "accuracy@.5": number(one.accuracy[0.5]),
        "PQ": number(one.panoptic_quality),
        "AJI": number(one.aji),
        "mask AP": number(one.mask_ap),
        "AP50": number(one.mask_ap50),
        "box AP": number(one.box_ap),
        "area bias": percent(one.area_bias, sign=True),
        "spread": percent(one.area_spread),
        "diameter bias": percent(one.diameter_bias, sign=True),
    }


def counts_of(images: Sequence[Judged], score: float | None = None) -> CountError:
    """Count errors at each image's own score, or at one for all."""
    kept = [image.counted if score is None else image.at(score) for image in images]
    return count_error(
        np.array([len(image.truth) for image in images], np.int64),
        np.array([int(keep.sum()) for keep in kept], np.int64),
    )


@dataclass(frozen=True)
class AtThreshold:
    """Pooled count and F1 at one score threshold for all images."""

    score: float
    found: int
    bias: float
    mean_relative: float
    f1: float


def curve(images: Sequence[Judged]) -> tuple[AtThreshold, ...]:
    """Count and F1 against the score threshold."""
    points = []
    for score in THRESHOLDS:
        error = counts_of(images, score)
        tally = Segmentation.pooled(
            Segmentation.of(image.overlaps, keep=image.at(score)) for image in images
        )
        points.append(
            AtThreshold(score, error.found, error.bias, error.mean_relative, float(tally.f1[0]))
        )
    return tuple(points)


def ap_by_diameter(images: Sequence[Judged], num_classes: int) -> dict[str, tuple[int, float]]:
    """Number of annotated objects and mask AP by their equivalent diameter, as ``12–24 px``."""
    areas = np.concatenate([image.truth.areas for image in images])
    found = {}
    for low, high in pairwise([0.0, *DIAMETERS_PX, math.inf]):
        area = (math.pi / 4 * low**2, min(1e10, math.pi / 4 * high**2))
        inside = int(np.count_nonzero((areas >= area[0]) & (areas < area[1])))
        name = f"{low:.0f}–{high:.0f} px" if math.isfinite(high) else f"from {low:.0f} px"
        if inside:
            found[name] = (inside, average_precision(images, num_classes, area_px=area).ap)
    return found


def ap_by_density(images: Sequence[Judged], num_classes: int) -> dict[str, tuple[int, float]]:
    """Mask AP of the images in three equal parts by annotated objects per megapixel."""
    density = np.array([len(i.truth) / (i.extent[0] * i.extent[1]) * 1e6 for i in images])
    found = {}
    for rows in np.array_split(np.argsort(density, kind="stable"), min(3, len(images))):
        part = [images[row] for row in rows.tolist()]
        low, high = density[rows].min(), density[rows].max()
        objects = sum(len(image.truth) for image in part)
        ap = average_precision(part, num_classes).ap
        found[f"{low:,.0f}–{high:,.0f} per Mpx"] = (objects, ap)
    return found


def _by_iou(values: NDArray[np.float64]) -> dict[float, float]:
    return dict(zip(IOUS, values.tolist(), strict=True))


def fates(image: Judged) -> tuple[list[Fate | None], list[Fate | None]]:
    """Fates of the found and of the annotated objects of an image.

    A found object that holds most of two or more annotated ones has ``merged`` them; found
    objects of which two or more lie mostly in the same annotated one have ``split`` it. The
    others are ``found`` or ``invented``, the annotated ones ``found`` or ``missed``.

    None for found objects below the image's score.
    """
    pairs, keep = image.overlaps, image.counted
    seen = keep[pairs.found]
    i, j, shared = pairs.found[seen], pairs.truth[seen], pairs.shared[seen]
    holds = shared >= INSIDE * pairs.truth_areas[j]
    lies = shared >= INSIDE * pairs.found_areas[i]
    merging = holds & _repeated(i, holds)
    splitting = lies & _repeated(j, lies)
    found: list[Fate | None] = ["invented" if k else None for k in keep.tolist()]
    truth: list[Fate | None] = ["missed"] * len(pairs.truth_areas)
    matches = image.matches
    pairs_of: dict[Fate, tuple[NDArray[np.int64], NDArray[np.int64]]] = {
        "found": (matches.found, matches.truth),
        "split": (i[splitting], j[splitting]),
        "merged": (i[merging], j[merging]),
    }
    for fate, (some, others) in pairs_of.items():
        for one, other in zip(some.tolist(), others.tolist(), strict=True):
            found[one] = truth[other] = fate
    return found, truth


def tally(image: Judged) -> dict[Fate, int]:
    """How many found objects have each fate; for ``missed``, how many annotated ones."""
    found, truth = fates(image)
    return {fate: (truth if fate == "missed" else found).count(fate) for fate in FATES}


def _repeated(index: NDArray[np.int64], counted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether each index is counted more than once."""
    size = int(index.max(initial=0)) + 1
    return np.asarray(np.bincount(index[counted], minlength=size)[index] > 1)
