"""Masks in their boxes to COCO's annotations."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle


def encoded(
    box: tuple[int, ...], mask: NDArray[np.bool_], extent: tuple[int, int]
) -> dict[str, object]:
    """COCO's compressed run lengths of a mask inside its box.

    Only the columns that the box spans are written out, so this does not grow with the image.
    """
    height, width = extent
    y0, x0, y1, x1 = (int(v) for v in box)
    strip = np.zeros((x1 - x0, height), dtype=bool)
    strip[:, y0:y1] = mask.T
    flat = np.concatenate([[False], strip.ravel(), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + x0 * height
    counts = np.diff(np.concatenate([[0], edges, [height * width]]))
    code: dict[str, object] = rle.frPyObjects(
        {"size": [height, width], "counts": counts.tolist()}, height, width
    )
    return code


def annotation(
    box: tuple[int, ...], mask: NDArray[np.bool_], extent: tuple[int, int]
) -> dict[str, object]:
    """What a COCO annotation says of a mask, ready for JSON: outline, box, area; no crowd.

    Parameters
    ----------
    box : (y0, x0, y1, x1)
    mask : ndarray, bool, of the box's shape
    extent : (int, int)
        Height and width of the image.
    """
    y0, x0, y1, x1 = box
    counts = encoded(box, mask, extent)["counts"]
    return {
        "segmentation": {
            "size": list(extent),
            "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts,
        },
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": int(np.count_nonzero(mask)),
        "iscrowd": 0,
    }
