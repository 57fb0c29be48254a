"""Found objects against annotated ones, against cases by hand."""

from __future__ import annotations

import numpy as np
import pytest
from squares import FOUND, TRUTH, overlaps, squares

from cellseg.annotations.compare import (
    Compared,
    average_precision,
    best_threshold,
    match,
)
from cellseg.instances import Instances


def test_overlaps_hold_every_pair_that_shares_pixels():
    pairs = overlaps(FOUND, TRUTH)
    assert list(zip(pairs.found, pairs.truth, pairs.shared, strict=True)) == [
        (0, 0, 80),
        (1, 1, 25),
    ]
    assert pairs.iou == pytest.approx([80 / 120, 25 / 175])


def test_boxes_that_meet_without_sharing_a_pixel_are_no_pair():
    upper = np.tri(10, dtype=bool).T & ~np.eye(10, dtype=bool)
    lower = np.tri(10, dtype=bool)
    found = Instances.build([(0, 0, 10, 10)], [1], [0], [upper])
    truth = Instances.build([(0, 0, 10, 10)], [1], [0], [lower])
    assert len(overlaps(found, truth).shared) == 0


def test_a_match_is_one_to_one_and_the_best_pair_wins():
    truth = squares((0, 0, 10, 10))
    found = squares((0, 0, 10, 8), (0, 0, 10, 9))
    best = match(overlaps(found, truth))
    assert best.found.tolist() == [1]
    assert best.iou == pytest.approx([0.9])


def test_an_iou_of_exactly_the_threshold_matches():
    assert len(match(overlaps(squares((0, 0, 10, 5)), squares((0, 0, 10, 10)))).iou) == 1
    assert len(match(overlaps(squares((0, 0, 10, 4)), squares((0, 0, 10, 10)))).iou) == 0


def test_average_precision_of_the_case_by_hand():
    truth = squares((0, 0, 10, 10), (20, 20, 30, 30))
    found = squares((0, 0, 10, 10), (50, 50, 60, 60), scores=[0.9, 0.8])
    ap = average_precision([Compared(found, truth, (64, 64))], 1)
    # Recall 0.5 at precision 1: 51 of the 101 recall points.
    assert ap == pytest.approx((51 / 101,) * 3)
    boxes = average_precision([Compared(found, truth, (64, 64))], 1, kind="bbox")
    assert boxes.ap == pytest.approx(51 / 101)


def test_more_than_a_hundred_detections_an_image_count():
    many = squares(*((8 * i, 0, 8 * i + 6, 6) for i in range(150)))
    assert average_precision([Compared(many, many, (1200, 8))], 1).ap == pytest.approx(1)


def test_classes_weigh_alike_and_what_is_not_annotated_has_none():
    truth = squares((0, 0, 10, 10), (20, 20, 30, 30), (40, 40, 50, 50), classes=[0, 0, 1])
    found = squares((0, 0, 10, 10), (20, 20, 30, 30), (40, 40, 50, 50), classes=[0, 0, 2])
    for kind in ("segm", "bbox"):
        ap = average_precision([Compared(found, truth, (64, 64))], 3, kind=kind)
        assert ap == pytest.approx((0.5,) * 3)
    empty = Compared(Instances.empty(), truth, (64, 64))
    assert average_precision([empty], 3) == (0, 0, 0)


def test_objects_of_other_areas_are_neither_right_nor_wrong():
    truth = squares((0, 0, 10, 10), (20, 20, 50, 50))
    images = [Compared(truth, truth, (64, 64)), Compared(squares((0, 0, 10, 10)), truth, (64, 64))]
    assert average_precision(images, 1, area_px=(0, 200)).ap == pytest.approx(1)
    assert average_precision(images, 1).ap < 0.9


def test_by_score_each_object_takes_its_best_free_partner():
    """As COCO matches: the one of the highest score first, not the pair of the highest IoU."""
    truth = squares((0, 0, 10, 10), (0, 12, 10, 22))
    found = squares((0, 0, 10, 8), (0, 0, 10, 9), (0, 12, 10, 22), scores=[0.9, 0.8, 0.7])
    pairs = overlaps(found, truth)
    best = match(pairs, scores=found.scores)
    assert list(zip(best.found, best.truth, strict=True)) == [(0, 0), (2, 1)]
    assert match(pairs).found.tolist() == [2, 1]
    assert match(pairs, allowed=pairs.truth == 1).found.tolist() == [2]


@pytest.mark.parametrize(
    ("counts", "row"),
    [
        # Unbiased in the pool by errors that cancel, and right in each image.
        ([[150, 50], [100, 98], [60, 60]], 1),
        # None is within two per cent: the nearest.
        ([[80, 80], [95, 95], [120, 110]], 1),
        # Equal ones: the middle.
        ([[100, 100], [100, 100], [100, 100], [90, 90]], 1),
    ],
)
def test_the_threshold_that_counts_right(counts, row):
    assert best_threshold(np.array(counts), np.array([100, 100])) == row
