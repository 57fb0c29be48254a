"""Found objects against annotated ones, by hand and against pycocotools."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cellseg.annotations.compare import (
    Compared,
    average_precision,
    best_threshold,
    match,
)
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
    return Compared(found, truth, (100, 100)).overlaps


# Truth: A and B of 100 px each. Found: A shifted by 2 (IoU 80/120 = 2/3), one that shares 25 px
# with B (IoU 25/175 = 1/7), and one on nothing.
TRUTH = squares((0, 0, 10, 10), (20, 20, 30, 30))
FOUND = squares((0, 2, 10, 12), (25, 25, 35, 35), (50, 50, 60, 60))


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


def test_average_precision_agrees_with_a_run_of_pycocotools_on_its_own():
    rng = np.random.default_rng(5)
    images, goals, results = [], [], []
    for image in range(1, 4):
        true = [(y, x, y + 12, x + 12) for y in range(0, 96, 16) for x in range(0, 96, 16)]
        seen = [tuple(int(v) for v in np.array(b) + rng.integers(0, 3, 4)) for b in true[::2]]
        scores = rng.uniform(0.1, 1, len(seen)).astype(np.float32).tolist()
        label = rng.integers(0, 2, len(true)).tolist()
        truth = squares(*true, classes=label)
        found = squares(*seen, scores=scores, classes=label[::2])
        images.append(Compared(found, truth, (128, 128)))
        for objects, rows in ((truth, goals), (found, results)):
            for k, (y0, x0, y1, x1) in enumerate(objects.boxes.tolist()):
                full = np.zeros((128, 128), np.uint8, order="F")
                full[y0:y1, x0:x1] = 1
                rows.append(
                    {
                        "id": len(rows) + 1,
                        "image_id": image,
                        "category_id": int(objects.classes[k]) + 1,
                        "segmentation": rle.encode(full),
                        "area": (y1 - y0) * (x1 - x0),
                        "bbox": [x0, y0, x1 - x0, y1 - y0],
                        "iscrowd": 0,
                        "score": float(objects.scores[k]),
                    }
                )
    with contextlib.redirect_stdout(io.StringIO()):
        data = COCO()
        data.dataset = {
            "images": [{"id": n, "height": 128, "width": 128} for n in (1, 2, 3)],
            "categories": [{"id": 1}, {"id": 2}],
            "annotations": goals,
        }
        data.createIndex()
        for kind, other in (("segm", "bbox"), ("bbox", "segmentation")):
            rows = [{key: row[key] for key in row if key != other} for row in results]
            run = COCOeval(data, data.loadRes(rows), kind)
            run.params.maxDets = [1, 10, 1000]
            run.evaluate()
            run.accumulate()
            ours = average_precision(images, 2, kind=kind)
            theirs = run.eval["precision"][:, :, :, 0, 2]
            assert ours == pytest.approx((theirs.mean(), theirs[0].mean(), theirs[5].mean()))
            assert 0.05 < ours.ap < 0.95


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
