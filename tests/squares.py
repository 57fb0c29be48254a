"""Found and annotated objects that are compared by hand."""

import numpy as np

from cellseg.annotations.compare import Compared
from cellseg.instances import Instances


def squares(*boxes, scores=None, classes=None):
    """Filled boxes (y0, x0, y1, x1)."""
    return Instances.build(
        boxes,
        scores or [1.0] * len(boxes),
        classes or [0] * len(boxes),
        [np.ones((y1 - y0, x1 - x0), bool) for y0, x0, y1, x1 in boxes],
    )


def overlaps(found, truth):
    return Compared(found, truth, (1100, 1100)).overlaps


# Truth: A and B of 100 px each. Found: A shifted by 2 (IoU 80/120 = 2/3), one that shares 25 px
# with B (IoU 25/175 = 1/7), and one on nothing.
TRUTH = squares((0, 0, 10, 10), (20, 20, 30, 30))
FOUND = squares((0, 2, 10, 12), (25, 25, 35, 35), (50, 50, 60, 60))
