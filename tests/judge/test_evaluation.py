"""Found objects against annotated ones and what follows of it, against cases by hand."""

from pathlib import Path

import numpy as np
import pytest
from squares import FOUND, TRUTH, overlaps, squares

from cellseg.annotations.compare import Compared, average_precision, best_threshold, match
from cellseg.instances import Instances
from cellseg.judge.evaluate import calibrate
from cellseg.judge.figures import IOUS, Segmentation, count_error, size_error
from cellseg.judge.judged import Judged
from cellseg.protocol import load_protocol


def test_the_metrics_of_the_case_by_hand():
    scores = Segmentation.of(overlaps(FOUND, TRUTH))
    assert (scores.found, scores.truth) == (3, 2)
    assert scores.hits.tolist() == [1, 1, 1, 1] + [0] * 6
    assert scores.f1[0] == pytest.approx(2 / 5)
    assert scores.accuracy[0] == pytest.approx(1 / 4)
    assert scores.panoptic_quality == pytest.approx((2 / 3) / (1 + 0.5 * 2 + 0.5 * 1))
    # Shared 80 + 25, union 120 + 175, and the unused found square of 100 px.
    assert scores.aji == pytest.approx(105 / 395)


def test_a_perfect_result_is_one_everywhere_and_nothing_is_nan():
    perfect = Segmentation.of(overlaps(TRUTH, TRUTH))
    assert perfect.f1 == pytest.approx(1)
    assert perfect.accuracy == pytest.approx(1)
    assert (perfect.panoptic_quality, perfect.aji) == (1, 1)
    nothing = Segmentation.of(overlaps(Instances.empty(), Instances.empty()))
    assert np.isnan(nothing.f1).all()
    assert np.isnan(nothing.aji)


@pytest.mark.parametrize(
    ("found", "truth", "aji"),
    [(Instances.empty(), TRUTH, 0.0), (FOUND, Instances.empty(), 0.0)],
)
def test_one_empty_side_counts_as_wrong(found, truth, aji):
    scores = Segmentation.of(overlaps(found, truth))
    assert scores.f1.tolist() == [0.0] * len(IOUS)
    assert scores.aji == aji


def test_pooling_adds_up_objects_and_not_ratios():
    one = Segmentation.of(overlaps(FOUND, TRUTH))
    other = Segmentation.of(overlaps(TRUTH, TRUTH))
    pooled = Segmentation.pooled([one, other])
    assert pooled.f1[0] == pytest.approx(2 * 3 / (5 + 4))
    assert pooled.aji == pytest.approx((105 + 200) / (395 + 200))


def test_objects_left_out_are_as_if_not_found():
    keep = np.array([False, True, True])
    scores = Segmentation.of(overlaps(FOUND, TRUTH), keep=keep)
    without = Segmentation.of(overlaps(FOUND.take([1, 2]), TRUTH))
    assert (scores.found, scores.hits.tolist()) == (2, without.hits.tolist())
    assert scores.aji == without.aji


def test_count_errors_of_a_case_by_hand():
    error = count_error(np.array([10, 20, 0]), np.array([8, 24, 1]))
    assert error.bias == pytest.approx(3 / 30)
    assert error.mean_absolute == pytest.approx(7 / 3)
    assert error.mean_relative == pytest.approx((0.2 + 0.2) / 2)
    assert error.median_relative == pytest.approx(0.2)


def test_errors_that_cancel_show_in_the_error_per_image_and_in_the_interval():
    truth = np.full(40, 100)
    found = np.where(np.arange(40) % 2, 50, 150)
    error = count_error(truth, found)
    assert error.bias == 0
    assert error.mean_relative == pytest.approx(0.5)
    low, high = error.bias_interval
    # The standard error of the mean is 0.5 / sqrt(40) = 0.079.
    assert low == pytest.approx(-1.96 * 0.079, abs=0.03)
    assert high == pytest.approx(1.96 * 0.079, abs=0.03)


def test_an_exact_count_has_an_interval_without_width_and_one_image_none():
    exact = count_error(np.array([5, 7]), np.array([5, 7]))
    assert exact.bias_interval == (0, 0)
    assert np.isnan(count_error(np.array([5]), np.array([5])).bias_interval).all()


def test_size_errors_of_known_areas():
    sizes = size_error(np.array([121, 121, 121]), np.array([100, 100, 100]))
    assert sizes.area_bias == pytest.approx(0.21)
    assert sizes.diameter_bias == pytest.approx(0.1)
    assert sizes.area_spread == 0
    assert np.isnan(size_error(np.array([], int), np.array([], int)).area_bias)


def judged(truth, scores):
    """An image with ``truth`` annotated objects and found ones of the given scores."""
    places = [(0, 20 * k, 10, 20 * k + 10) for k in range(max(truth, len(scores)))]
    goals = squares(*places[:truth])
    found = squares(*places[: len(scores)], scores=scores)
    return Judged(
        found, goals, (10, 400), name="a", path=Path("a.png"), group="b", score=0.9,
        protocol=load_protocol("he"), model="1" * 64,
    )  # fmt: skip


def test_calibration_finds_the_threshold_at_which_the_pooled_count_is_right():
    # Of ten found objects, those from 0.5 on are as many as are annotated.
    scores = [0.12, 0.22, 0.32, 0.42, 0.52, 0.62, 0.72, 0.82, 0.92, 0.95]
    found = calibrate([judged(6, scores) for _ in range(8)])
    assert 0.42 < found.score <= 0.52
    assert found.bias == found.held_out_bias == 0
    assert found.interval == (1, 1)


def test_the_interval_comes_from_images_that_the_threshold_was_not_chosen_on():
    # Half of the images ask for 0.3, half for 0.7: pooled there is no error, on each there is.
    low = [judged(8, [0.95] * 4 + [0.5] * 4) for _ in range(6)]
    high = [judged(4, [0.95] * 4 + [0.5] * 4) for _ in range(6)]
    found = calibrate(low + high)
    assert found.interval[0] <= 4.5 / 8.5 + 1e-6 or found.interval[1] >= 8.5 / 4.5 - 1e-6
    assert found.interval[0] <= 1 <= found.interval[1]
    assert found.interval != (1, 1)


@pytest.mark.parametrize(("images", "truth", "said"), [(4, 3, "at least 5"), (6, 0, "0 objects")])
def test_too_little_to_calibrate_on_is_refused(images, truth, said):
    with pytest.raises(ValueError, match=said):
        calibrate([judged(truth, [0.9])] * images)


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
