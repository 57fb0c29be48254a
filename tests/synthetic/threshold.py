"""A detector without a network: connected components beyond a threshold.

It shows what the protocol :class:`~cellseg.network.detector.Detector` asks for, and replaces the
Mask R-CNN where reading, merging, measuring and writing are tested or timed.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellseg.geometry import Box
from cellseg.instances import Instances
from cellseg.network.detector import Detections, Detector, DetectorInfo


class ThresholdDetector(Detector):
    """Every connected component of pixels away from the background is one object.

    ``level`` is the distance from the background's grey level, 0 … 1; components smaller than
    ``min_area_px`` are noise.
    """

    def __init__(self, *, level: float = 0.35, min_area_px: int = 20) -> None:
        self.level, self.min_area_px = level, min_area_px
        self.info = DetectorInfo(
            name="threshold",
            checksum=f"threshold {level:g} {min_area_px}",
            classes=("nucleus",),
            object="nucleus",
            diameter_px=20.0,
        )

    def detect(
        self, tile: NDArray[np.float32], *, fill: float, near: Box | None = None
    ) -> Detections:
        """The score is always 0.9."""
        labels, _ = ndimage.label(np.abs(tile.mean(axis=2) - fill) > self.level)
        boxes, masks = [], []
        for index, place in enumerate(ndimage.find_objects(labels), start=1):
            mask = labels[place] == index
            if np.count_nonzero(mask) < self.min_area_px:
                continue
            rows, columns = place
            boxes.append((rows.start, columns.start, rows.stop, columns.stop))
            masks.append(mask)
        count = len(masks)
        return Detections(Instances.build(boxes, [0.9] * count, [0] * count, masks))
