"""Images with outlines coloured by what became of each object."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.measure import find_contours

from cellseg.instances import Instances
from cellseg.judge.fates import Fate, fates
from cellseg.judge.judged import Judged

# Okabe and Ito's colours, told apart by colour-blind readers too.
COLOURS: dict[Fate, str] = {
    "found": "#009E73",
    "missed": "#56B4E9",
    "invented": "#D55E00",
    "merged": "#CC79A7",
    "split": "#F0E442",
}
MEANINGS: dict[Fate, str] = {
    "found": "found",
    "missed": "missed",
    "invented": "invented",
    "merged": "several in one",
    "split": "one in several",
}

Line = NDArray[np.float64]
"""Points (x, y), pixels."""


def lines(image: Judged) -> list[tuple[Fate, Line]]:
    """Outlines to draw: of the found objects, and of the annotated ones that were missed."""
    found, truth = fates(image)
    drawn = [
        (fate, line)
        for index, fate in enumerate(found)
        if fate is not None
        for line in _contour(image.found, index)
    ]
    for index, fate in enumerate(truth):
        if fate == "missed":
            drawn += [(fate, line) for line in _contour(image.truth, index)]
    return drawn


def displayed(pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Any image as RGB for the eye: dark ones are stretched by their percentiles."""
    values = np.nan_to_num(np.asarray(pixels, np.float64), posinf=0.0, neginf=0.0)
    if values.shape[2] == 1:
        values = np.repeat(values, 3, axis=2)
    if pixels.dtype != np.uint8 or values.mean() < 100:
        low, high = (float(v) for v in np.percentile(values, [1, 99.8]))
        values = (values - low) / max(high - low, 1e-6) * 255
    return np.clip(values[..., :3], 0, 255).astype(np.uint8)


def _contour(objects: Instances, index: int) -> list[Line]:
    padded = np.pad(objects.masks[index].astype(np.float32), 1)
    y, x = objects.boxes[index, :2]
    found: list[Line] = find_contours(padded, 0.5)  # type: ignore[no-untyped-call]
    return [line[:, ::-1] + (x - 1, y - 1) for line in found]
