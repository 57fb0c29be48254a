"""Scale of an image that does not say its pixel size, told from its own cells."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from cellseg.errors import RegionError
from cellseg.geometry import Box
from cellseg.network.detector import Detector
from cellseg.protocol import NO_TYPES, CountProtocol
from cellseg.slide import Slide
from cellseg.stain.normalise import Normaliser

DOWNSAMPLES = tuple(0.45 * 1.5**step for step in range(7))
"""At which the network looks: of training it knows cells of 0.7 to 1.5 times their usual size."""

LOOK_PX = 512
"""Side of what it looks at, pixels of the network, from the middle of the image."""

SURE, FEWEST = 0.5, 2
"""Score of a cell that counts as evidence, and so many of them are needed."""

ALIKE = 2.0
"""Cells at most so many times as large as the usual one, or as small, speak for a scale."""


def told_diameter(
    slide: Slide, channels: tuple[int, ...], protocol: CountProtocol, detector: Detector
) -> float | None:
    """Diameter of the usual cell, level-0 pixels; None where too few are seen to tell.

    The usual cell is of the first class that the protocol counts. The network looks at several
    scales, and is surest where cells have the size that it knows.
    """
    usual = protocol.usual_px
    assert usual is not None
    one = detector.for_run(
        score=SURE, nms_iou=protocol.nms_iou, types=NO_TYPES, classes=tuple(protocol.classes)
    )
    normaliser: Normaliser | None = None
    best, told = 0.0, None
    for downsample in DOWNSAMPLES:
        height, width = slide.lattice_shape(downsample)
        if min(height, width) < usual:
            break
        y, x = max(0, (height - LOOK_PX) // 2), max(0, (width - LOOK_PX) // 2)
        box = Box(y, x, min(y + LOOK_PX, height), min(x + LOOK_PX, width))
        with suppress(RegionError):
            pixels = slide.read(box, downsample=downsample, channels=channels)
            normaliser = normaliser or Normaliser.fit(pixels, protocol.light)
            found = one.detect([normaliser.apply(pixels)], fill=1.0)[0].instances
            cut = (found.boxes[:, :2] <= 0).any(1) | (found.boxes[:, 2:] >= box.shape).any(1)
            found = found.take(np.flatnonzero((found.classes == 0) & ~cut))
            diameters = np.sqrt(4 * found.areas / np.pi)
            alike = (diameters > usual / ALIKE) & (diameters < usual * ALIKE)
            evidence = float((found.scores * found.areas)[alike].sum()) * downsample**2
            if alike.sum() >= FEWEST and evidence > best:
                best, told = evidence, float(np.median(diameters[alike])) * downsample
    return told
