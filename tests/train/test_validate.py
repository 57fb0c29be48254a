"""Validation: the score that counts right counts what a count keeps."""

from __future__ import annotations

import numpy as np

from cellseg.annotations.compare import FEWEST_IMAGES
from cellseg.annotations.image import AnnotatedImage
from cellseg.geometry import Box
from cellseg.instances import Instances
from cellseg.network.detector import Detections
from cellseg.train.teach import counted_in
from cellseg.train.validate import scores_of

SIDE = 20
CORNERS = [(10, 10), (10, 60), (60, 10)]


def squares(corners, score):
    boxes = [(y, x, y + SIDE, x + SIDE) for y, x in corners]
    masks = [np.ones((SIDE, SIDE), bool)] * len(boxes)
    return Instances.build(boxes, [score] * len(boxes), [0] * len(boxes), masks)


class Doubling:
    """Finds each square, and with a lower score one that lies by six tenths on it."""

    def detect(self, tiles, **_):
        beside = [(y, x + 8) for y, x in CORNERS]
        both = squares(CORNERS, 0.9), squares(beside, 0.6)
        return [Detections(Instances.concatenate(both)) for _ in tiles]


def test_the_score_is_not_raised_by_what_a_count_drops():
    found = squares(CORNERS, 1.0)
    image = AnnotatedImage(
        "drawn",
        np.full((96, 96, 3), 255, np.uint8),
        np.array([found.box(i).corners for i in range(3)]),
        list(found.masks),
        np.zeros(3, np.int64),
        "transmitted",
        None,
        "drawn",
    )
    seen = scores_of(Doubling(), [image] * FEWEST_IMAGES, ("nucleus",))
    assert seen.f1 == 1.0
    assert seen.score < 0.55


def test_of_cells_that_a_window_cuts_those_at_two_of_its_edges_count():
    window = Box(30, 30, 130, 130)
    whole, above, left, below, right = (60, 60), (20, 60), (60, 20), (120, 60), (60, 120)
    cells = squares([whole, above, left, below, right, (0, 0)], 0.9)
    found = counted_in(cells, window)
    assert [found.box(index).corners for index in range(len(found))] == [
        (60, 60, 80, 80), (30, 60, 40, 80), (60, 30, 80, 40),
    ]  # fmt: skip
    assert [mask.shape for mask in found.masks] == [(20, 20), (10, 20), (20, 10)]
